// What runs before gemm_int4's product: gather_columns, which puts x in the order of perm, and dequantise, which writes the
// weights of mode dequant. Both stream: gather_columns reads and writes x once, dequantise reads 4 bits and writes 16 for each
// weight. Predicted, not measured: 70-80 % of bandwidth from 10 MB on, 2-3 us below 1 MB. See gemm_int4_cuda.cu.
#pragma once
#include "../core/cuda/elements.cuh"
#include "../core/cuda/status.cuh"
#include "../gemm/gemm_shape.h"

namespace kw::gemm_int4_cuda {

constexpr int kPrepareThreads = 128;

struct GatherParams {
  GemmOperand x;        // 16-bit elements
  const int32_t* perm;  // [k]
  uint32_t* to;         // [rows][k], elements in pairs
  int64_t batch, m;
  int k;  // even
  StreamStatus* status;
  const char* const* what;
};

static __global__ void __launch_bounds__(kPrepareThreads) gather_columns(const __grid_constant__ GatherParams p) {
  const int column = 2 * static_cast<int>(blockIdx.x * kPrepareThreads + threadIdx.x);
  if (column >= p.k) return;
  int from[2];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int given = p.perm[column + e];
    from[e] = min(max(given, 0), p.k - 1);
    if (from[e] != given && blockIdx.y == 0) report_index(p.status, p.what, column + e, given, 0, p.k - 1);
  }
  for (int64_t row = blockIdx.y; row < p.batch * p.m; row += gridDim.y) {
    const uint16_t* x = static_cast<const uint16_t*>(p.x.data) + row / p.m * p.x.batch + row % p.m * p.x.row;
    p.to[(row * p.k + column) / 2] = x[from[0]] | static_cast<uint32_t>(x[from[1]]) << 16;
  }
}

struct DequantParams {
  const uint32_t* w;  // [rows][k / 8]
  GemmOperand scales;
  const uint8_t* zeros;  // null: 8 everywhere
  void* to;              // [rows][k]
  DType dtype;           // of it
  int64_t rows;
  int k, group;
  bool normal_float;
  float values[16];  // of nf4
};

static __global__ void __launch_bounds__(kPrepareThreads) dequantise(const __grid_constant__ DequantParams p) {
  KW_SHARED(float[16], values);
  if (threadIdx.x < 16) values[threadIdx.x] = p.values[threadIdx.x];
  __syncthreads();
  const int word = static_cast<int>(blockIdx.x * kPrepareThreads + threadIdx.x), words = p.k / 8;
  if (word >= words) return;
  const int64_t group = word * 8 / p.group;
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
    const uint32_t codes = p.w[row * words + word];
    const float scale = load1(p.scales.data, p.scales.dtype, group * p.scales.row + row);
    const int64_t at = group * p.rows + row;
    const int zero = p.zeros ? p.zeros[at / 2] >> (at % 2 * 4) & 15 : 8;
    float v[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const int code = static_cast<int>(codes >> (4 * e) & 15u);
      v[e] = (p.normal_float ? values[code] : static_cast<float>(code - zero)) * scale;
    }
    store8(p.to, p.dtype, row * p.k + word * 8, v);
  }
}

}  // namespace kw::gemm_int4_cuda
