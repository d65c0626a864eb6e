// attention_gqa_paged on CUDA for head dimensions up to 128: see attention_gqa_paged_cuda.cu.
#include "attention_gqa_paged_variants.cuh"

namespace kw::attention_gqa_cuda {

PagedVariant paged_128(bool bf16, bool few) {
  return paged_variant<TileShape<128, 128, 1, true, 4, 3>, TileShape<128, 128, 1, false, 2, 3>>(bf16, few);
}

}  // namespace kw::attention_gqa_cuda
