// nsa_attend on CUDA for head dimensions up to 128: see nsa_attend_cuda.cu.
#include "nsa_attend_variants.cuh"

namespace kw::attention_gqa_cuda {

SelectedVariant selected_128(bool bf16) { return selected_variant<TileShape<128, 128, 1, true, 4, 3>>(bf16); }

}  // namespace kw::attention_gqa_cuda
