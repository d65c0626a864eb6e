// The sm_90a way: one producer warpgroup feeds a ring of three stages by TMA, two consumer warpgroups multiply with wgmma
// and store by TMA. One 128 x 128 tile per block of 384 threads.
#include <vector>

#include "../../../kernels/core/cuda/ptx.cuh"
#include "../demos.h"
#include "../device.h"
#include "../random.h"
#include "fault.h"

namespace kw::test {
namespace {

constexpr int kM = 128, kN = 128, kK = 64, kStages = 3, kThreads = 384;
constexpr uint32_t kBytesA = kM * kK * 2, kStageBytes = kBytesA + kN * kK * 2, kBytesD = kM * kN * 2;
constexpr uint32_t kBox = 64 * 128;  // 64 rows of one 128-byte swizzle span
constexpr uint32_t kBarriers = kStages * kStageBytes + kBytesD, kSmem = kBarriers + 2 * kStages * 8 + 1024;

// NMajor 0: b is [n,k]; 1: b is [k,n].
template <int NMajor>
__global__ void __launch_bounds__(kThreads, 1)
    gemm_wgmma_kernel(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
                      const __grid_constant__ TensorMap map_d, int k) {
  const uint32_t raw = ptx::smem_u32(dyn_smem());
  const uint32_t smem = KW_FAULT == 18 ? (raw + 127) / 128 * 128 + 128 : (raw + 1023) / 1024 * 1024;
  const uint32_t sd = smem + kStages * kStageBytes, bars = smem + kBarriers;
  const int tid = static_cast<int>(threadIdx.x), group = tid >> 7, lane = tid & 31, warp = tid >> 5;
  const int n0 = static_cast<int>(blockIdx.x) * kN, m0 = static_cast<int>(blockIdx.y) * kM, tiles = (k + kK - 1) / kK;
  const auto full = [&](int s) { return bars + static_cast<uint32_t>(s) * 16; };
  const auto empty = [&](int s) { return bars + static_cast<uint32_t>(s) * 16 + 8; };
  const auto stage = [&](int s) { return smem + static_cast<uint32_t>(s) * kStageBytes; };
  if (tid == 0) {
    for (int s = 0; s < kStages; ++s) {
      ptx::mbar_init(full(s), 1);
      ptx::mbar_init(empty(s), KW_FAULT == 15 ? 16 : 8);
    }
    if (KW_FAULT != 13) ptx::fence_mbar_init();
  }
  if (KW_FAULT != 14) __syncthreads();

  if (group == 0) {  // producer
    ptx::reg_dec<40>();
    if (warp == 0 && ptx::elect_one()) {
      for (int tile = 0; tile < tiles; ++tile) {
        const int s = tile % kStages;
        const uint32_t phase = (KW_FAULT == 22 ? tile : tile / kStages) & 1;
        if (KW_FAULT != 3) ptx::mbar_wait(empty(s), KW_FAULT == 4 ? phase : phase ^ 1);
        ptx::mbar_arrive_expect_tx(full(s), KW_FAULT == 5 ? kBytesA : kStageBytes);
        const uint32_t a = stage(s), b = a + kBytesA;
        ptx::tma_load_2d(a, &map_a, full(s), tile * kK, m0);
        if constexpr (NMajor == 0) {
          ptx::tma_load_2d(b, &map_b, full(s), tile * kK, n0);
        } else {
          for (int j = 0; j < kN / 64; ++j)
            ptx::tma_load_2d(b + static_cast<uint32_t>(j) * kBox, &map_b, full(s), n0 + j * 64, tile * kK);
        }
      }
    }
  } else {  // consumers, 64 rows each
    if (KW_FAULT == 21)
      ptx::reg_inc<256>();
    else
      ptx::reg_inc<232>();
    const int half = group - 1;
    float acc[kN / 2];
    for (int tile = 0; tile < tiles; ++tile) {
      const int s = tile % kStages;
      if (KW_FAULT != 1) ptx::mbar_wait(full(s), static_cast<uint32_t>(tile / kStages) & 1);
      const uint32_t a = stage(s) + static_cast<uint32_t>(half) * kBox, b = stage(s) + kBytesA;
      if (KW_FAULT != 9) ptx::wgmma_fence();
#pragma unroll
      for (uint32_t step = 0; step < kK / 16; ++step) {
        const uint32_t advance = KW_FAULT == 8 ? 64u : 32u;
        const uint64_t da = ptx::wgmma_desc(a + step * advance, 16, KW_FAULT == 7 ? 512 : 1024, Swizzle::b128);
        const uint64_t db = NMajor == 0 ? ptx::wgmma_desc(b + step * 32, 16, 1024, Swizzle::b128)
                                        : ptx::wgmma_desc(b + step * 2048, kBox, 1024, Swizzle::b128);
        const bool accumulate = KW_FAULT == 19 || (tile | static_cast<int>(step)) != 0;
        ptx::wgmma_ss<__nv_bfloat16, kN, 0, NMajor>(acc, da, db, accumulate);
      }
      ptx::wgmma_commit();
      if (KW_FAULT == 2) {  // released before it has been read
        if (lane == 0) ptx::mbar_arrive(empty(s));
        ptx::wgmma_wait<1>(acc);
        continue;
      }
      ptx::wgmma_wait<1>(acc);  // the previous tile is done
      if (tile > 0 && lane == 0) ptx::mbar_arrive(empty((tile - 1) % kStages));
    }
    if (KW_FAULT != 10) ptx::wgmma_wait<0>(acc);
    // Registers to two swizzled boxes of 64 columns, then TMA.
    const int r0 = (warp & 3) * 16 + (lane >> 2);
    unsigned char* out = dyn_smem() + (sd - raw) + static_cast<uint32_t>(half) * (kBytesD / 2);
#pragma unroll
    for (int i = 0; i < kN / 2; i += 2) {
      const int r = r0 + ((i >> 1) & 1) * 8, col = (i >> 2) * 8 + (lane & 3) * 2, c = (col & 63) * 2;
      const int offset = (col >> 6) * static_cast<int>(kBox) + r * 128 + (KW_FAULT == 17 ? c : c ^ ((r & 7) << 4));
      *reinterpret_cast<__nv_bfloat162*>(out + offset) = __floats2bfloat162_rn(acc[i], acc[i + 1]);
    }
    if (KW_FAULT != 11 && KW_FAULT != 23) ptx::fence_proxy_async();
    if (KW_FAULT != 12) {  // constant ids: with 1 + half ptxas would reserve all 16 barriers
      if (half == 0)
        ptx::named_bar_sync(1, 128);
      else
        ptx::named_bar_sync(2, 128);
    }
    if ((tid & 127) == 0) {
      if (KW_FAULT == 23) ptx::fence_proxy_async();  // one thread for all, after the barrier
      for (int j = 0; j < kN / 64; ++j)
        ptx::tma_store_2d(&map_d, sd + static_cast<uint32_t>(half) * (kBytesD / 2) + static_cast<uint32_t>(j) * kBox,
                          n0 + j * 64, m0 + half * 64);
      ptx::bulk_commit();
      if (KW_FAULT != 16) ptx::bulk_wait_read<0>();
    }
  }
}

}  // namespace

Outcome gemm_wgmma(int m, int n, int k, bool n_major) {
  Random random(8);
  const auto a = random.bf16(static_cast<size_t>(m) * k), b = random.bf16(static_cast<size_t>(n) * k);
  DeviceBuffer<__nv_bfloat16> da(a), db(b), dd(static_cast<size_t>(m) * n);
  const auto map = [](__nv_bfloat16* p, int inner, int outer, uint32_t box_outer, Swizzle swizzle = Swizzle::b128) {
    return make_tensor_map_2d(DType::bf16, p, static_cast<uint64_t>(inner), static_cast<uint64_t>(outer),
                              static_cast<uint64_t>(inner) * 2, 64, box_outer, swizzle);
  };
  const TensorMap map_a = map(da.data(), k, m, kM, KW_FAULT == 6 ? Swizzle::none : Swizzle::b128);
  const TensorMap map_b = n_major ? map(db.data(), n, k, kK) : map(db.data(), k, n, kN);
  const TensorMap map_d = map(dd.data(), n, m, 64);
  const auto kernel = n_major ? gemm_wgmma_kernel<1> : gemm_wgmma_kernel<0>;
  const Dim grid{static_cast<unsigned>((n + kN - 1) / kN), static_cast<unsigned>((m + kM - 1) / kM)};
  prepare(kernel, kSmem);
  launch({.grid = grid, .block = {kThreads}, .smem = kSmem}, kernel, map_a, map_b, map_d, k);
  const auto d = dd.download();
  Outcome outcome;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      double want = 0;
      for (int l = 0; l < k; ++l)
        want += double{__bfloat162float(a[static_cast<size_t>(i) * k + l])} *
                __bfloat162float(b[n_major ? static_cast<size_t>(l) * n + j : static_cast<size_t>(j) * k + l]);
      outcome.compare(__bfloat162float(d[static_cast<size_t>(i) * n + j]), want,
                      1e-3 * std::sqrt(double(k)) + std::fabs(want) / 128);
    }
  return outcome;
}

}  // namespace kw::test
