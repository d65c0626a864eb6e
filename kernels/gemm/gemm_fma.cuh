// gemm of f32 with IEEE fma, any compute capability. See gemm_cuda.cu.
#pragma once
#include "gemm_epilogue.cuh"

namespace kw::gemm_cuda {

// A tile is kRows lines of 16 k and 4 floats of padding: eight lanes reading four k each of eight neighbouring lines touch
// every bank once.
constexpr int kFmaDepth = 16, kFmaPitch = kFmaDepth + 4;

// This thread's share of copying the tile at (row0, k0); outside the operand it becomes zero. Pieces of 16 bytes when
// wide, else single floats, neighbouring lanes walking the direction that is contiguous.
template <int kRows, int kThreads>
KW_DEVICE void copy_f32(uint32_t tile, const GemmOperand& o, int64_t batch, bool wide, TileRows rows, int row0, int k0,
                        int depth) {
  const float* data = static_cast<const float*>(o.data) + batch * o.batch;
  const int tid = static_cast<int>(threadIdx.x);
  if (wide) {
#pragma unroll
    for (int i = 0; i < kRows * 4 / kThreads; ++i) {
      const int item = tid + i * kThreads, line = item / 4, k = item % 4 * 4, row = row0 + line;
      const int left = rows.output(row) < rows.limit ? min(4, max(0, depth - k0 - k)) : 0;
      const float* source = left ? data + rows.operand(row) * o.row + k0 + k : data;
      ptx::cp_async_16(tile + 4 * (line * kFmaPitch + k), source, 4 * left);
    }
  } else {
    const bool along_k = o.column == 1;
#pragma unroll 1
    for (int i = 0; i < kRows * kFmaDepth / kThreads; ++i) {
      const int item = tid + i * kThreads;
      const int line = along_k ? item / kFmaDepth : item % kRows, k = along_k ? item % kFmaDepth : item / kRows;
      const int row = row0 + line;
      const bool inside = rows.output(row) < rows.limit && k0 + k < depth;
      const float* source = inside ? data + rows.operand(row) * o.row + (k0 + k) * o.column : data;
      ptx::cp_async_4(tile + 4 * (line * kFmaPitch + k), source, inside ? 4 : 0);
    }
  }
}

template <class Shape>
static __global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    gemm_fma(const __grid_constant__ GemmParams p) {
  constexpr int kX = Shape::kWarpM / 8, kW = Shape::kWarpN / 4;  // of a thread: rows 8 apart, columns 4 apart
  constexpr int kXFloats = Shape::kM * kFmaPitch, kStageFloats = (Shape::kM + Shape::kN) * kFmaPitch;
  constexpr int kPitch = Shape::kWarpN + 8;
  static_assert(Shape::kStages == 2 && Shape::kThreads / 32 * 16 * kPitch <= 2 * kStageFloats);
  float* smem = reinterpret_cast<float*>(dyn_smem());
  const uint32_t ring = ptx::smem_u32(smem);
  const DepthRange range = depth_range(p);
  const int depth = range.begin + range.size;  // where this block's part ends; it begins at a whole tile
  const TilePlace place = tile_place(p, Shape::kM, Shape::kN);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = ptx::lane_id();
  const int warp_row = warp / Shape::kWarpsN * Shape::kWarpM, warp_column = warp % Shape::kWarpsN * Shape::kWarpN;
  for (int64_t batch = blockIdx.z; batch < p.s.batch; batch += gridDim.z) {
    const auto fill = [&](int k0) {
      const uint32_t stage = ring + k0 / kFmaDepth % 2 * kStageFloats * 4;
      copy_f32<Shape::kM, Shape::kThreads>(stage, p.s.x, batch, p.x_wide, rows_of_x(p), place.row, k0, depth);
      copy_f32<Shape::kN, Shape::kThreads>(stage + kXFloats * 4, p.s.w, batch, p.w_wide, rows_of_w(p), place.column, k0,
                                           depth);
      ptx::cp_async_commit();
    };
    float sum[kX][kW] = {};
    if (range.size > 0) fill(range.begin);
#pragma unroll 1
    for (int k0 = range.begin; k0 < depth; k0 += kFmaDepth) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // also: every warp is done with the stage that the next fill overwrites
      if (k0 + kFmaDepth < depth) fill(k0 + kFmaDepth);
      const float* stage = smem + k0 / kFmaDepth % 2 * kStageFloats;
      const float* x = stage + (warp_row + lane / 4) * kFmaPitch;
      const float* w = stage + kXFloats + (warp_column + lane % 4) * kFmaPitch;
#pragma unroll
      for (int k = 0; k < kFmaDepth; k += 4) {
        float4 b[kW];
#pragma unroll
        for (int j = 0; j < kW; ++j) b[j] = *reinterpret_cast<const float4*>(w + j * 4 * kFmaPitch + k);
#pragma unroll
        for (int i = 0; i < kX; ++i) {
          const float4 a = *reinterpret_cast<const float4*>(x + i * 8 * kFmaPitch + k);
#pragma unroll
          for (int j = 0; j < kW; ++j)
            sum[i][j] = fmaf(a.w, b[j].w, fmaf(a.z, b[j].z, fmaf(a.y, b[j].y, fmaf(a.x, b[j].x, sum[i][j]))));
        }
      }
    }
    __syncthreads();
    float* staged = smem + warp * 16 * kPitch;
#pragma unroll 1
    for (int slab = 0; slab < kX / 2; ++slab) {
#pragma unroll
      for (int i = 0; i < kX; ++i) {
        if (i / 2 != slab) continue;
#pragma unroll
        for (int j = 0; j < kW; ++j) staged[(lane / 4 + 8 * (i % 2)) * kPitch + lane % 4 + 4 * j] = sum[i][j];
      }
      __syncwarp();
      leave_rows<Shape::kWarpN>(p, staged, batch, place.row + warp_row + 16 * slab, place.column + warp_column);
      __syncwarp();
    }
    __syncthreads();
  }
}

}  // namespace kw::gemm_cuda
