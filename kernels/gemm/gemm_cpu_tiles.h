// The loops of gemm on the CPU over tile registers: a micro-tile of 32 x 32 is four tiles of sums, fed by two of x and two
// of w. Tiles is the processor's (core/cpu/amx.h) or a model of them, with which test/cpu runs these loops anywhere.
#pragma once
#include <algorithm>
#include <cstring>

#include "gemm_cpu.h"
#include "gemm_cpu_ahead.h"

namespace kw::cpu {
namespace {

constexpr int kTile = 16;         // rows, columns and cells of a tile
constexpr int kTileColumns = 32;  // of a panel of w

// One tile of x: 16 rows by 32 elements, zeros where there are fewer.
inline void pack_tile(float* to, const uint16_t* from, int64_t row_stride, int64_t k_stride, int64_t rows, int64_t k) {
  const int64_t count = std::clamp<int64_t>(k, 0, 2 * kTile);
  for (int r = 0; r < kTile; ++r, to += kTile) {
    const uint16_t* row = from + r * row_stride;
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

// A panel of x, `panel` rows, as [cells / 16][panel][16 cells]: every 16 rows of it are a tile. cells is a multiple of 16.
inline void pack_tiles(float* to, const void* from, int64_t row_stride, int64_t k_stride, int rows, int64_t k,
                       int64_t cells, int panel) {
  const auto* source = static_cast<const uint16_t*>(from);
  for (int64_t c = 0; c < cells; c += kTile) {
    for (int r = 0; r < panel; r += kTile, to += kTile * kTile) {
      pack_tile(to, source + r * row_stride + 2 * c * k_stride, row_stride, k_stride, rows - r, k - 2 * c);
    }
  }
}

// Packs a piece of x a few tiles at a time: the next piece between the micro-tiles of this one, where loads and stores have
// little else to do.
class Packing {
 public:
  Packing(const GemmPiece& piece, int64_t turns)
      : piece_(piece),
        tiles_(piece.to ? piece.panels * piece.mr * piece.cells / (kTile * kTile) : 0),
        each_((tiles_ + turns - 1) / turns) {}
  void some() {
    const int64_t high = piece_.mr / kTile, end = std::min(done_ + each_, tiles_);
    for (; done_ < end; ++done_) {
      const int64_t step = done_ / high % (piece_.cells / kTile), k = step * 2 * kTile;
      const int64_t row = done_ / (high * (piece_.cells / kTile)) * piece_.mr + done_ % high * kTile;
      const auto* from = static_cast<const uint16_t*>(piece_.from) + row * piece_.row_stride + k * piece_.k_stride;
      pack_tile(piece_.to + done_ * kTile * kTile, from, piece_.row_stride, piece_.k_stride, piece_.rows - row,
                piece_.k - k);
    }
  }

 private:
  const GemmPiece& piece_;
  int64_t tiles_, each_, done_ = 0;
};

inline void pack_piece(const GemmPiece& piece) { Packing(piece, 1).some(); }

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

// b.mr is 16 or 32, b.cells a multiple of 16. PackW packs a panel of w.
template <class Tiles, GemmKernels::Pack PackW>
void block_of_tiles(const GemmBlock& b) {
  Tiles tiles;
  Packing next(b.next, int64_t{b.panels_x} * b.panels_w);
  const void* packed = nullptr;
  each_tile(b, kTileColumns, [&](const float* x, const void* w, float* sums, const GemmAhead& ahead) {
    const auto* panel = static_cast<const float*>(w);
    if (b.plain.to && packed != w) {
      const GemmPiece& p = b.plain;
      const int64_t row = (panel - p.to) / p.cells;
      PackW(p.to + row * p.cells, static_cast<const uint16_t*>(p.from) + row * p.row_stride, p.row_stride, p.k_stride,
            static_cast<int>(std::min(p.rows - row, int64_t{kTileColumns})), std::min(p.k, 2 * p.cells), p.cells,
            kTileColumns);
      packed = w;
    }
    b.mr == kTile ? multiply_tiles<Tiles, 1>(tiles, x, panel, b.cells, sums, b.stride, b.add, ahead)
                  : multiply_tiles<Tiles, 2>(tiles, x, panel, b.cells, sums, b.stride, b.add, ahead);
    next.some();
  });
}

}  // namespace
}  // namespace kw::cpu
