// The kernels of attention_gqa_paged by compiled head dimension, each set instantiated in a file of its own.
#pragma once
#include "../attention_gqa/attention_gqa_variants.cuh"
#include "attention_gqa_paged_walk.cuh"

namespace kw::attention_gqa_cuda {

using PagedVariant = VariantOf<PagedParams>;

// few: at most 16 rows.
template <class Few, class Many>
PagedVariant paged_variant(bool bf16, bool few) {
  if (few)
    return bf16 ? mma_variant<true, Few, PagedParams>("paged_mma_16", 1)
                : mma_variant<false, Few, PagedParams>("paged_mma_16", 1);
  return bf16 ? mma_variant<true, Many, PagedParams>("paged_mma_64", 1)
              : mma_variant<false, Many, PagedParams>("paged_mma_64", 1);
}

PagedVariant paged_64(bool bf16, bool few);
PagedVariant paged_128(bool bf16, bool few);
PagedVariant paged_256(bool bf16, bool few);

}  // namespace kw::attention_gqa_cuda
