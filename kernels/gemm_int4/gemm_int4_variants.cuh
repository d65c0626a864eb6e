// From a configuration (gemm_int4_choose.h) to its kernel. bf16 and f16 are compiled by files of their own, which nvcc builds at once.
#pragma once
#include <array>
#include <utility>

#include "gemm_int4_choose.h"
#include "gemm_int4_mma.cuh"

namespace kw::gemm_int4_cuda {

using Kernel = void (*)(Int4Params);

Kernel bf16_kernel(const GemmConfig& config);
Kernel f16_kernel(const GemmConfig& config);

template <size_t I, bool kBf16>
constexpr Kernel int4_kernel() {
  constexpr GemmConfig c = kInt4Configs[I];
  if constexpr (c.family == gemm_cuda::Family::sm90) {
    return nullptr;  // gemm_int4_sm90.cu's
  } else {
    using Shape = TileShape<c.m, c.n, c.warp_m, c.warp_n, c.stages, c.blocks>;
    static_assert(c.k == kDepth && Shape::kThreads == c.threads() && Stage<Shape>::kBytes == c.stage_bytes());
    return gemm_int4_mma<kBf16, Shape>;
  }
}

template <bool kBf16>
Kernel kernel_of(const GemmConfig& config) {
  static constexpr auto kAt = []<size_t... I>(std::index_sequence<I...>) {
    return std::array{int4_kernel<I, kBf16>()...};
  }
  (std::make_index_sequence<std::size(kInt4Configs)>());
  return kAt[static_cast<size_t>(&config - kInt4Configs)];
}

}  // namespace kw::gemm_int4_cuda
