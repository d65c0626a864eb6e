// The kernels of nsa_attend by compiled head dimension, each set instantiated in a file of its own.
#pragma once
#include "../attention_gqa/attention_gqa_variants.cuh"
#include "nsa_attend_walk.cuh"

namespace kw::attention_gqa_cuda {

using SelectedVariant = VariantOf<SelectedParams>;

template <class Shape>
SelectedVariant selected_variant(bool bf16) {
  return bf16 ? mma_variant<true, Shape, SelectedParams>("nsa_mma_16", 1)
              : mma_variant<false, Shape, SelectedParams>("nsa_mma_16", 1);
}

SelectedVariant selected_64(bool bf16);
SelectedVariant selected_128(bool bf16);
SelectedVariant selected_256(bool bf16);

}  // namespace kw::attention_gqa_cuda
