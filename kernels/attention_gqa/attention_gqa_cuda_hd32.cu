// attention_gqa on CUDA for head dimensions up to 32: see attention_gqa_cuda.cu.
#include "attention_gqa_variants.cuh"

namespace kw::attention_gqa_cuda {

std::vector<Variant> variants_32(bool bf16) {
  return ShapeList<TileShape<32, 32, 1, true, 4, 4>, TileShape<32, 32, 1, false, 2, 4>,
                   TileShape<32, 32, 2, false, 2, 3>>::variants(bf16);
}

}  // namespace kw::attention_gqa_cuda
