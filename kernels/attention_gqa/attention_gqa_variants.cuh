// The kernels of attention_gqa by compiled head dimension, each set instantiated in a file of its own.
#pragma once
#include <vector>

#include "attention_gqa_configuration.h"
#include "attention_gqa_mma.cuh"

namespace kw::attention_gqa_cuda {

// P: the parameters of its kernel.
template <class P>
struct VariantOf {
  const char* name;
  void (*kernel)(P);
  int dim, dim_v, rows, keys;
  int threads, smem;
  int blocks;         // per SM, as registers allow
  double efficiency;  // of a busy SM, relative to the largest tile: a guess that ranks tiles, not a measurement
  bool split_warps;   // the block's warps share out the keys
};
using Variant = VariantOf<Params>;

template <bool kBf16, class Shape, class P = Params>
VariantOf<P> mma_variant(const char* name, double efficiency) {
  return {name,
          attention_mma<kBf16, Shape, P>,
          Shape::kDim,
          Shape::kDimV,
          Shape::kM,
          Shape::kN,
          Shape::kThreads,
          Shape::kSmem,
          Shape::kBlocks,
          efficiency,
          Shape::kSplitWarps};
}

template <class... Shapes>
struct ShapeList {
  // In the order of their rows: 16 (every warp other keys), 64, 128.
  static std::vector<Variant> variants(bool bf16) {
    constexpr double kEfficiency[] = {0.5, 0.8, 1};
    std::vector<Variant> found;
    (found.push_back(bf16 ? mma_variant<true, Shapes>(kPortableKernels[found.size()], kEfficiency[found.size()])
                          : mma_variant<false, Shapes>(kPortableKernels[found.size()], kEfficiency[found.size()])),
     ...);
    return found;
  }
};

std::vector<Variant> variants_32(bool bf16);
std::vector<Variant> variants_64(bool bf16);
std::vector<Variant> variants_96(bool bf16);
std::vector<Variant> variants_128(bool bf16);
std::vector<Variant> variants_192(bool bf16);
std::vector<Variant> variants_192_128(bool bf16);
std::vector<Variant> variants_256(bool bf16);

}  // namespace kw::attention_gqa_cuda
