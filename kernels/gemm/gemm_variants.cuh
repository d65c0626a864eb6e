// From a configuration (gemm_choose.h) to its kernel. bf16 and f16 are compiled by files of their own, which nvcc builds at once.
#pragma once
#include <array>
#include <utility>

#include "gemm_choose.h"
#include "gemm_mma.cuh"

namespace kw::gemm_cuda {

using Kernel = void (*)(GemmParams);

// Null where the configuration is not compiled for such lines.
Kernel bf16_kernel(const GemmConfig& config, Access access);
Kernel f16_kernel(const GemmConfig& config, Access access);

template <size_t I>
using ShapeOf = TileShape<kConfigs[I].m, kConfigs[I].n, kConfigs[I].warp_m, kConfigs[I].warp_n, kConfigs[I].stages,
                          kConfigs[I].blocks>;

template <size_t I, bool kBf16, Access kAccess, template <int> class XTile, template <int> class WTile>
constexpr Kernel mma_kernel() {
  constexpr GemmConfig c = kConfigs[I];
  if constexpr (c.family == Family::mma && (c.access & bit(kAccess))) {
    static_assert(ShapeOf<I>::kThreads == c.threads());
    static_assert(XTile<c.m>::kBytes + WTile<c.n>::kBytes == c.stage_bytes());
    return gemm_mma<kBf16, ShapeOf<I>, XTile<c.m>, WTile<c.n>>;
  } else {
    return nullptr;
  }
}

template <size_t I, bool kBf16>
constexpr Kernel any_kernel() {
  constexpr GemmConfig c = kConfigs[I];
  if constexpr (c.family == Family::mma_any) {
    static_assert(ShapeOf<I>::kThreads == c.threads());
    static_assert(KContiguousTile<c.m>::kBytes + KContiguousTile<c.n>::kBytes == c.stage_bytes());
    return gemm_mma_any<kBf16, ShapeOf<I>>;
  } else {
    return nullptr;
  }
}

template <bool kBf16>
Kernel half_kernel(const GemmConfig& config, Access access) {
  using OfAccess = std::array<Kernel, 5>;  // in the order of Access
  static constexpr auto kAt = []<size_t... I>(std::index_sequence<I...>) {
    return std::array{OfAccess{mma_kernel<I, kBf16, Access::k_k, KContiguousTile, KContiguousTile>(),
                               mma_kernel<I, kBf16, Access::k_rows, KContiguousTile, RowContiguousTile>(),
                               mma_kernel<I, kBf16, Access::rows_k, RowContiguousTile, KContiguousTile>(),
                               mma_kernel<I, kBf16, Access::rows_rows, RowContiguousTile, RowContiguousTile>(),
                               any_kernel<I, kBf16>()}...};
  }
  (std::make_index_sequence<std::size(kConfigs)>());
  return kAt[static_cast<size_t>(&config - kConfigs)][static_cast<size_t>(access)];
}

}  // namespace kw::gemm_cuda
