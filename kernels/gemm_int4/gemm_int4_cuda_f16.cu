// gemm_int4's tensor core kernels for x in f16. See gemm_int4_cuda.cu.
#include "gemm_int4_variants.cuh"

namespace kw::gemm_int4_cuda {

Kernel f16_kernel(const GemmConfig& config) { return kernel_of<false>(config); }

}  // namespace kw::gemm_int4_cuda
