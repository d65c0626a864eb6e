// gemm_int4's tensor core kernels for x in bf16. See gemm_int4_cuda.cu.
#include "gemm_int4_variants.cuh"

namespace kw::gemm_int4_cuda {

Kernel bf16_kernel(const GemmConfig& config) { return kernel_of<true>(config); }

}  // namespace kw::gemm_int4_cuda
