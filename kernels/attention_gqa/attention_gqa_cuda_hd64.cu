// attention_gqa on CUDA for head dimensions up to 64: see attention_gqa_cuda.cu.
#include "attention_gqa_variants.cuh"

namespace kw::attention_gqa_cuda {

std::vector<Variant> variants_64(bool bf16) {
  return ShapeList<TileShape<64, 64, 1, true, 4, 4>, TileShape<64, 64, 1, false, 2, 4>,
                   TileShape<64, 64, 2, false, 2, 2>>::variants(bf16);
}

}  // namespace kw::attention_gqa_cuda
