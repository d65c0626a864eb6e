// The order of a block's micro-tiles, and the operands of the next block on their way into L2 meanwhile: for every
// instruction set, each with its own copy.
#pragma once
#include "gemm_cpu.h"

namespace kw::cpu {
namespace {

// Each micro-tile takes a few of the rows and asks for one cache line of each at a time, since a burst of requests would
// stall the products. Rows that lie end to end it takes as one, line after line: the processor's own prefetching joins in.
class Ahead {
 public:
  Ahead(const GemmAhead& all, int64_t tiles) : left_(all), each_((all.rows + tiles - 1) / tiles) {}
  // The rows that the next micro-tile takes.
  GemmAhead next() {
    GemmAhead some = left_;
    some.rows = each_ < left_.rows ? each_ : left_.rows;
    left_.rows -= some.rows, left_.at += some.rows * (left_.stride == kFetched ? left_.bytes : left_.stride);
    return some;
  }

 private:
  GemmAhead left_;
  int64_t each_;
};

// As many cache lines as there are rows, the `turn`-th such call of a micro-tile.
inline void fetch(const GemmAhead& ahead, int64_t turn) {
  if (turn * kFetched >= ahead.bytes) return;
  const char* line = ahead.at + turn * kFetched * (ahead.stride == kFetched ? ahead.rows : 1);
  for (int64_t r = 0; r < ahead.rows; ++r, line += ahead.stride) {
    __builtin_prefetch(line, 0, 2);
    asm volatile("");  // or GCC takes this for a function without effects and drops the call
  }
}

// The rows of panel j of a plain w.
inline GemmAhead rows_of(const GemmPiece& w, int64_t j) {
  constexpr int64_t element = 2;  // tiles are of bf16
  const int64_t first = j * w.mr, rows = w.rows - first < w.mr ? w.rows - first : w.mr;
  const char* at = static_cast<const char*>(w.from) + first * w.row_stride * element;
  const int64_t k = w.cells * 4 / element < w.k ? w.cells * 4 / element : w.k;
  if (w.k_stride == 1) return {at, w.row_stride * element, rows, k * element};
  return {at, w.k_stride * element, k, rows * element};
}

// multiply(x, w, sums, ahead) for every micro-tile of b.mr rows by nr columns, panel of w after panel of w.
template <class Multiply>
inline void each_tile(const GemmBlock& b, int nr, Multiply&& multiply) {
  Ahead ahead(b.ahead, int64_t{b.panels_x} * b.panels_w);
  for (int j = 0; j < b.panels_w; ++j) {
    const char* w = static_cast<const char*>(b.w) + j * b.panel_w;
    if (b.in_place) {  // the next panel, cut into rows as long as a micro-tile has turns
      const char* next = j + 1 < b.panels_w ? w + b.panel_w : b.ahead.at;
      ahead = Ahead({next, kFetched, next ? b.ahead.rows : 0, b.cells * 4}, b.panels_x);
    }
    if (b.plain.to) {
      const bool last = j + 1 == b.panels_w;
      ahead = Ahead(last ? b.ahead : rows_of(b.plain, j + 1), b.panels_x);
    }
    for (int i = 0; i < b.panels_x; ++i) {
      multiply(b.x + i * b.mr * b.cells, w, b.sums + i * b.mr * b.stride + j * nr, ahead.next());
    }
  }
}

}  // namespace
}  // namespace kw::cpu
