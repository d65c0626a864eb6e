// gemm_int4 with AVX-512 and what came with vdpbf16ps: vpdpbusd for x in int8, panels of bf16 for the micro-kernels of bf16.
#include "../core/cpu/nibbles_avx512.h"
#include "../core/cpu/simd_pairs.h"
#include "gemm_int4_cpu_kernels.h"

namespace kw::cpu {
namespace {

// Rounds to bf16 itself, denormals to 0.
struct PairCell {
  static void put(float* to, int, F even, F odd, int lanes) { Simd::store(to, Bf16Pairs::zip(even, odd), lanes); }
  static constexpr int kFloats = 1;
};

constexpr Int4Kernels with_pairs(Int4Kernels kernels) {
  kernels.panel_pairs = panel<PairCell>;
  return kernels;
}

}  // namespace

const Int4Kernels kInt4Avx512Bf16 = with_pairs(int4_kernels<4, 4, 12>("avx512_bf16"));

}  // namespace kw::cpu
