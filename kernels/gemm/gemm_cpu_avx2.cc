// gemm with AVX2, FMA and F16C: micro-tiles of 6 x 16, 12 of the 16 registers being sums.
#include "../core/cpu/simd_avx2.h"
#include "gemm_cpu_kernels.h"

namespace kw::cpu {

const GemmKernels kGemmAvx2[3] = {kernels<F32Cells, Fma, CellPanel, 6, 3, 4, 32>("avx2"),
                                  kernels<F16Cells, Fma, F16Panel, 6, 3, 4, 32>("avx2"),
                                  kernels<Bf16Cells, Fma, Bf16Panel, 6, 3, 4, 32>("avx2")};

}  // namespace kw::cpu
