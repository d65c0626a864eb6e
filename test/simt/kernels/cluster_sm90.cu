// A cluster of two blocks: rank 0 loads a tile into both by multicast, then each adds its peer's sums through
// distributed shared memory.
#include <vector>

#include "../../../kernels/core/cuda/ptx.cuh"
#include "../demos.h"
#include "../device.h"
#include "../random.h"
#include "fault.h"

namespace kw::test {
namespace {

constexpr uint32_t kRows = 64, kTile = kRows * 128, kSmem = kTile + 64 + 256;

// out[rank][r] = (rank + 1) sum(row r) + 10 * (the peer's value)
__global__ void cluster_kernel(const __grid_constant__ TensorMap map, float* out) {
  const uint32_t smem = ptx::smem_u32(dyn_smem()), bar = smem + kTile, rank = ptx::cluster_rank();
  float* mine = reinterpret_cast<float*>(dyn_smem() + kTile + 64);
  if (threadIdx.x == 0) {
    ptx::mbar_init(bar, 1);
    ptx::fence_mbar_init();
  }
  if (KW_FAULT != 8) ptx::cluster_sync();
  if (threadIdx.x == 0) {
    ptx::mbar_arrive_expect_tx(bar, kTile);
    if (KW_FAULT == 9) ptx::cluster_sync();
    if (rank == 0) ptx::tma_load_2d_multicast(smem, &map, bar, 0, 0, 3);
  }
  ptx::mbar_wait(bar, 0);
  const auto* tile = reinterpret_cast<const __nv_bfloat16*>(dyn_smem());
  const uint32_t r = threadIdx.x;
  float sum = 0;
  for (uint32_t c = 0; c < 64; ++c) sum += __bfloat162float(tile[r * 64 + c]);
  mine[r] = sum * static_cast<float>(rank + 1);
  ptx::cluster_sync();
  const float* peer = ptx::map_shared_rank(mine, rank ^ 1);
  out[rank * kRows + r] = mine[r] + 10.f * peer[r];
  if (KW_FAULT != 10) ptx::cluster_sync();  // keeps the peer's shared memory alive
}

}  // namespace

Outcome cluster_pair() {
  const auto x = Random(10).bf16(kRows * 64);
  DeviceBuffer<__nv_bfloat16> dx(x);
  DeviceBuffer<float> out(2 * kRows);
  const TensorMap map = make_tensor_map_2d(DType::bf16, dx.data(), 64, kRows, 128, 64, kRows, Swizzle::none);
  launch({.grid = {2}, .block = {kRows}, .smem = kSmem, .cluster = {2}}, cluster_kernel, map, out.data());
  const auto got = out.download();
  Outcome outcome;
  for (size_t rank = 0; rank < 2; ++rank)
    for (size_t r = 0; r < kRows; ++r) {
      double sum = 0;
      for (size_t c = 0; c < 64; ++c) sum += __bfloat162float(x[r * 64 + c]);
      const double factor = static_cast<double>(rank);
      outcome.compare(got[rank * kRows + r], sum * (factor + 1) + 10 * sum * (2 - factor), 1e-3);
    }
  return outcome;
}

}  // namespace kw::test
