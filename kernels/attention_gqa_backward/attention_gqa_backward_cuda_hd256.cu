// attention_gqa_backward on CUDA for head dimensions up to 256: see attention_gqa_backward_cuda.cu.
#include "attention_gqa_backward_variants.cuh"

namespace kw::attention_gqa_backward_cuda {

Variant variant_256(bool bf16) { return mma_variant<256>(bf16); }

}  // namespace kw::attention_gqa_backward_cuda
