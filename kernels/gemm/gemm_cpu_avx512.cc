// gemm with AVX-512: micro-tiles of 12 x 32, 24 of the 32 registers being sums.
#include "../core/cpu/simd_avx512.h"
#include "gemm_cpu_kernels.h"

namespace kw::cpu {

const GemmKernels kGemmAvx512[3] = {kernels<F32Cells, Fma, CellPanel, 12, 4, 6, 48>("avx512"),
                                    kernels<F16Cells, Fma, F16Panel, 12, 4, 6, 40>("avx512"),
                                    kernels<Bf16Cells, Fma, Bf16Panel, 12, 4, 6, 40>("avx512")};

}  // namespace kw::cpu
