// Small kernels for what a GEMM does not use: shuffles, static shared memory, atomics, named barriers, flags.
#include <array>
#include <vector>

#include "../../../kernels/core/cuda/ptx.cuh"
#include "../demos.h"
#include "../device.h"
#include "../random.h"
#include "fault.h"

namespace kw::test {
namespace {

// out[block] = sum of x[block * n .. block * n + n).
template <int Threads>
__global__ void block_sum_kernel(const float* x, float* out, int n) {
  KW_SHARED(float[Threads / 32], part);
  const int tid = static_cast<int>(threadIdx.x), lane = tid & 31;
  float s = 0;
  for (int i = tid; i < n; i += Threads) s += x[static_cast<size_t>(blockIdx.x) * n + i];
  if (KW_FAULT == 1) {
    if (lane < 16)
      for (int d = 16; d; d /= 2) s += __shfl_xor_sync(0xffffffffu, s, d);
  } else {
    for (int d = 16; d; d /= 2) s += __shfl_xor_sync(0xffffffffu, s, d);
  }
  if (lane == 0) part[tid / 32] = s;
  if (KW_FAULT != 2) __syncthreads();
  if (tid == 0) {
    float total = 0;
    for (int i = 0; i < Threads / 32; ++i) total += part[i];
    out[blockIdx.x] = total;
  }
}

// out[c][r] = in[r][c]: one 32 x 32 tile per warp, synchronised within the warp only.
__global__ void transpose_kernel(const float* in, float* out, int n) {
  KW_SHARED(float[4][32][33], tile);
  const int warp = static_cast<int>(threadIdx.x) >> 5, lane = static_cast<int>(threadIdx.x) & 31;
  const int r0 = static_cast<int>(blockIdx.y) * 32, c0 = (static_cast<int>(blockIdx.x) * 4 + warp) * 32;
  for (int i = 0; i < 32; ++i) tile[warp][i][lane] = in[static_cast<size_t>(r0 + i) * n + c0 + lane];
  if (KW_FAULT != 3) __syncwarp();
  for (int i = 0; i < 32; ++i)
    out[static_cast<size_t>(c0 + i) * n + r0 + lane] = tile[warp][lane][KW_FAULT == 4 ? i + 1 : i];
}

// h[b] += how often byte b occurs in x.
__global__ void histogram_kernel(const unsigned char* x, unsigned* h, int n) {
  KW_SHARED(unsigned[256], bins);
  const int threads = static_cast<int>(blockDim.x), first = static_cast<int>(blockIdx.x) * threads;
  const int tid = static_cast<int>(threadIdx.x);
  for (int i = tid; i < 256; i += threads) bins[i] = 0;
  __syncthreads();
  for (int i = first + tid; i < n; i += static_cast<int>(gridDim.x) * threads) {
    if (KW_FAULT == 5)
      bins[x[i]] += 1;
    else
      atomicAdd(&bins[x[i]], 1u);
  }
  __syncthreads();
  for (int i = tid; i < 256; i += threads)
    if (bins[i]) atomicAdd(&h[i], bins[i]);
}

// A producer warp hands rows to a consumer warp through named barriers 1 (full) and 2 (empty).
__global__ void named_kernel(const int* x, int* y, int n) {
  KW_SHARED(int[32], box);
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if (threadIdx.x < 32) {
    for (int i = 0; i < n; ++i) {
      if (i && KW_FAULT != 6) ptx::named_bar_sync(2, 64);
      box[lane] = x[i * 32 + lane];
      ptx::named_bar_arrive(1, KW_FAULT == 7 ? 96 : 64);
    }
  } else {
    for (int i = 0; i < n; ++i) {
      ptx::named_bar_sync(1, 64);
      y[i * 32 + lane] = box[31 - lane] * 2;
      if (i + 1 < n) ptx::named_bar_arrive(2, 64);
    }
  }
}

// Block 0 waits for all blocks and adds up their partial sums. Needs all blocks resident.
__global__ void last_block_kernel(const float* x, float* partial, unsigned* flag, float* out, int per) {
  if (threadIdx.x != 0) return;
  float s = 0;
  for (int i = 0; i < per; ++i) s += x[static_cast<int>(blockIdx.x) * per + i];
  partial[blockIdx.x] = s;
  ptx::red_release_gpu(flag, 1);
  if (blockIdx.x != 0) return;
  for (unsigned arrived = 0; arrived != gridDim.x;) arrived = ptx::ld_acquire_gpu(flag);
  float total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b];
  *out = total;
}

}  // namespace

