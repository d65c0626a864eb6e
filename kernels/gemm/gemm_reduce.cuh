// gemm_reduce, the second kernel of a product whose k is summed in parts: adds the parts in their order and finishes y. A warp
// makes 16 rows by 32 columns, so few rows still have a block for every 128 columns. See gemm_cuda.cu.
//
// Prediction, not measured: 4 bytes read for each part and element of y, from L2 where they were just written: 1-2 us of
// ramp and of L2 latency at m = 1.
#pragma once
#include "gemm_epilogue.cuh"

namespace kw::gemm_cuda {

constexpr int kReduceThreads = 128, kReduceRows = 16, kReduceColumns = 32 * kReduceThreads / 32;

static __global__ void __launch_bounds__(kReduceThreads) gemm_reduce(const __grid_constant__ GemmParams p) {
  constexpr int kColumns = 32, kPitch = kColumns + 8;
  KW_SHARED(float4[kReduceThreads / 32][kReduceRows * kPitch / 4], sums);
  float* staged = reinterpret_cast<float*>(sums[threadIdx.x / 32]);
  const int across = static_cast<int>((p.partial_pitch + kReduceColumns - 1) / kReduceColumns);
  const int row0 = static_cast<int>(blockIdx.x) / across * kReduceRows;
  const int column0 =
      static_cast<int>(blockIdx.x) % across * kReduceColumns + static_cast<int>(threadIdx.x) / 32 * kColumns;
  const int64_t part = p.s.batch * p.s.m * p.partial_pitch;
  for (int64_t batch = blockIdx.z; batch < p.s.batch; batch += gridDim.z) {
#pragma unroll 1
    for (int item = ptx::lane_id(); item < kReduceRows * kColumns / 8; item += 32) {
      const int r = item / (kColumns / 8), g = item % (kColumns / 8), row = row0 + r, column = column0 + 8 * g;
      if (row >= p.s.m || column >= p.partial_pitch) continue;
      const int64_t at = (batch * p.s.m + row) * p.partial_pitch + column;
      float total[8];
      load8(total, p.partial, DType::f32, at);
#pragma unroll 4
      for (int split = 1; split < p.splits; ++split) {
        float v[8];
        load8(v, p.partial, DType::f32, at + split * part);
#pragma unroll
        for (int e = 0; e < 8; ++e) total[e] += v[e];
      }
      store8(staged, DType::f32, r * kPitch + 8 * g, total);
    }
    __syncwarp();
    finish_rows<kColumns>(p, staged, batch, row0, column0);
    __syncwarp();
  }
}

}  // namespace kw::gemm_cuda
