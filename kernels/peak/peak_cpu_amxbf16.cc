// peak with AMX.
#include "../core/cpu/amx.h"
#include "../core/cpu/simd_avx512.h"
#include "peak_cpu_kernels.h"

namespace kw::cpu {
namespace {

constexpr int kTile = 16, kHalf = kPeakDepth / 2;  // cells of a tile; of a round

// 2 x 2 tiles of sums, nothing from memory. A tile has room for two rounds: x and -x against w twice.
void pairs_block(const PeakTile& t, int row, int column) {
  alignas(64) float x[2][2][kTile][kTile] = {},
                    w[2][kTile][kTile] = {};  // x: of two rounds; of the last of an odd number
  for (int k = 0; k < t.depth; ++k) {
    for (int i = 0; i < 2 * kTile; ++i) {
      const float cell = t.x[k * kPeakRows + row + i];
      x[0][i / kTile][i % kTile][k] = x[1][i / kTile][i % kTile][k] = cell;
      x[0][i / kTile][i % kTile][kHalf + k] = t.x[(t.depth + k) * kPeakRows + row + i];
      w[i / kTile][k][i % kTile] = w[i / kTile][kHalf + k][i % kTile] = t.w[k * kPeakWidth + column + i];
    }
  }
  AmxTiles tiles;
  tiles.zero<0>(), tiles.zero<1>(), tiles.zero<2>(), tiles.zero<3>();
  tiles.load<6>(w[0], 64), tiles.load<7>(w[1], 64);
  const auto rounds = [&](const float(&both)[2][kTile][kTile], int64_t count) {
    tiles.load<4>(both[0], 64), tiles.load<5>(both[1], 64);
    for (int64_t i = 0; i < count; ++i) {
      tiles.dot<0, 4, 6>(), tiles.dot<1, 4, 7>();
      tiles.dot<2, 5, 6>(), tiles.dot<3, 5, 7>();
    }
  };
  rounds(x[0], t.rounds / 2);
  rounds(x[1], t.rounds % 2);
  float* s = t.s + row * kPeakWidth + column;
  constexpr int kStride = kPeakWidth * 4;
  tiles.store<0>(s, kStride), tiles.store<1>(s + kTile, kStride);
  s += kTile * kPeakWidth;
  tiles.store<2>(s, kStride), tiles.store<3>(s + kTile, kStride);
}

void pairs_tile(const PeakTile& t) {
  for (int row = 0; row < kPeakRows; row += 2 * kTile)
    for (int column = 0; column < kPeakWidth; column += 2 * kTile) pairs_block(t, row, column);
}

}  // namespace

const PeakKernels kPeakAmxBf16 = {"amx_bf16", sum_row, copy_row, multiply_tile<6, 3>, pairs_tile};

}  // namespace kw::cpu
