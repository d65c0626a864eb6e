// What gemm's CUDA kernels share: their parameters, the order in which blocks walk y, and the epilogue.
#pragma once
#include "../core/cuda/activation.cuh"
#include "../core/cuda/elements.cuh"
#include "../core/cuda/tile.cuh"
#include "gemm_shape.h"

namespace kw::gemm_cuda {

struct GemmParams {
  GemmShape s;
  float alpha, beta;
  Activation activation;
  int tiles_m, tiles_n;
  bool gated;
  bool wide;            // c, bias, residual and y can be accessed in 16-byte pieces wherever 8 columns exist
  bool x_wide, w_wide;  // gemm_fma: rows of the operand can be copied in 16-byte pieces
  // With partial, grid.y parts of k, split_depth long (the last one shorter), leave sums there instead of finishing y:
  // [part][batch][m][partial_pitch], columns in the order of TileRows.
  float* partial;
  int64_t partial_pitch;
  int splits, split_depth;
};

// The part of k that a block sums.
struct DepthRange {
  int begin, size;
};
KW_DEVICE DepthRange depth_range(const GemmParams& p) {
  const int k = static_cast<int>(p.s.k), begin = static_cast<int>(blockIdx.y) * p.split_depth;
  return {begin, p.partial ? min(k - begin, p.split_depth) : k};
}

// A block's tile, a warp's part of it, the depth of the ring, and the blocks an SM should hold.
template <int M, int N, int WarpM, int WarpN, int Stages, int Blocks>
struct TileShape {
  static constexpr int kM = M, kN = N, kWarpM = WarpM, kWarpN = WarpN, kStages = Stages, kBlocks = Blocks;
  static constexpr int kWarpsN = N / WarpN, kThreads = 32 * (M / WarpM) * kWarpsN;
};

struct TilePlace {
  int row, column;  // first row of x, first row of w (in TileRows order)
};

KW_DEVICE TilePlace tile_place(const GemmParams& p, int m, int n) {
  constexpr int kGroup = 8;
  const int tile = static_cast<int>(blockIdx.x), width = kGroup * p.tiles_n, group = tile / width;
  const int rows = min(kGroup, p.tiles_m - group * kGroup), inside = tile - group * width;
  return {(group * kGroup + inside % rows) * m, inside / rows * n};
}

KW_DEVICE TileRows rows_of_x(const GemmParams& p) { return {static_cast<int>(p.s.m), 0}; }
KW_DEVICE TileRows rows_of_w(const GemmParams& p) {
  return {static_cast<int>(p.s.n), p.gated ? static_cast<int>(p.s.n) : 0};
}

KW_DEVICE float activate(Activation activation, float s) {
  switch (activation) {
    case Activation::none:
      return s;
    case Activation::relu:
      return relu(s);
    case Activation::gelu_erf:
    case Activation::geglu_erf:
      return gelu_erf(s);
    case Activation::gelu_tanh:
    case Activation::geglu_tanh:
      return gelu_tanh(s);
    default:
      return silu(s);
  }
}

// s of the contract for one row of w.
KW_DEVICE float affine1(const GemmParams& p, float sum, int64_t c_row, int64_t column) {
  float t = p.s.bias.data ? load1(p.s.bias.data, p.s.bias.dtype, column) : 0.0f;
  if (p.s.c.data) t = fmaf(p.beta, load1(p.s.c.data, p.s.c.dtype, c_row + column), t);
  return fmaf(p.alpha, sum, t);
}

KW_DEVICE void affine8(const GemmParams& p, float (&v)[8], const float* sums, int64_t c_row, int64_t column) {
  float t[8] = {};
  if (p.s.bias.data) load8(t, p.s.bias.data, p.s.bias.dtype, column);
  if (p.s.c.data) {
    load8(v, p.s.c.data, p.s.c.dtype, c_row + column);
#pragma unroll
    for (int e = 0; e < 8; ++e) t[e] = fmaf(p.beta, v[e], t[e]);
  }
  load8(v, sums, DType::f32, 0);
#pragma unroll
  for (int e = 0; e < 8; ++e) v[e] = fmaf(p.alpha, v[e], t[e]);
}

// Eight sums of one row, or eight of gate rows of w and then the eight of their up rows, become y[row][column ..]; both lie
// in y. sums: 16-byte aligned.
KW_DEVICE void finish8(const GemmParams& p, const float* sums, int64_t batch, int row, int column) {
  const GemmShape& s = p.s;
  const int n = static_cast<int>(s.n);
  const int64_t c_row = batch * s.c.batch + row * s.c.row;
  const int64_t residual_row = batch * s.residual.batch + row * s.residual.row;
  const int64_t y_row = batch * s.y.batch + row * s.y.row;
  if (p.wide && column + 8 <= n) {
    float v[8], up[8], add[8] = {};
    affine8(p, v, sums, c_row, column);
#pragma unroll
    for (int e = 0; e < 8; ++e) up[e] = 1.0f, v[e] = activate(p.activation, v[e]);
    if (p.gated) affine8(p, up, sums + 8, c_row, s.n + column);
    if (s.residual.data) load8(add, s.residual.data, s.residual.dtype, residual_row + column);
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] = fmaf(v[e], up[e], add[e]);
    store8(s.y.data, s.y.dtype, y_row + column, v);
  } else {
#pragma unroll 1
    for (int e = 0; e < min(8, n - column); ++e) {
      const int j = column + e;
      const float v = activate(p.activation, affine1(p, sums[e], c_row, j));
      const float up = p.gated ? affine1(p, sums[8 + e], c_row, s.n + j) : 1.0f;
      const float add = s.residual.data ? load1(s.residual.data, s.residual.dtype, residual_row + j) : 0.0f;
      store1(s.y.data, s.y.dtype, y_row + j, fmaf(v, up, add));
    }
  }
}

