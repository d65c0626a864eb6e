// gemm's tensor core kernels for bf16. See gemm_cuda.cu.
#include "gemm_variants.cuh"

namespace kw::gemm_cuda {

Kernel bf16_kernel(const GemmConfig& config, Access access) { return half_kernel<true>(config, access); }

}  // namespace kw::gemm_cuda
