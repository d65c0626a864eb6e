// gemm of bf16 and f16 on tensor cores, compute capability 8.0 and up: gemm_mma for 16-byte aligned rows, gemm_mma_any for
// everything else. See gemm_cuda.cu.
#pragma once
#include "gemm_epilogue.cuh"

namespace kw::gemm_cuda {

template <bool kBf16>
KW_DEVICE void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kBf16) {
    ptx::mma_m16n8k16_bf16(d, a, b, d);
  } else {
    ptx::mma_m16n8k16_f16(d, a, b, d);
  }
}

// A warp's part of a tile: sums, and fragments of two steps of k.
template <bool kBf16, class Shape, class XTile, class WTile>
struct WarpTile {
  static constexpr int kX = Shape::kWarpM / 16, kW = Shape::kWarpN / 16, kSteps = kTileDepth / 16;
  static constexpr int kPitch = Shape::kWarpN + 8;
  static constexpr int kStageBytes = XTile::kBytes + WTile::kBytes;
  static_assert(Shape::kThreads / 32 * 16 * kPitch * 4 <= Shape::kStages * kStageBytes, "epilogue reuses the ring");

  float sum[kX][2 * kW][4];
  uint32_t x[2][kX][4], w[2][kW][4];
  int row, column;  // of the warp within the tile
  uint32_t x_lane, w_lane;

  KW_DEVICE WarpTile() {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = ptx::lane_id();
    row = warp / Shape::kWarpsN * Shape::kWarpM;
    column = warp % Shape::kWarpsN * Shape::kWarpN;
    x_lane = XTile::lane_offset(lane);
    w_lane = WTile::lane_offset(lane);
  }

  KW_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < kX; ++i)
#pragma unroll
      for (int j = 0; j < 2 * kW; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[i][j][e] = 0.0f;
  }

  // Fragments of k step `step` of the stage into buffer step % 2.
  KW_DEVICE void load(uint32_t stage, int step) {
#pragma unroll
    for (int i = 0; i < kX; ++i) XTile::fragment(x[step % 2][i], stage, x_lane, row + 16 * i, step);
#pragma unroll
    for (int j = 0; j < kW; ++j) WTile::fragment(w[step % 2][j], stage + XTile::kBytes, w_lane, column + 16 * j, step);
  }

  KW_DEVICE void multiply(int step) {
#pragma unroll
    for (int i = 0; i < kX; ++i)
#pragma unroll
      for (int j = 0; j < 2 * kW; ++j) {
        const uint32_t(&f)[4] = w[step % 2][j / 2];
        const uint32_t b[2] = {f[j % 2], f[2 + j % 2]};
        mma<kBf16>(sum[i][j], x[step % 2][i], b);
      }
  }

  // Every warp must be done with the ring, whose memory `staged` reuses.
  KW_DEVICE void finish(const GemmParams& p, unsigned char* smem, int64_t batch, TilePlace place) {
    const int lane = ptx::lane_id();
    float* staged = reinterpret_cast<float*>(smem) + threadIdx.x / 32 * 16 * kPitch;
    float* mine = staged + (lane >> 2) * kPitch + (lane & 3) * 2;
#pragma unroll 1
    for (int slab = 0; slab < kX; ++slab) {
#pragma unroll
      for (int i = 0; i < kX; ++i) {
        if (i != slab) continue;
#pragma unroll
        for (int j = 0; j < 2 * kW; ++j) {
          *reinterpret_cast<float2*>(mine + j * 8) = make_float2(sum[i][j][0], sum[i][j][1]);
          *reinterpret_cast<float2*>(mine + j * 8 + 8 * kPitch) = make_float2(sum[i][j][2], sum[i][j][3]);
        }
      }
      __syncwarp();
      leave_rows<Shape::kWarpN>(p, staged, batch, place.row + row + 16 * slab, place.column + column);
      __syncwarp();
    }
  }
};

KW_DEVICE const uint16_t* batch_data(const GemmOperand& o, int64_t batch, int k0) {
  return static_cast<const uint16_t*>(o.data) + batch * o.batch + k0 * o.column;
}

