// attention_gqa_backward on CUDA for head dimensions up to 32: see attention_gqa_backward_cuda.cu.
#include "attention_gqa_backward_variants.cuh"

namespace kw::attention_gqa_backward_cuda {

Variant variant_32(bool bf16) { return mma_variant<32>(bf16); }

}  // namespace kw::attention_gqa_backward_cuda
