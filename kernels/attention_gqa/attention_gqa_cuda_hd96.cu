// attention_gqa on CUDA for head dimensions up to 96: see attention_gqa_cuda.cu.
#include "attention_gqa_variants.cuh"

namespace kw::attention_gqa_cuda {

std::vector<Variant> variants_96(bool bf16) {
  return ShapeList<TileShape<96, 96, 1, true, 4, 3>, TileShape<96, 96, 1, false, 2, 3>,
                   TileShape<96, 96, 2, false, 2, 2>>::variants(bf16);
}

}  // namespace kw::attention_gqa_cuda