template <bool kBf16, class Shape, class XTile, class WTile>
static __global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    gemm_mma(const __grid_constant__ GemmParams p) {
  using Warp = WarpTile<kBf16, Shape, XTile, WTile>;
  constexpr int kStages = Shape::kStages;
  unsigned char* smem = dyn_smem();
  const uint32_t ring = ptx::smem_u32(smem);
  const DepthRange depth = depth_range(p);
  const int tiles = (depth.size + kTileDepth - 1) / kTileDepth;
  const TilePlace place = tile_place(p, Shape::kM, Shape::kN);
  Warp warp;
  for (int64_t batch = blockIdx.z; batch < p.s.batch; batch += gridDim.z) {
    TileLoader<XTile, Shape::kThreads> x(batch_data(p.s.x, batch, depth.begin), p.s.x.row, p.s.x.column, rows_of_x(p),
                                         place.row, depth.size);
    TileLoader<WTile, Shape::kThreads> w(batch_data(p.s.w, batch, depth.begin), p.s.w.row, p.s.w.column, rows_of_w(p),
                                         place.column, depth.size);
    warp.clear();
    int loaded = 0, filling = 0;
    const auto fill = [&] {  // one group per call, empty once every tile is on its way
      if (loaded < tiles) {
        const uint32_t stage = ring + filling * Warp::kStageBytes;
        x.copy(stage);
        w.copy(stage + XTile::kBytes);
        ++loaded;
        filling = filling + 1 == kStages ? 0 : filling + 1;
      }
      ptx::cp_async_commit();
    };
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) fill();
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();
    int reading = 0;
    if (tiles > 0) warp.load(ring, 0);
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
#pragma unroll
      for (int step = 0; step < Warp::kSteps; ++step) {
        if (step + 1 < Warp::kSteps) {
          warp.load(ring + reading * Warp::kStageBytes, step + 1);
        } else {  // every fragment of this stage is in registers: the next fill may overwrite it
          ptx::cp_async_wait<kStages - 2>();
          __syncthreads();
          reading = reading + 1 == kStages ? 0 : reading + 1;
          if (tile + 1 < tiles) warp.load(ring + reading * Warp::kStageBytes, 0);
        }
        if (step == 0) fill();
        warp.multiply(step);
      }
    }
    // The last barrier above came after the last copy and the last read of the ring.
    warp.finish(p, smem, batch, place);
    __syncthreads();
  }
}

// One thread's share of copying tiles of an operand with any strides: through registers, element by element.
template <class Tile, int kRows, int kThreads>
class AnyLoader {
  static constexpr int kCopies = Tile::kBytes / 16 / kThreads;

 public:
  KW_DEVICE AnyLoader(const uint16_t* data, int64_t row_stride, int64_t k_stride, TileRows rows, int row0, int depth)
      : k_stride_(k_stride) {
    const int tid = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {  // neighbouring lanes walk the direction that is contiguous
      const int item = tid + i * kThreads;
      const int line = k_stride == 1 ? item / Tile::kLineChunks : item % kRows;
      const int chunk = k_stride == 1 ? item % Tile::kLineChunks : item / kRows;
      target_[i] = Tile::offset(line, chunk);
      source_[i] = data + rows.operand(row0 + line) * row_stride + chunk * 8 * k_stride;
      left_[i] = rows.output(row0 + line) < rows.limit ? depth - chunk * 8 : 0;
    }
  }

  KW_DEVICE void fetch() {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
#pragma unroll
      for (int e = 0; e < 8; e += 2) {
        const uint32_t low = e < left_[i] ? source_[i][e * k_stride_] : 0;
        const uint32_t high = e + 1 < left_[i] ? source_[i][(e + 1) * k_stride_] : 0;
        held_[i][e / 2] = low | high << 16;
      }
      source_[i] += kTileDepth * k_stride_;
      left_[i] -= kTileDepth;
    }
  }

  KW_DEVICE void store(unsigned char* tile) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i)
      *reinterpret_cast<uint4*>(tile + target_[i]) = make_uint4(held_[i][0], held_[i][1], held_[i][2], held_[i][3]);
  }

 private:
  int64_t k_stride_;
  const uint16_t* source_[kCopies];
  uint32_t target_[kCopies];
  uint32_t held_[kCopies][4];
  int left_[kCopies];
};

template <bool kBf16, class Shape>
static __global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    gemm_mma_any(const __grid_constant__ GemmParams p) {
  using XTile = KContiguousTile<Shape::kM>;
  using WTile = KContiguousTile<Shape::kN>;
  using Warp = WarpTile<kBf16, Shape, XTile, WTile>;
  static_assert(Shape::kStages == 2);
  unsigned char* smem = dyn_smem();
  const uint32_t ring = ptx::smem_u32(smem);
  const DepthRange depth = depth_range(p);
  const int tiles = (depth.size + kTileDepth - 1) / kTileDepth;
  const TilePlace place = tile_place(p, Shape::kM, Shape::kN);
  Warp warp;
  for (int64_t batch = blockIdx.z; batch < p.s.batch; batch += gridDim.z) {
    AnyLoader<XTile, Shape::kM, Shape::kThreads> x(batch_data(p.s.x, batch, depth.begin), p.s.x.row, p.s.x.column,
                                                   rows_of_x(p), place.row, depth.size);
    AnyLoader<WTile, Shape::kN, Shape::kThreads> w(batch_data(p.s.w, batch, depth.begin), p.s.w.row, p.s.w.column,
                                                   rows_of_w(p), place.column, depth.size);
    warp.clear();
    x.fetch();
    w.fetch();
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
      const int stage = tile % 2 * Warp::kStageBytes;
      x.store(smem + stage);
      w.store(smem + stage + XTile::kBytes);
      __syncthreads();  // also: every warp is done with the stage before, which the next turn overwrites
      if (tile + 1 < tiles) {
        x.fetch();
        w.fetch();
      }
#pragma unroll
      for (int step = 0; step < Warp::kSteps; ++step) {
        warp.load(ring + stage, step);
        warp.multiply(step);
      }
    }
    __syncthreads();
    warp.finish(p, smem, batch, place);
    __syncthreads();
  }
}

}  // namespace kw::gemm_cuda
