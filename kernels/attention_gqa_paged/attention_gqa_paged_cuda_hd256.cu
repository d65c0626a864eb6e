// attention_gqa_paged on CUDA for head dimensions up to 256: see attention_gqa_paged_cuda.cu.
#include "attention_gqa_paged_variants.cuh"

namespace kw::attention_gqa_cuda {

PagedVariant paged_256(bool bf16, bool few) {
  return paged_variant<TileShape<256, 256, 1, true, 2, 2>, TileShape<256, 256, 1, false, 2, 2>>(bf16, few);
}

}  // namespace kw::attention_gqa_cuda