Outcome block_sum() {
  constexpr int kLength = 1000, kBlocks = 3;
  const auto x = Random(1).integers<float>(kLength * kBlocks, 100);
  DeviceBuffer<float> dx(x), out(kBlocks);
  launch({.grid = {kBlocks}, .block = {256}}, block_sum_kernel<256>, dx.data(), out.data(), kLength);
  const auto got = out.download();
  Outcome outcome;
  for (int b = 0; b < kBlocks; ++b) {
    double sum = 0;
    for (int i = 0; i < kLength; ++i) sum += x[static_cast<size_t>(b * kLength + i)];
    outcome.compare(got[static_cast<size_t>(b)], sum, 0);
  }
  return outcome;
}

Outcome transpose() {
  constexpr int kSize = 256;
  const auto x = Random(2).integers<float>(kSize * kSize, 1000);
  DeviceBuffer<float> dx(x), out(kSize * kSize);
  launch({.grid = {kSize / 128, kSize / 32}, .block = {128}}, transpose_kernel, dx.data(), out.data(), kSize);
  const auto got = out.download();
  Outcome outcome;
  for (size_t i = 0; i < kSize; ++i)
    for (size_t j = 0; j < kSize; ++j) outcome.compare(got[j * kSize + i], x[i * kSize + j], 0);
  return outcome;
}

Outcome histogram() {
  constexpr int kLength = 5000;
  const auto x = Random(3).integers<unsigned char>(kLength, 7);
  DeviceBuffer<unsigned char> dx(x);
  DeviceBuffer<unsigned> out(std::vector<unsigned>(256, 0));
  launch({.grid = {4}, .block = {128}}, histogram_kernel, dx.data(), out.data(), kLength);
  const auto got = out.download();
  std::array<int, 256> want{};
  for (const unsigned char v : x) ++want[v];
  Outcome outcome;
  for (size_t i = 0; i < 256; ++i) outcome.compare(got[i], want[i], 0);
  return outcome;
}

Outcome named_barriers() {
  constexpr int kRows = 20;
  const auto x = Random(4).integers<int>(kRows * 32, 1000);
  DeviceBuffer<int> dx(x), out(kRows * 32);
  launch({.grid = {1}, .block = {64}}, named_kernel, dx.data(), out.data(), kRows);
  const auto got = out.download();
  Outcome outcome;
  for (size_t i = 0; i < kRows; ++i)
    for (size_t j = 0; j < 32; ++j) outcome.compare(got[i * 32 + j], x[i * 32 + 31 - j] * 2, 0);
  return outcome;
}

Outcome last_block() {
  constexpr int kBlocks = 5, kPer = 10;
  const auto x = Random(5).integers<float>(kBlocks * kPer, 100);
  DeviceBuffer<float> dx(x), partial(kBlocks), out(1);
  DeviceBuffer<unsigned> flag(std::vector<unsigned>{0});
  launch({.grid = {kBlocks}, .block = {32}}, last_block_kernel, dx.data(), partial.data(), flag.data(), out.data(),
         kPer);
  double sum = 0;
  for (const float v : x) sum += v;
  Outcome outcome;
  outcome.compare(out.download()[0], sum, 0);
  return outcome;
}

}  // namespace kw::test
