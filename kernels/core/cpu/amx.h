// The tile registers of AMX: eight of 16 rows by 64 bytes. Included by what is compiled for amx_bf16 alone.
#pragma once
#include <cstdint>

#include "simd_avx512.h"

namespace kw::cpu {
namespace {

// For as long as this lives the calling thread has its tiles configured; they are released with it, because a thread
// with tiles in use carries 8 KB more through every switch. In assembly, since the tile's number is part of the
// instruction and the intrinsics of some compilers take nothing but a literal and say nothing of memory.
class AmxTiles {
 public:
  static constexpr bool kSigned = true;  // both operands of dot_bytes
  // Tiles 0 to 3 for sums and 4 and 5 for their left operand have `rows` rows, 6 and 7 for the right one as many as `bytes`, of
  // a left operand's row, ask for.
  explicit AmxTiles(int rows = 16, int bytes = 64) {
    alignas(64) struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) config.rows[i] = static_cast<uint8_t>(i < 6 ? rows : bytes / 4);
    config.row_bytes[4] = config.row_bytes[5] = static_cast<uint16_t>(bytes);
    _tile_loadconfig(&config);
  }
  ~AmxTiles() { _tile_release(); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  template <int Tile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
  }
  // stride in bytes.
  template <int Tile>
  void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(Tile) : "memory");
  }
  template <int Tile>
  void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(Tile) : "memory");
  }
  // Sums (f32, 16 x 16) += a (16 rows of 32 bf16) times b (16 pairs along k of 16 columns).
  template <int Sums, int A, int B>
  void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(A), "i"(B));
  }
  // Sums (i32) += a (16 rows of 64 int8) times b (16 groups of four along k of 16 columns).
  template <int Sums, int A, int B>
  void dot_bytes() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(A), "i"(B));
  }
};

}  // namespace
}  // namespace kw::cpu
