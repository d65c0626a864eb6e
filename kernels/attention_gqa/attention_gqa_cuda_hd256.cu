// attention_gqa on CUDA for head dimensions up to 256: see attention_gqa_cuda.cu.
#include "attention_gqa_variants.cuh"

namespace kw::attention_gqa_cuda {

std::vector<Variant> variants_256(bool bf16) {
  return ShapeList<TileShape<256, 256, 1, true, 2, 2>, TileShape<256, 256, 1, false, 2, 2>>::variants(bf16);
}

}  // namespace kw::attention_gqa_cuda
