// gemm of bf16 with vdpbf16ps: two products per cell, summed in f32 (to nearest even, denormals as 0, see gemm.h).
#include "../core/cpu/simd_avx512.h"
#include "gemm_cpu_kernels.h"

namespace kw::cpu {
namespace {

struct Bf16Pairs {
  using T = uint16_t;
  static constexpr int kPerCell = 2;
  static F load(const T* p) { return Simd::load_pairs(p); }
  static F load(const T* p, int n) { return Simd::load_pairs(p, n); }
  static F across(const T* p, int64_t stride, bool second, int n) {
    return Simd::zip_pairs(p, second ? p + stride : nullptr, n);
  }
};

struct DotBf16 {
  static F mul_add(F a, F b, F c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
};

}  // namespace

const GemmKernels kGemmAvx512Bf16 = kernels<Bf16Pairs, DotBf16, 14, 4, 6, 40>("avx512_bf16");

}  // namespace kw::cpu
