// Flash attention for one head size, 64: Q Kᵀ by wgmma from shared memory, P V with P in registers and V stored key by key.
// One consumer warpgroup and one producer warp per block of 64 queries.
#include <vector>

#include "../../../kernels/core/cuda/ptx.cuh"
#include "../demos.h"
#include "../device.h"
#include "../random.h"
#include "fault.h"

namespace kw::test {
namespace {

constexpr int kHead = 64, kQueries = 64, kKeys = 64, kStages = 2, kThreads = 160;
constexpr uint32_t kTile = 64 * 128, kSmem = kTile * (1 + 2 * kStages) + 64 + 1024;

KW_DEVICE uint32_t pack(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}

__global__ void __launch_bounds__(kThreads)
    attention_kernel(const __grid_constant__ TensorMap map_q, const __grid_constant__ TensorMap map_k,
                     const __grid_constant__ TensorMap map_v, float* out, int length, float scale, int causal) {
  const uint32_t smem = (ptx::smem_u32(dyn_smem()) + 1023) / 1024 * 1024, kv = smem + kTile;
  const uint32_t bars = kv + 2 * kStages * kTile, q_bar = bars;
  const int tid = static_cast<int>(threadIdx.x), lane = tid & 31, warp = tid >> 5;
  const int q0 = static_cast<int>(blockIdx.x) * kQueries, head = static_cast<int>(blockIdx.y);
  const int last = causal ? min(q0 + kQueries, length) : length, tiles = (last + kKeys - 1) / kKeys;
  const auto full = [&](int s) { return bars + 8 + static_cast<uint32_t>(s) * 16; };
  const auto empty = [&](int s) { return bars + 16 + static_cast<uint32_t>(s) * 16; };
  if (tid == 0) {
    ptx::mbar_init(q_bar, 1);
    for (int s = 0; s < kStages; ++s) {
      ptx::mbar_init(full(s), 1);
      ptx::mbar_init(empty(s), 4);
    }
    ptx::fence_mbar_init();
  }
  __syncthreads();
  if (warp == 4) {
    if (ptx::elect_one()) {
      ptx::mbar_arrive_expect_tx(q_bar, kTile);
      ptx::tma_load_2d(smem, &map_q, q_bar, 0, head * length + q0);
      for (int t = 0; t < tiles; ++t) {
        const int s = t % kStages;
        const uint32_t sk = kv + static_cast<uint32_t>(s) * 2 * kTile;
        ptx::mbar_wait(empty(s), ((t / kStages) & 1) ^ 1);
        ptx::mbar_arrive_expect_tx(full(s), 2 * kTile);
        ptx::tma_load_2d(sk, &map_k, full(s), 0, head * length + t * kKeys);
        ptx::tma_load_2d(sk + kTile, &map_v, full(s), 0, head * length + t * kKeys);
      }
    }
    return;
  }
  // Element i of an accumulator: row (i >> 1) & 1 of this lane's two, column as mma lays it out.
  const auto row_of = [&](int i) { return q0 + warp * 16 + (lane >> 2) + ((i >> 1) & 1) * 8; };
  const auto col_of = [&](int i) { return (i >> 2) * 8 + (lane & 3) * 2 + (i & 1); };
  float o[kHead / 2], high[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};
#pragma unroll
  for (int i = 0; i < kHead / 2; ++i) o[i] = 0.f;
  ptx::mbar_wait(q_bar, 0);
  for (int t = 0; t < tiles; ++t) {
    const int s = t % kStages;
    const uint32_t sk = kv + static_cast<uint32_t>(s) * 2 * kTile, sv = sk + kTile;
    ptx::mbar_wait(full(s), (t / kStages) & 1);
    float p[kKeys / 2];
    ptx::wgmma_fence();
#pragma unroll
    for (uint32_t step = 0; step < kHead / 16; ++step)
      ptx::wgmma_ss<__nv_bfloat16, kKeys>(p, ptx::wgmma_desc(smem + step * 32, 16, 1024, Swizzle::b128),
                                          ptx::wgmma_desc(sk + step * 32, 16, 1024, Swizzle::b128), step != 0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>(p);
    float new_high[2] = {high[0], high[1]};
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) {
      const int row = row_of(i), col = t * kKeys + col_of(i);
      p[i] = col < length && (!causal || col <= row) ? p[i] * scale : -INFINITY;
      new_high[(i >> 1) & 1] = fmaxf(new_high[(i >> 1) & 1], p[i]);
    }
    float factor[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      for (int d = 1; d < (KW_FAULT == 2 ? 2 : 4); d *= 2)
        new_high[h] = fmaxf(new_high[h], __shfl_xor_sync(0xffffffffu, new_high[h], d));
      factor[h] = high[h] == -INFINITY ? 0.f : exp2f(high[h] - new_high[h]);
      high[h] = new_high[h];
      sum[h] *= factor[h];
    }
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) {
      const int h = (i >> 1) & 1;
      p[i] = p[i] == -INFINITY ? 0.f : exp2f(p[i] - high[h]);
      sum[h] += p[i];
    }
    if (KW_FAULT != 3) {
#pragma unroll
      for (int i = 0; i < kHead / 2; ++i) o[i] *= factor[(i >> 1) & 1];
    }
    uint32_t a[kKeys / 16][4];
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) a[j][e] = pack(p[j * 8 + e * 2], p[j * 8 + e * 2 + 1]);
    if (KW_FAULT != 1) ptx::wgmma_fence();
#pragma unroll
    for (uint32_t j = 0; j < kKeys / 16; ++j)
      ptx::wgmma_rs<__nv_bfloat16, kHead, 1>(o, a[j], ptx::wgmma_desc(sv + j * 2048, 16, 1024, Swizzle::b128), 1);
    ptx::wgmma_commit();
    if (KW_FAULT == 4 && lane == 0) ptx::mbar_arrive(empty(s));  // V released before it has been read
    if (KW_FAULT == 5) a[0][0] = 0;                              // A registers reused in flight
    ptx::wgmma_wait<0>(o);
    if (KW_FAULT != 4 && lane == 0) ptx::mbar_arrive(empty(s));
  }
#pragma unroll
  for (int h = 0; h < 2; ++h)
    for (int d = 1; d < 4; d *= 2) sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], d);
