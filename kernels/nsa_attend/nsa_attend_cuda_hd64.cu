// nsa_attend on CUDA for head dimensions up to 64: see nsa_attend_cuda.cu.
#include "nsa_attend_variants.cuh"

namespace kw::attention_gqa_cuda {

SelectedVariant selected_64(bool bf16) { return selected_variant<TileShape<64, 64, 1, true, 4, 4>>(bf16); }

}  // namespace kw::attention_gqa_cuda
