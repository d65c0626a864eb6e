// nsa_attend on CUDA for head dimensions up to 256: see nsa_attend_cuda.cu.
#include "nsa_attend_variants.cuh"

namespace kw::attention_gqa_cuda {

SelectedVariant selected_256(bool bf16) { return selected_variant<TileShape<256, 256, 1, true, 2, 2>>(bf16); }

}  // namespace kw::attention_gqa_cuda