#pragma unroll
  for (int i = 0; i < kHead / 2; ++i)
    if (row_of(i) < length)
      out[(static_cast<size_t>(head) * length + row_of(i)) * kHead + col_of(i)] = o[i] / sum[(i >> 1) & 1];
}

}  // namespace

Outcome attention_wgmma(int heads, int length, bool causal) {
  Random random(9);
  const size_t count = static_cast<size_t>(heads) * length * kHead;
  const auto q = random.bf16(count), k = random.bf16(count), v = random.bf16(count);
  DeviceBuffer<__nv_bfloat16> dq(q), dk(k), dv(v);
  DeviceBuffer<float> out(count);
  const auto map = [&](__nv_bfloat16* p) {
    return make_tensor_map_2d(DType::bf16, p, kHead, static_cast<uint64_t>(heads) * length, kHead * 2, kHead, 64,
                              Swizzle::b128);
  };
  const Dim grid{static_cast<unsigned>((length + kQueries - 1) / kQueries), static_cast<unsigned>(heads)};
  const float scale = 1.4426950408889634f / 8.f;  // log2(e) / sqrt(64)
  launch({.grid = grid, .block = {kThreads}, .smem = kSmem}, attention_kernel, map(dq.data()), map(dk.data()),
         map(dv.data()), out.data(), length, scale, causal ? 1 : 0);
  const auto got = out.download();
  const auto at = [&](const std::vector<__nv_bfloat16>& x, int h, int i, int d) {
    return double{__bfloat162float(x[(static_cast<size_t>(h) * length + i) * kHead + d])};
  };
  Outcome outcome;
  for (int h = 0; h < heads; ++h)
    for (int i = 0; i < length; ++i) {
      const int visible = causal ? i + 1 : length;
      double want[kHead] = {}, total = 0, high = -1e30;
      std::vector<double> score(static_cast<size_t>(visible));
      for (int j = 0; j < visible; ++j) {
        double s = 0;
        for (int d = 0; d < kHead; ++d) s += at(q, h, i, d) * at(k, h, j, d);
        score[j] = s / 8;
        high = std::fmax(high, score[j]);
      }
      for (int j = 0; j < visible; ++j) {
        const double weight = std::exp(score[j] - high);
        total += weight;
        for (int d = 0; d < kHead; ++d) want[d] += weight * at(v, h, j, d);
      }
      for (int d = 0; d < kHead; ++d)
        outcome.compare(got[(static_cast<size_t>(h) * length + i) * kHead + d], want[d] / total, 1e-2);
    }
  return outcome;
}

}  // namespace kw::test
