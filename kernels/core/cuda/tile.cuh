// Operand tiles of 16-bit elements for mma.sync: how they lie in shared memory, how cp.async brings them there, how
// ldmatrix reads them back. A tile holds kRows rows (of m or n) by 32 of k. Its lines are cut into 16-byte chunks, and
// chunks are permuted by XOR so that both the copies and the eight lines of an 8x8 matrix touch every bank once.
#pragma once
#include "ptx.cuh"

namespace kw {

constexpr int kTileDepth = 32;  // elements of k in a tile

// The operand is contiguous along k: a line is one row, 64 bytes; chunk c of line r lies at chunk c ^ (r / 2 % 4).
template <int kRows>
struct KContiguousTile {
  static constexpr bool kAlongK = true;
  static constexpr int kBytes = kRows * kTileDepth * 2;
  static constexpr int kLineChunks = kTileDepth / 8;

  static KW_DEVICE uint32_t offset(int line, int chunk) { return line * 64 + ((chunk ^ ((line >> 1) & 3)) << 4); }
  // This lane's address within fragment (0, 0); fragment() moves it to rows row .. row + 15, k 16 step .. 16 step + 15.
  static KW_DEVICE uint32_t lane_offset(int lane) { return offset(lane & 15, lane >> 4); }
  // r[0..3]: 8x8 blocks (rows 0-7, k 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15): operand A of m16n8k16 as is, and two
  // B operands {r[0], r[2]} and {r[1], r[3]}.
  static KW_DEVICE void fragment(uint32_t (&r)[4], uint32_t tile, uint32_t lane, int row, int step) {
    ptx::ldmatrix_x4(r, tile + row * 64 + (lane ^ (step << 5)));
  }
};

// The operand is contiguous along rows: a line is one k, 2 kRows bytes; chunk c of line k lies at chunk c ^ (k % 8).
template <int kRows>
struct RowContiguousTile {
  static_assert(kRows >= 64 && (kRows & (kRows - 1)) == 0, "a line must span all banks");
  static constexpr bool kAlongK = false;
  static constexpr int kBytes = kRows * kTileDepth * 2;
  static constexpr int kLineChunks = kRows / 8;

  static KW_DEVICE uint32_t offset(int line, int chunk) { return line * kRows * 2 + ((chunk ^ (line & 7)) << 4); }
  static KW_DEVICE uint32_t lane_offset(int lane) { return offset((lane >> 4) * 8 + (lane & 7), (lane >> 3) & 1); }
  static KW_DEVICE void fragment(uint32_t (&r)[4], uint32_t tile, uint32_t lane, int row, int step) {
    ptx::ldmatrix_x4_trans(r, tile + step * 16 * kRows * 2 + (lane ^ (row << 1)));
  }
};

// Which operand row a tile's row is. Tiles of a gated weight interleave 8 gate rows with the 8 up rows `pair` further
// down, so that a thread's neighbouring accumulators hold both; pair is 0 otherwise.
struct TileRows {
  int limit;  // rows that exist, of each kind
  int pair;
  KW_DEVICE int output(int row) const { return pair ? (row >> 4) * 8 + (row & 7) : row; }  // column of y this row makes
  KW_DEVICE int64_t operand(int row) const { return int64_t{output(row)} + (pair && (row & 8) ? pair : 0); }
};

// One thread's share of copying tile after tile along k with 16-byte cp.async; what lies outside the operand becomes
// zero. The base and both outer strides must be multiples of 16 bytes, pair a multiple of 8 where rows are contiguous.
template <class Tile, int kThreads>
class TileLoader {
  static constexpr int kCopies = Tile::kBytes / 16 / kThreads;
  static constexpr int kLines = kThreads / Tile::kLineChunks;  // lines between two copies of a thread
  static_assert(kCopies >= 1 && kLines % 8 == 0, "a thread's copies must share one swizzle");
  static_assert(!Tile::kAlongK || kLines % 16 == 0, "and one side of a pair");

 public:
  // data: element (0, 0) of the batch; strides in elements; row0: first row of the tile; depth: length of k.
  KW_DEVICE TileLoader(const void* data, int64_t row_stride, int64_t k_stride, TileRows rows, int row0, int depth)
      : base_(static_cast<const char*>(data)) {
    const int tid = static_cast<int>(threadIdx.x), line = tid / Tile::kLineChunks, chunk = tid % Tile::kLineChunks;
    target_ = Tile::offset(line, chunk);
    if constexpr (Tile::kAlongK) {
      const int row = row0 + line, lines = rows.pair ? kLines / 2 : kLines;
      source_ = base_ + 2 * (rows.operand(row) * row_stride + chunk * 8);
      between_ = 2 * row_stride * lines;
      advance_ = 2 * kTileDepth;
      left_ = depth - chunk * 8;
      valid_ = 0;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) valid_ |= (rows.output(row) + i * lines < rows.limit) << i;
    } else {
      const int row = row0 + chunk * 8;
      source_ = base_ + 2 * (rows.operand(row) + line * k_stride);
      between_ = 2 * k_stride * kLines;
      advance_ = 2 * k_stride * kTileDepth;
      left_ = depth - line;
      valid_ = bytes_of(rows.limit - rows.output(row));
    }
  }

  // Issues the copies of the next tile into `tile`.
  KW_DEVICE void copy(uint32_t tile) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int bytes = Tile::kAlongK ? (valid_ >> i & 1 ? bytes_of(left_) : 0) : (left_ > i * kLines ? valid_ : 0);
      const uint32_t target = tile + target_ + i * kLines * Tile::kLineChunks * 16;
      ptx::cp_async_16(target, bytes ? source_ + i * between_ : base_, bytes);
    }
    source_ += advance_;
    left_ -= kTileDepth;
  }

 private:
  static KW_DEVICE int bytes_of(int elements) { return elements <= 0 ? 0 : elements >= 8 ? 16 : 2 * elements; }

  const char* base_;
  const char* source_;
  int64_t between_, advance_;
  uint32_t target_;
  int left_;   // k from this thread's first element to the end
  int valid_;  // along k: bit i says that the row of copy i exists; along rows: bytes of the chunk that exist
};

}  // namespace kw
