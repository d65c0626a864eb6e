// The loops of gemm on the CPU over tile registers: a micro-tile of 32 x 32 is four tiles of sums, fed by two of x and two
// of w. Tiles is the processor's (core/cpu/amx.h) or a model of them, with which test/cpu runs these loops anywhere.
#pragma once
#include <cstring>

#include "gemm_cpu.h"
#include "gemm_cpu_ahead.h"

namespace kw::cpu {
namespace {

constexpr int kTile = 16;         // rows, columns and cells of a tile
constexpr int kTileColumns = 32;  // of a panel of w

// A panel of x, `panel` rows, as [cells / 16][panel][16 cells]: every 16 rows of it are a tile. cells is a multiple of 16.
inline void pack_tiles(float* to, const void* from, int64_t row_stride, int64_t k_stride, int rows, int64_t k,
                       int64_t cells, int panel) {
  const auto* source = static_cast<const uint16_t*>(from);
  for (int64_t c = 0; c < cells; c += kTile) {
    const int64_t first = 2 * c, count = k < first ? 0 : k - first < 2 * kTile ? k - first : 2 * kTile;
    for (int r = 0; r < panel; ++r, to += kTile) {
      const uint16_t* row = source + r * row_stride + first * k_stride;
      if (r >= rows || count == 0) {
        std::memset(to, 0, kTile * 4);
      } else if (k_stride == 1 && count == 2 * kTile) {
        std::memcpy(to, row, kTile * 4);
      } else {
        uint16_t elements[2 * kTile] = {};
        for (int64_t i = 0; i < count; ++i) elements[i] = row[i * k_stride];
        std::memcpy(to, elements, kTile * 4);
      }
    }
  }
}

// x: Rows tiles high, as pack_tiles leaves it; w: [cells][32 columns].
template <class Tiles, int Rows>
inline void multiply_tiles(Tiles& t, const float* x, const float* w, int64_t cells, float* sums, int64_t stride,
                           bool add, const GemmAhead& ahead) {
  const int64_t row = stride * 4;
  float* const low = sums + kTile * stride;
  if (add) {
    t.template load<0>(sums, row), t.template load<1>(sums + kTile, row);
    if constexpr (Rows == 2) t.template load<2>(low, row), t.template load<3>(low + kTile, row);
  } else {
    t.template zero<0>(), t.template zero<1>();
    if constexpr (Rows == 2) t.template zero<2>(), t.template zero<3>();
  }
  for (int64_t c = 0; c < cells; c += kTile) {
    fetch(ahead, c / kTile);
    t.template load<6>(w, kTileColumns * 4);
    t.template load<4>(x, kTile * 4);
    t.template dot<0, 4, 6>();
    t.template load<7>(w + kTile, kTileColumns * 4);
    t.template dot<1, 4, 7>();
    if constexpr (Rows == 2) {
      t.template load<5>(x + kTile * kTile, kTile * 4);
      t.template dot<2, 5, 6>();
      t.template dot<3, 5, 7>();
    }
    x += Rows * kTile * kTile, w += kTile * kTileColumns;
  }
  t.template store<0>(sums, row), t.template store<1>(sums + kTile, row);
  if constexpr (Rows == 2) t.template store<2>(low, row), t.template store<3>(low + kTile, row);
}

// b.mr is 16 or 32, b.cells a multiple of 16.
template <class Tiles>
void block_of_tiles(const GemmBlock& b) {
  Tiles tiles;
  each_tile(b, kTileColumns, [&](const float* x, const void* w, float* sums, const GemmAhead& ahead) {
    const auto* panel = static_cast<const float*>(w);
    b.mr == kTile ? multiply_tiles<Tiles, 1>(tiles, x, panel, b.cells, sums, b.stride, b.add, ahead)
                  : multiply_tiles<Tiles, 2>(tiles, x, panel, b.cells, sums, b.stride, b.add, ahead);
  });
}

}  // namespace
}  // namespace kw::cpu
