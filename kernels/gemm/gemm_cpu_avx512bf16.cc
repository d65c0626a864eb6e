// gemm of bf16 with vdpbf16ps: two products per cell, summed in f32 (to nearest even, denormals as 0, see gemm.h).
#include "../core/cpu/simd_pairs.h"
#include "gemm_cpu_kernels.h"

namespace kw::cpu {

const GemmKernels kGemmAvx512Bf16 = kernels<Bf16Pairs, DotBf16, CellPanel, 12, 4, 6, 40>("avx512_bf16");

}  // namespace kw::cpu
