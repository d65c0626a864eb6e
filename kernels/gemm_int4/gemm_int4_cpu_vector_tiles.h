// Tiles of int8 (core/cpu/amx.h) out of vector registers, after nibbles_<isa>.h: for processors without AMX. Sums of some rows
// of x stay in registers over a tile's products: with AVX-512 all sixteen, and with vpdpbusd 256 instructions for 16 x 16 x 64
// products; without it two for 4 products a lane, sums of eight in 16 bits before they are widened.
#pragma once
#include "gemm_int4_cpu_tiles.h"

namespace kw::cpu {
namespace {

class VectorTiles {
 public:
  static constexpr bool kSigned = false;
  // Bytes in a row of x, 32 or 64.
  VectorTiles(int, int bytes) : fours_(bytes / 4) {}
  template <int Tile>
  void zero() {
    memset(sums_[Tile], 0, sizeof(sums_[Tile]));
  }
  // Rows one after the other; they are read when they are multiplied.
  template <int Tile>
  void load(const float* from, int64_t) {
    from_[Tile - 4] = from;
  }
  template <int Tile>
  void store(float* to, int64_t) {
    memcpy(to, sums_[Tile], sizeof(sums_[Tile]));
  }
  template <int Sums, int A, int B>
  void dot_bytes() {
    for (int row = 0; row < 16; row += kRows) {
      (fours_ == 8 ? dot_rows<8> : dot_rows<16>)(sums_[Sums] + row * kVectors16, from_[A - 4] + row * fours_,
                                                 from_[B - 4]);
    }
  }

 private:
  static constexpr int kVectors16 = 16 / kW;              // that hold 16 lanes
  static constexpr int kRows = kVectors16 == 1 ? 16 : 4;  // of x at a time

  template <int Fours>
  static void dot_rows(I* sums, const float* x, const float* w) {
    constexpr int kEach = Fours < Nibbles::kQuads ? Fours : Nibbles::kQuads;
    for (int first = 0; first < Fours; first += kEach) {
      I s[kRows][kVectors16] = {};
      for (int q = first; q < first + kEach; ++q) {
        I four[kVectors16];
        for (int v = 0; v < kVectors16; ++v) four[v] = (I)Simd::load(w + q * 16 + v * kW);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
          const I other = (I)Simd::set(x[i * Fours + q]);
#pragma GCC unroll 2
          for (int v = 0; v < kVectors16; ++v) s[i][v] = Nibbles::quad(s[i][v], four[v], other);
        }
      }
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors16; ++v) sums[i * kVectors16 + v] += Nibbles::widened(s[i][v]);
      }
    }
  }

  I sums_[4][16 * kVectors16];
  const float* from_[4];
  int fours_;
};

constexpr Int4TileKernels kVectorTiles = {
    .splits = false, .arrange = arrange_tiles, .multiply = multiply_tiles<VectorTiles, true>};

}  // namespace
}  // namespace kw::cpu
