// Merging partial attention results by their lse on CUDA, for attention_merge and for the splits of other attention operators:
//   lse = ln(sum over parts of exp(lse_p)  (+ exp(sink[h])))      y = sum over parts of exp(lse_p - lse) y_p
// A warp makes a row, in the order of the parts: results are the same every time. A part whose lse is -inf is not read.
#pragma once
#include "../core/cuda/elements.cuh"
#include "../core/cuda/softmax.cuh"

namespace kw {

struct MergeParams {
  // Element (part, batch, row, head, column) of y_p is at data[part * y_part + batch * y_batch + ...]; lse_p likewise.
  const void* parts;
  const float* part_lse;
  DType dtype;  // of parts
  int64_t y_part, y_batch, y_row, y_head;
  int64_t lse_part, lse_batch, lse_head, lse_row;
  void* y;
  float* lse;  // may be null
  DType y_dtype;
  int64_t out_batch, out_row, out_head;
  int64_t out_lse_batch, out_lse_head, out_lse_row;
  const float* sink;            // [heads], may be null
  unsigned total, rows, heads;  // total: batch * rows * heads, below 2^31
  int columns, count;
  bool absent_rows;  // an lse of +inf in the first part marks a row that is not there: y = 0, lse = -inf
};

constexpr int kMergeThreads = 128, kMergeColumns = 8;  // columns per lane and pass

// The parts of one row, and where it goes.
struct MergeRow {
  int count;
  const float* part_lse;  // of the first part
  int64_t from, to;       // elements of the first part and of y
  int64_t lse;            // element of lse
};

// By a warp.
KW_DEVICE void merge_row(const MergeParams& p, unsigned head, const MergeRow& row) {
  const int lane = ptx::lane_id();
  const auto lse_of = [&](int part) {
    return part < row.count ? row.part_lse[part * p.lse_part] : negative_infinity();
  };

  float top = negative_infinity();
  for (int part = lane; part < row.count; part += 32) top = fmaxf(top, lse_of(part));
  top = lanes_max<32>(top);
  const bool absent = p.absent_rows && row.part_lse[0] == -negative_infinity();
  const float sink = p.sink && !absent ? p.sink[head] : negative_infinity();
  top = finite_or_zero(fmaxf(top, sink));
  float sum = 0;
  for (int part = lane; part < row.count; part += 32) sum += expf(lse_of(part) - top);
  sum = lanes_sum<32>(sum) + (p.sink && !absent ? expf(sink - top) : 0.0f);
  const bool empty = absent || sum == 0;
  const float scale = 1.0f / sum;
  if (p.lse && lane == 0) p.lse[row.lse] = empty ? negative_infinity() : top + logf(sum);

  for (int column0 = lane; column0 - lane < p.columns; column0 += 32 * kMergeColumns) {
    float y[kMergeColumns] = {};
    for (int base = 0; base < row.count && !empty; base += 32) {
      const float lse = lse_of(base + lane);
      const float mine = lse == negative_infinity() ? -1.0f : expf(lse - top) * scale;
      const int parts = min(32, row.count - base);
      for (int part = 0; part < parts; ++part) {
        const float weight = __shfl_sync(0xffffffffu, mine, part);
        if (weight < 0) continue;
        const int64_t at = (base + part) * p.y_part + row.from;
#pragma unroll
        for (int i = 0; i < kMergeColumns; ++i)
          if (column0 + 32 * i < p.columns) y[i] = fmaf(weight, load1(p.parts, p.dtype, at + column0 + 32 * i), y[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kMergeColumns; ++i)
      if (column0 + 32 * i < p.columns) store1(p.y, p.y_dtype, row.to + column0 + 32 * i, y[i]);
  }
}

static __global__ void __launch_bounds__(kMergeThreads, 8) merge_rows(const __grid_constant__ MergeParams p) {
  const unsigned item = blockIdx.x * (kMergeThreads / 32) + threadIdx.x / 32;
  if (item >= p.total) return;
  const unsigned head = item % p.heads, row = item / p.heads % p.rows, batch = item / p.heads / p.rows;
  merge_row(p, head,
            {.count = p.count,
             .part_lse = p.part_lse + batch * p.lse_batch + head * p.lse_head + row * p.lse_row,
             .from = batch * p.y_batch + row * p.y_row + head * p.y_head,
             .to = batch * p.out_batch + row * p.out_row + head * p.out_head,
             .lse = batch * p.out_lse_batch + head * p.out_lse_head + row * p.out_lse_row});
}

inline void launch_merge(const MergeParams& p, Stream stream) {
  if (p.total == 0) return;
  constexpr unsigned kRows = kMergeThreads / 32;
  launch({.grid = {(p.total + kRows - 1) / kRows}, .block = {kMergeThreads}, .stream = stream}, merge_rows, p);
}

}  // namespace kw
