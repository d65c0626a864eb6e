// gemm in plain C++: every architecture, four lanes at a time.
#include "../core/cpu/simd_generic.h"
#include "gemm_cpu_kernels.h"

namespace kw::cpu {

const GemmKernels kGemmGeneric[3] = {kernels<F32Cells, Fma, CellPanel, 6, 2, 4, 32>("generic"),
                                     kernels<F16Cells, Fma, F16Panel, 6, 2, 4, 2>("generic"),
                                     kernels<Bf16Cells, Fma, Bf16Panel, 6, 2, 4, 2>("generic")};

}  // namespace kw::cpu