// One warp: kRows rows of sums in shared memory, kPitch floats apart, become elements of y.
template <int kColumns, int kRows = 16, int kPitch = kColumns + 8>
KW_DEVICE void finish_rows(const GemmParams& p, const float* staged, int64_t batch, int row0, int column0) {
  const int groups = p.gated ? kColumns / 16 : kColumns / 8;
#pragma unroll 1
  for (int item = ptx::lane_id(); item < kRows * groups; item += 32) {
    const int r = item / groups, g = item % groups, row = row0 + r;
    const int column = p.gated ? column0 / 2 + 8 * g : column0 + 8 * g;
    if (row >= p.s.m || column >= p.s.n) continue;
    finish8(p, staged + r * kPitch + (p.gated ? 16 * g : 8 * g), batch, row, column);
  }
}

// One warp: kRows rows of sums in shared memory, kColumns + 8 floats apart, become part of the workspace.
template <int kColumns, int kRows>
KW_DEVICE void store_partial(const GemmParams& p, const float* staged, int64_t batch, int row0, int column0) {
  const int64_t part = (blockIdx.y * p.s.batch + batch) * p.s.m;
#pragma unroll 1
  for (int item = ptx::lane_id(); item < kRows * (kColumns / 8); item += 32) {
    const int r = item / (kColumns / 8), g = item % (kColumns / 8), row = row0 + r, column = column0 + 8 * g;
    if (row >= p.s.m || column >= p.partial_pitch) continue;
    float v[8];
    load8(v, staged + r * (kColumns + 8) + 8 * g, DType::f32, 0);
    store8(p.partial, DType::f32, (part + row) * p.partial_pitch + column, v);
  }
}

template <int kColumns, int kRows = 16>
KW_DEVICE void leave_rows(const GemmParams& p, const float* staged, int64_t batch, int row0, int column0) {
  if (p.partial) {
    store_partial<kColumns, kRows>(p, staged, batch, row0, column0);
  } else {
    finish_rows<kColumns, kRows>(p, staged, batch, row0, column0);
  }
}

}  // namespace kw::gemm_cuda
