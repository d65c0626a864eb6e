// The sm_80 way: cp.async into swizzled shared memory, two stages, ldmatrix, mma.sync. One 64 x 64 tile per block of
// 128 threads, 2 x 2 warps of 32 x 32.
#include <vector>

#include "../../../kernels/core/cuda/ptx.cuh"
#include "../demos.h"
#include "../device.h"
#include "../random.h"
#include "fault.h"

namespace kw::test {
namespace {

constexpr int kM = 64, kN = 64, kK = 32, kStages = 2, kThreads = 128;
constexpr int kBytesA = kM * kK * 2, kStageBytes = kBytesA + kK * kN * 2, kSmem = kStages * kStageBytes;

// Offset of 16-byte chunk c of row r; eight consecutive rows of a column of chunks fall into different banks.
KW_DEVICE uint32_t offset_a(int r, int c) { return static_cast<uint32_t>(r * 64 + ((c ^ ((r >> 1) & 3)) << 4)); }
KW_DEVICE uint32_t offset_b(int r, int c) { return static_cast<uint32_t>(r * 128 + ((c ^ (r & 7)) << 4)); }

__global__ void __launch_bounds__(kThreads)
    gemm_mma_kernel(const __nv_bfloat16* __restrict__ a, const __nv_bfloat16* __restrict__ b, float* __restrict__ c,
                    int m, int n, int k) {
  const uint32_t smem = ptx::smem_u32(dyn_smem());
  const int tid = static_cast<int>(threadIdx.x), lane = tid & 31, warp = tid >> 5;
  const int warp_m = warp >> 1, warp_n = warp & 1;
  const int m0 = static_cast<int>(blockIdx.y) * kM, n0 = static_cast<int>(blockIdx.x) * kN, tiles = (k + kK - 1) / kK;

  const auto load = [&](int tile, int stage) {
    const uint32_t sa = smem + static_cast<uint32_t>(stage * kStageBytes), sb = sa + kBytesA;
    for (int i = tid; i < kM * 4; i += kThreads) {
      const int r = i >> 2, chunk = i & 3, row = m0 + r, col = tile * kK + chunk * 8;
      int bytes = min(max((k - col) * 2, 0), 16);
      if (KW_FAULT == 13) bytes = 16;
      bool inside = row < m && bytes > 0;
      if (KW_FAULT == 7) inside = bytes > 0;
      ptx::cp_async_16(sa + offset_a(r, chunk), inside ? a + static_cast<size_t>(row) * k + col : a,
                       inside ? bytes : 0);
    }
    for (int i = tid; i < kK * 8; i += kThreads) {
      const int r = i >> 3, chunk = i & 7, row = tile * kK + r, col = n0 + chunk * 8;
      const bool inside = row < k && col < n;
      ptx::cp_async_16(sb + offset_b(r, chunk), inside ? b + static_cast<size_t>(row) * n + col : b, inside ? 16 : 0);
    }
  };

  float acc[2][4][4];
  if (KW_FAULT != 14) {
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) acc[i][j][e] = 0.f;
  }

  for (int s = 0; s < kStages - 1; ++s) {
    if (s < tiles) load(s, s);
    ptx::cp_async_commit();
  }
  for (int tile = 0; tile < tiles; ++tile) {
    if (KW_FAULT == 3)
      ptx::cp_async_wait<kStages - 1>();
    else if (KW_FAULT != 2)
      ptx::cp_async_wait<kStages - 2>();
    if (KW_FAULT == 15) {
      if (tile + 1 < tiles || warp == 0) __syncthreads();
    } else if (KW_FAULT != 1) {
      __syncthreads();
    }
    const int next = tile + kStages - 1;
    if (next < tiles) load(next, (KW_FAULT == 10 ? tile : next) % kStages);
    if (KW_FAULT != 12) ptx::cp_async_commit();
    const uint32_t sa = smem + static_cast<uint32_t>(tile % kStages * kStageBytes), sb = sa + kBytesA;
#pragma unroll
    for (int step = 0; step < kK / 16; ++step) {
      uint32_t fa[2][4], fb[4][2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        int r = warp_m * 32 + i * 16 + (KW_FAULT == 9 ? lane & 7 : lane & 15);
        const int chunk = step * 2 + (lane >> 4);
        if (KW_FAULT == 5) r += 64;
        if (KW_FAULT == 16) r += 128;
        ptx::ldmatrix_x4(fa[i], sa + (KW_FAULT == 4 ? static_cast<uint32_t>(r * 64 + chunk * 16) : offset_a(r, chunk)));
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int r = step * 16 + (lane & 15), chunk = warp_n * 4 + j * 2 + (lane >> 4);
        uint32_t t[4];
        if (KW_FAULT == 8)
          ptx::ldmatrix_x4(t, sb + offset_b(r, chunk));
        else
          ptx::ldmatrix_x4_trans(t, sb + offset_b(r, chunk));
        fb[j * 2][0] = t[0], fb[j * 2][1] = t[1], fb[j * 2 + 1][0] = t[2], fb[j * 2 + 1][1] = t[3];
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) ptx::mma_m16n8k16_bf16(acc[i][j], fa[i], fb[j], acc[i][j]);
    }
  }
  ptx::cp_async_wait<0>();
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int down = KW_FAULT == 11 ? e & 1 : e >> 1, right = KW_FAULT == 11 ? e >> 1 : e & 1;
        const int row = m0 + warp_m * 32 + i * 16 + (lane >> 2) + down * 8;
        const int col = n0 + warp_n * 32 + j * 8 + (lane & 3) * 2 + right;
        if ((row < m || KW_FAULT == 6) && col < n) c[static_cast<size_t>(row) * n + col] = acc[i][j][e];
      }
}

}  // namespace

Outcome gemm_mma(int m, int n, int k) {
  Random random(7);
  const auto a = random.bf16(static_cast<size_t>(m) * k), b = random.bf16(static_cast<size_t>(k) * n);
  DeviceBuffer<__nv_bfloat16> da(a), db(b);
  DeviceBuffer<float> dc(static_cast<size_t>(m) * n);
  const Dim grid{static_cast<unsigned>((n + kN - 1) / kN), static_cast<unsigned>((m + kM - 1) / kM)};
  launch({.grid = grid, .block = {kThreads}, .smem = kSmem}, gemm_mma_kernel, da.data(), db.data(), dc.data(), m, n, k);
  const auto c = dc.download();
  Outcome outcome;
  std::vector<double> want(static_cast<size_t>(n));
  for (int i = 0; i < m; ++i) {
    std::fill(want.begin(), want.end(), 0.0);
    for (int l = 0; l < k; ++l)
      for (int j = 0; j < n; ++j)
        want[j] += double{__bfloat162float(a[static_cast<size_t>(i) * k + l])} *
                   __bfloat162float(b[static_cast<size_t>(l) * n + j]);
    for (int j = 0; j < n; ++j)
      outcome.compare(c[static_cast<size_t>(i) * n + j], want[j], 1e-3 * std::sqrt(double(k)));
  }
  return outcome;
}

}  // namespace kw::test
