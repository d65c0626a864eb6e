// attention_gqa on CUDA for head dimensions up to 192: see attention_gqa_cuda.cu.
#include "attention_gqa_variants.cuh"

namespace kw::attention_gqa_cuda {

std::vector<Variant> variants_192(bool bf16) {
  return ShapeList<TileShape<192, 192, 1, true, 3, 2>, TileShape<192, 192, 1, false, 2, 2>>::variants(bf16);
}
std::vector<Variant> variants_192_128(bool bf16) {
  return ShapeList<TileShape<192, 128, 1, true, 3, 2>, TileShape<192, 128, 1, false, 2, 2>>::variants(bf16);
}

}  // namespace kw::attention_gqa_cuda
