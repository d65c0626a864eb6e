// What attention_gqa_backward does on CUDA for whole rows, before and after its tiles: lse and D of each row, and dsink.
#pragma once
#include "attention_gqa_backward_kernels.cuh"

namespace kw::attention_gqa_backward_cuda {

// ---- before: lse and D of each row, a warp each ------------------------------------------------------------------------

constexpr int kPrepareThreads = 128;

static __global__ void __launch_bounds__(kPrepareThreads, 8)
    backward_prepare(const __grid_constant__ BackwardParams b) {
  const Params& p = b.rows;
  check_lengths(p);
  const int lane = ptx::lane_id();
  const int64_t item = int64_t{blockIdx.x} * (kPrepareThreads / 32) + threadIdx.x / 32;
  if (item >= int64_t{p.batch} * p.heads_q * p.len_q) return;
  const int row = static_cast<int>(item % p.len_q), head = static_cast<int>(item / p.len_q % p.heads_q);
  const int batch = static_cast<int>(item / p.len_q / p.heads_q);
  const bool there = p.cu_q     ? row >= p.cu_q[0] && row < p.cu_q[p.cu_count - 1]
                     : p.lens_q ? row < p.lens_q[batch]
                                : true;
  float sum = 0, lse = -negative_infinity();
  if (there) {
    const int64_t y = batch * b.y.batch + row * b.y.row + head * b.y.head;
    const int64_t dy = batch * b.dy.batch + row * b.dy.row + head * b.dy.head;
    for (int e = lane; e < p.dim_v; e += 32)
      sum = fmaf(load1(b.y.data, b.y.dtype, y + e), load1(b.dy.data, b.dy.dtype, dy + e), sum);
    lse = static_cast<const float*>(p.lse.data)[batch * p.lse.batch + head * p.lse.head + row * p.lse.row];
    if (lse == negative_infinity()) lse = -lse;
  }
  sum = lanes_sum<32>(sum);
  if (there && b.dlse.data)
    sum -= static_cast<const float*>(b.dlse.data)[batch * b.dlse.batch + head * b.dlse.head + row * b.dlse.row];
  if (lane == 0) b.lse[item] = lse, b.delta[item] = sum;
}

// ---- dsink: a block for each head ---------------------------------------------------------------------------------------

constexpr int kSinkThreads = 256;

static __global__ void __launch_bounds__(kSinkThreads, 4) backward_sink(const __grid_constant__ BackwardParams b) {
  KW_SHARED(float[kSinkThreads / 32], parts);
  const Params& p = b.rows;
  const int head = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const float sink = p.sink[head];
  float sum = 0;
  for (int64_t n = thread; n < int64_t{p.batch} * p.len_q; n += kSinkThreads) {
    const int64_t at = row_index(p, static_cast<int>(n / p.len_q), head, static_cast<int>(n % p.len_q));
    const float away = sink - b.lse[at];
    sum = fmaf(expf(away > 0 ? 0.0f : away), b.delta[at], sum);
  }
  sum = lanes_sum<32>(sum);
  if (thread % 32 == 0) parts[thread / 32] = sum;
  __syncthreads();
  if (thread != 0) return;
  float total = 0;
  for (int i = 0; i < kSinkThreads / 32; ++i) total += parts[i];
  b.dsink[head * b.dsink_step] = -total;
}

}  // namespace kw::attention_gqa_backward_cuda
