// gemm's tensor core kernels for f16. See gemm_cuda.cu.
#include "gemm_variants.cuh"

namespace kw::gemm_cuda {

Kernel f16_kernel(const GemmConfig& config, Access access) { return half_kernel<false>(config, access); }

}  // namespace kw::gemm_cuda
