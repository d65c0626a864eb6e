// attention_gqa_paged on CUDA for head dimensions up to 64: see attention_gqa_paged_cuda.cu.
#include "attention_gqa_paged_variants.cuh"

namespace kw::attention_gqa_cuda {

PagedVariant paged_64(bool bf16, bool few) {
  return paged_variant<TileShape<64, 64, 1, true, 4, 4>, TileShape<64, 64, 1, false, 2, 4>>(bf16, few);
}

}  // namespace kw::attention_gqa_cuda
