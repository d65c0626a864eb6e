// peak on compute capability 9.0: multiply for f16 and bf16 by wgmma m64n256k16, both operands in shared memory. A block is a
// warpgroup and makes a tile of 64 x 256 of y, all of it in registers for all rounds; two blocks and more share a
// multiprocessor, so that one computes while another waits.
//
// Shared memory, no swizzle: 8 x 8 blocks of elements of 128 consecutive bytes, which every read of 8 lines touches bank by bank;
// blocks of 8 lines follow each other, then the other half of k. 8 KB of w, and 2 KB each of x and of -x for the odd rounds.
//
// Prediction, not measured: 128 clocks a product of 64 x 256 x 16 against 80 bytes a clock from shared memory, of 128: the tensor
// cores are the limit, 90-95 % of 989 TFLOP/s (H200) at the clock that its power allows.
#include "peak_cuda.cuh"

namespace kw::peak_cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kHalfX = kTileRows * 16, kHalfW = kTileWidth * 16;  // bytes of 8 columns
constexpr int kX = 2 * kHalfX, kW = 2 * kHalfW;

// Brings a tile's lines into shared memory, in pieces of 8 columns.
KW_DEVICE void fill(unsigned char* tile, int lines, const void* data, int64_t first, int64_t limit, int64_t pitch,
                    int64_t columns, uint32_t sign) {
  for (int i = static_cast<int>(threadIdx.x); i < 2 * lines; i += kThreads) {
    const int line = i % lines, k = i / lines * 8;
    uint32_t words[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) words[e] = pair_at(data, first + line, limit, pitch, k + 2 * e, columns) ^ sign;
    *reinterpret_cast<uint4*>(tile + i / lines * lines * 16 + line * 16) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 2) peak_wgmma(const __grid_constant__ PeakParams p) {
  unsigned char* x = dyn_smem();
  unsigned char *negative = x + kX, *w = x + 2 * kX;
  const int64_t row0 = int64_t{blockIdx.x} * kTileRows, column0 = int64_t{blockIdx.y} * kTileWidth;
  fill(x, kTileRows, p.x, row0, p.rows, p.x_row, p.columns, 0);
  fill(negative, kTileRows, p.x, row0, p.rows, p.x_row, p.columns, 0x80008000u);
  fill(w, kTileWidth, p.w, column0, p.width, p.w_row, p.columns, 0);
  ptx::fence_proxy_async();
  __syncthreads();

  const uint64_t plus = ptx::wgmma_desc(ptx::smem_u32(x), kHalfX, 128, Swizzle::none);
  const uint64_t minus = ptx::wgmma_desc(ptx::smem_u32(negative), kHalfX, 128, Swizzle::none);
  const uint64_t right = ptx::wgmma_desc(ptx::smem_u32(w), kHalfW, 128, Swizzle::none);
  float s[kTileWidth / 2] = {};
  // A group of products is begun and waited for in one place: otherwise the compiler runs them one at a time.
  const auto add = [&](auto... rounds) {
    ptx::wgmma_fence();
    (ptx::wgmma_ss<T, kTileWidth>(s, rounds % 2 ? minus : plus, right, 1), ...);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>(s);
  };
  int64_t rounds = p.rounds;
  for (; rounds >= 8; rounds -= 8) add(0, 1, 2, 3, 4, 5, 6, 7);
  for (; rounds >= 2; rounds -= 2) add(0, 1);
  if (rounds) add(0);

  const int lane = ptx::lane_id(), warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int i = 0; i < kTileWidth / 2; ++i) {
    const int64_t row = row0 + 16 * warp + lane / 4 + (i >> 1 & 1) * 8;
    const int64_t column = column0 + (i >> 2) * 8 + lane % 4 * 2 + (i & 1);
    if (row < p.rows && column < p.width) p.y[row * p.y_row + column] = s[i];
  }
}

constexpr int kSmem = 2 * kX + kW;

}  // namespace

void prepare_wgmma(DType dtype) {
  prepare(dtype == DType::bf16 ? peak_wgmma<__nv_bfloat16> : peak_wgmma<__half>, kSmem);
}

void launch_wgmma(const PeakParams& p, Stream stream) {
  const auto up = [](int64_t n, int64_t by) { return static_cast<unsigned>((n + by - 1) / by); };
  const LaunchConfig config{.grid = {up(p.rows, kTileRows), up(p.width, kTileWidth)},
                            .block = {kThreads},
                            .smem = kSmem,
                            .cluster = {},
                            .stream = stream};
  launch(config, p.dtype == DType::bf16 ? peak_wgmma<__nv_bfloat16> : peak_wgmma<__half>, p);
}

}  // namespace kw::peak_cuda
