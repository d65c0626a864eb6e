// Tiles of 16-bit elements in shared memory whose lines are whole rows of an operand (a key, a query), for mma.sync: where
// element chunks lie, how ldmatrix reads them, how a group of threads copies them there. Chunks of 16 bytes are permuted
// by XOR so that both the copies and the eight lines of an 8x8 matrix touch every bank once.
#pragma once
#include "ptx.cuh"

namespace kw {

template <int kElements>
struct LineTile {
  static_assert(kElements % 32 == 0);
  static constexpr int kChunks = kElements / 8, kPitch = kElements * 2;
  // A pitch that is an odd multiple of 64 bytes already alternates between the two halves of the banks.
  static constexpr int kMask = kElements % 64 ? 3 : 7, kShift = kElements % 64 ? 1 : 0;

  static KW_DEVICE uint32_t offset(int line, int chunk) {
    return line * kPitch + ((chunk ^ ((line >> kShift) & kMask)) << 4);
  }
  // This lane's address within the fragment at line 0, step 0.
  static KW_DEVICE uint32_t lane_offset(int lane) { return offset(lane & 15, lane >> 4); }

  // 16 lines from `line` (a multiple of 16) by 16 elements from 16 step, as 8x8 blocks: lines 0-7 and 8-15 of elements
  // 0-7, then of elements 8-15. Operand A of m16n8k16 as is; with lines as n, B operands {r[0], r[2]} and {r[1], r[3]}.
  static KW_DEVICE void fragment(uint32_t (&r)[4], uint32_t tile, uint32_t lane, int line, int step) {
    ptx::ldmatrix_x4(r, address(tile, lane, line, step));
  }
  // The same blocks transposed: with lines as k, B operands {r[0], r[1]} and {r[2], r[3]} for 8 elements each.
  static KW_DEVICE void fragment_trans(uint32_t (&r)[4], uint32_t tile, uint32_t lane, int line, int step) {
    ptx::ldmatrix_x4_trans(r, address(tile, lane, line, step));
  }
  // 8 lines from `line` (a multiple of 8) by 32 elements from 32 step: B operands {r[0], r[1]} and {r[2], r[3]} of two steps.
  static KW_DEVICE uint32_t lane_offset_8(int lane) { return offset(lane & 7, lane >> 3); }
  static KW_DEVICE void fragment_8(uint32_t (&r)[4], uint32_t tile, uint32_t lane, int line, int step) {
    static_assert(kMask == 7, "lines of whole 128 bytes");
    ptx::ldmatrix_x4(r, tile + line * kPitch + step / 2 * 128 + (lane ^ ((step & 1) << 6)));
  }

 private:
  static KW_DEVICE uint32_t address(uint32_t tile, uint32_t lane, int line, int step) {
    const int low = step & (kMask >> 1);
    return tile + line * kPitch + (step - low) * 32 + (lane ^ (low << 5));
  }
};

// A group of kThreads threads, of which this is number `thread`, copies kLines lines. source(line) is where a line begins,
// or null for a line of zeros; elements from `elements` on become zero too. wide: every line begins at a multiple of 16
// bytes; then the copies are cp.async, else ordinary loads and stores. `valid` is any address of the operand.
template <class Tile, int kLines, int kThreads, class Source>
KW_DEVICE void copy_lines(unsigned char* tile, int thread, int elements, bool wide, const void* valid, Source source) {
  constexpr int kItems = kLines * Tile::kChunks, kCopies = (kItems + kThreads - 1) / kThreads;
  const auto place = [thread](int i, int& line, int& chunk) {
    if constexpr (kThreads % Tile::kChunks == 0) {
      line = thread / Tile::kChunks + i * (kThreads / Tile::kChunks);
      chunk = thread % Tile::kChunks;
    } else {
      line = (thread + i * kThreads) / Tile::kChunks;
      chunk = (thread + i * kThreads) % Tile::kChunks;
    }
    return kItems % kThreads == 0 || line < kLines;
  };
  if (wide) {
    const uint32_t base = ptx::smem_u32(tile);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      int line, chunk;
      if (!place(i, line, chunk)) continue;
      const uint16_t* from = source(line);
      const int bytes = from ? min(max(2 * elements - 16 * chunk, 0), 16) : 0;
      ptx::cp_async_16(base + Tile::offset(line, chunk), bytes ? from + 8 * chunk : valid, bytes);
    }
  } else {
#pragma unroll 1
    for (int i = 0; i < kCopies; ++i) {
      int line, chunk;
      if (!place(i, line, chunk)) continue;
      const uint16_t* from = source(line);
      const int count = from ? elements - 8 * chunk : 0;
      uint32_t words[4];
#pragma unroll
      for (int e = 0; e < 8; e += 2) {
        const uint32_t low = e < count ? from[8 * chunk + e] : 0, high = e + 1 < count ? from[8 * chunk + e + 1] : 0;
        words[e / 2] = low | high << 16;
      }
      *reinterpret_cast<uint4*>(tile + Tile::offset(line, chunk)) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

}  // namespace kw
