// How gemm_int4 cuts a problem on the CPU: which way it goes, the sizes of its pieces, and the workspace they take.
#include <algorithm>
#include <cstdint>

#include "gemm_int4_cpu_plan.h"

namespace kw::cpu {
namespace {

constexpr int64_t kArrangedFloats = 256 << 10;  // of x for stream at a time, 1 MB
constexpr int64_t kArrangedRows = 256;          // at most
constexpr int64_t kStreamColumns = 256;         // rows of w in a task of stream, at most
constexpr int64_t kStreamSums = 16 << 10;       // floats of sums in a task, about
constexpr int64_t kTileFloats = 1 << 20;        // of x for tiles at a time, 4 MB
constexpr int64_t kTileRows = 512;              // at most
constexpr int64_t kTileColumns = 128;           // rows of w in a task of tiles, at most
constexpr int64_t kTilePiece = 6 << 10;         // floats of a panel of w decoded at a time, half an L1 cache
constexpr int64_t kTileChain = 256;             // elements along k that are summed on tiles, at most
constexpr int64_t kLargestBlock = 128;
constexpr double kSerialWork = 200e3;  // FLOPs below which waking a thread costs more than it brings

// bf16 that add up to an element of x.
int parts_of(DType dtype) { return dtype == DType::f32 ? 3 : dtype == DType::f16 ? 2 : 1; }

// The problem as gemm's: all rows of x with one w, which is decoded and so never packed as gemm packs.
GemmShape flat(const GemmInt4Shape& shape) {
  GemmShape s = shape.gemm;
  s.w.format = 0;
  s.m *= s.batch, s.batch = 1;
  return s;
}

}  // namespace

Int4Layout GemmInt4CpuPlan::layout(const GemmInt4Shape& shape) const {
  const GemmShape g = flat(shape);
  Int4Layout l;
  if (g.m == 0 || g.n == 0) return l;
  const double work = static_cast<double>(g.m * g.rows_w) * static_cast<double>(2 * g.k + 20);
  l.threads = work < kSerialWork ? 1 : machine_.threads;
  const bool whole = int8_ && !rounded_;
  const bool many = many_ ? *many_ : invariant_ || g.m > most_streamed(shape.block);
  if (many && tiles_) {
    l.way = Way::tiles;
    lay_out_tiles(shape, g, l);
  } else if (many && !whole) {
    l.way = Way::blocks;
    lay_out_blocks(g, l);
  } else {
    l.way = whole ? Way::stream_int8 : Way::stream;
    lay_out_stream(g, l);
  }
  return l;
}

// Rows of x up to which streaming w pays. A block of 32 fills half a tile.
int GemmInt4CpuPlan::most_streamed(int64_t block) const {
  if (int8_ && !rounded_ && packed_) return kernels_.packed_int8_m * (block == kInt4Unit ? 2 : 1);
  if (int8_ && !rounded_) return kernels_.stream_int8_m;
  return packed_ ? kernels_.packed_m : kernels_.stream_m;
}

void GemmInt4CpuPlan::lay_out_stream(const GemmShape& g, Int4Layout& l) const {
  const int64_t row = l.way == Way::stream ? kernels_.row_floats(g.k) : kernels_.row_floats_int8(g.k);
  const int64_t fits = std::max<int64_t>(kernels_.stream_mx, kArrangedFloats / std::max<int64_t>(row, 1));
  l.group = std::min({g.m, fits, kArrangedRows});
  const int64_t even = round_up(ceil_div(g.n, 8 * l.threads), kInt4Rows), in_sums = kStreamSums / (l.group * halves_);
  l.columns = std::clamp<int64_t>(std::min(even, in_sums / kInt4Rows * kInt4Rows), kInt4Rows, kStreamColumns);
  l.arranged = l.group * row;
  l.own_work = std::max(g.k, kernels_.scratch_floats(g.k));
  l.own_sums = l.group * halves_ * l.columns;
}

void GemmInt4CpuPlan::lay_out_blocks(const GemmShape& g, Int4Layout& l) const {
  l.blocks = gemm_layout(g, gemm_, machine_, true);
  l.group = l.blocks.group * l.blocks.panels * l.blocks.mr;
  l.columns = l.blocks.panels_w * gemm_.nr;
  l.arranged = l.blocks.packed_x, l.own_w = l.blocks.own_w, l.own_sums = l.blocks.own_sums;
  l.own_work = l.blocks.mr * (l.blocks.depth * gemm_.per_cell + 2 * kLargestBlock);
}

void GemmInt4CpuPlan::lay_out_tiles(const GemmInt4Shape& shape, const GemmShape& g, Int4Layout& l) const {
  Int4TileShape& t = l.tiles;
  t.k = g.k, t.segment = shape.block, t.parts = int8_ ? 0 : parts_of(g.x.dtype);
  if (!int8_) {
    t.segment = std::clamp<int64_t>(shape.group, kInt4Unit, kTileChain);
    while (shape.group % t.segment != 0) t.segment -= kInt4Unit;
  }
  t.steps = ceil_div(t.segment, int8_ ? 64 : kInt4Unit), t.segments = g.k / t.segment;
  t.wide = int8_ && t.segment < 64 ? 8 : 16;
  t.floats_x = t.segments * (t.floats_of_x() + 2 * 16);
  t.floats_w = t.steps * 2 * 16 * t.wide + 2 * 32;
  const int64_t fits = std::clamp<int64_t>(kTileFloats / std::max<int64_t>(t.floats_x, 1), 1, kTileRows / 16),
                all = ceil_div(g.m, 16);
  const int64_t each = ceil_div(all, ceil_div(all, fits));  // sixteens of rows
  l.group = 16 * std::min(fits, round_up(each, 2));
  l.columns = std::clamp<int64_t>(round_up(ceil_div(g.n, 4 * l.threads), 32), 32, kTileColumns);
  l.piece = std::clamp<int64_t>(kTilePiece / t.floats_w, 1, t.segments);
  l.arranged = std::min(l.group / 16, all) * t.floats_x;
  l.own_work = g.k;
  l.own_w = l.piece * t.floats_w;
  l.own_sums = std::min(l.group, 16 * all) * halves_ * l.columns;
}

// Floats of workspace that are enough for this shape and for every one with smaller extents.
int64_t GemmInt4CpuPlan::capacity(const GemmInt4Shape& shape) const {
  const GemmShape g = flat(shape);
  if (g.m == 0 || g.n == 0) return 0;
  const bool whole = int8_ && !rounded_;
  const int64_t row = whole ? kernels_.row_floats_int8(g.k) : kernels_.row_floats(g.k);
  const int64_t streamed = tiles_ && !many_ ? most_streamed(kInt4Unit) : kArrangedRows;
  const int64_t rows = std::min({g.m, kArrangedRows, streamed});
  const int64_t arranged = std::min(rows * row, std::max(kernels_.stream_mx * row, kArrangedFloats));
  const int64_t sums = std::max(std::min(rows * halves_ * kStreamColumns, kStreamSums), rows * halves_ * kInt4Rows);
  const int64_t stream = arranged + machine_.threads * (std::max(g.k, kernels_.scratch_floats(g.k)) + sums);
  if (tiles_) {
    Int4Layout l;
    lay_out_tiles(shape, g, l);
    const Int4TileShape& t = l.tiles;
    const int64_t all = ceil_div(g.m, 16), columns = std::min(kTileColumns, round_up(g.n, 32));
    const int64_t x = std::min(all * t.floats_x, std::max(kTileFloats, t.floats_x));
    const int64_t w = std::max(kTilePiece, t.floats_w);
    const int64_t own = g.k + w + std::min(16 * all, kTileRows) * halves_ * columns;
    return std::max(stream, x + machine_.threads * own);
  }
  if (whole) return stream;
  const int64_t work = gemm_.mr * (gemm_.depth * gemm_.per_cell + 2 * kLargestBlock);
  return std::max(stream, gemm_capacity(g, gemm_, machine_) + machine_.threads * work);
}

}  // namespace kw::cpu
