// peak on CUDA, compute capability 8.0 and up.
//
//   read, copy    a block of 256 threads takes a row, 16 bytes a thread, 8 loads in flight; rows that do not begin at multiples
//                 of 16 bytes element by element.
//   multiply      a tile of 64 x 256 of y in the registers of a block, for all rounds:
//     peak_fma    f32: 256 threads, 8 x 8 sums each. One column stays in registers; more come from shared memory.
//     peak_mma    f16, bf16: 4 warps, 16 x 256 sums each, both operands in registers: 32 independent mma.sync m16n8k16 a round.
//     peak_wgmma  f16, bf16 on compute capability 9.0 (peak_sm90.cu): what its tensor cores reach, mma.sync does not.
//   spin          a block of one warp takes a row; one lane works.
//
// Limits: fewer than 2^31 rows, fewer than 2^31 tiles.
//
// Prediction, not measured: read and copy 90-93 % of the memory's bandwidth from some hundred MB on. peak_fma 95 % and more of
// 128 multiply-adds a clock and multiprocessor. peak_mma 95 % of an A100's 312 TFLOP/s, about 60 % of an H200's 989.
#include <algorithm>

#include "../core/cuda/registry.h"
#include "../core/cuda/softmax.cuh"
#include "peak_cuda.cuh"

namespace kw {
namespace peak_cuda {

constexpr int kMemoryThreads = 256, kInFlight = 8;

// The sum of a row, over all threads.
__global__ void __launch_bounds__(kMemoryThreads) peak_read(const __grid_constant__ PeakParams p) {
  KW_SHARED(float[kMemoryThreads / 32], sums);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t at = blockIdx.x * p.x_row, step = p.dtype == DType::f32 ? 4 : 8;
  const int64_t pieces = p.wide ? p.columns / step : 0;
  const char* row = static_cast<const char*>(p.x) + at * (p.dtype == DType::f32 ? 4 : 2);
  float sum[4] = {};
  const auto add = [&](const uint4& q) {
    const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (p.dtype == DType::f32) {
        sum[i] += __uint_as_float(words[i]);
      } else {
        sum[i] += load1(words, p.dtype, 2 * i);
        sum[i] += load1(words, p.dtype, 2 * i + 1);
      }
    }
  };
  int64_t piece = thread;
  for (; piece + (kInFlight - 1) * kMemoryThreads < pieces; piece += kInFlight * kMemoryThreads) {
    uint4 q[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) q[i] = reinterpret_cast<const uint4*>(row)[piece + i * kMemoryThreads];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) add(q[i]);
  }
  for (; piece < pieces; piece += kMemoryThreads) add(reinterpret_cast<const uint4*>(row)[piece]);
  for (int64_t j = pieces * step + thread; j < p.columns; j += kMemoryThreads) sum[0] += load1(p.x, p.dtype, at + j);
  const float warp = lanes_sum<32>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  if (thread % 32 == 0) sums[thread / 32] = warp;
  __syncthreads();
  if (thread != 0) return;
  float total = 0;
  for (const float one : sums) total += one;
  p.y[blockIdx.x * p.y_row] = total;
}

__global__ void __launch_bounds__(kMemoryThreads) peak_copy(const __grid_constant__ PeakParams p) {
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t from = blockIdx.x * p.x_row, to = blockIdx.x * p.y_row;
  const int64_t pieces = p.wide && p.dtype == DType::f32 ? p.columns / 4 : 0;
  const auto* source = reinterpret_cast<const uint4*>(static_cast<const float*>(p.x) + from);
  auto* target = reinterpret_cast<uint4*>(p.y + to);
  int64_t piece = thread;
  for (; piece + (kInFlight - 1) * kMemoryThreads < pieces; piece += kInFlight * kMemoryThreads) {
    uint4 q[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) q[i] = source[piece + i * kMemoryThreads];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) target[piece + i * kMemoryThreads] = q[i];
  }
  for (; piece < pieces; piece += kMemoryThreads) target[piece] = source[piece];
  for (int64_t j = 4 * pieces + thread; j < p.columns; j += kMemoryThreads) p.y[to + j] = load1(p.x, p.dtype, from + j);
}

// Both operands lie in shared memory, [column][line], zeros outside. A thread's rows are 8 apart and its columns 32.
template <bool kOneColumn>
__global__ void __launch_bounds__(256, 2) peak_fma(const __grid_constant__ PeakParams p) {
  constexpr int kSums = 8;
  constexpr int kDepth = kOneColumn ? 1 : kPeakDepth;
  KW_SHARED(float[kDepth][kTileRows], x);
  KW_SHARED(float[kDepth][kTileWidth], w);
  const int thread = static_cast<int>(threadIdx.x), across = thread % 32, down = thread / 32;
  const int64_t row0 = int64_t{blockIdx.x} * kTileRows, column0 = int64_t{blockIdx.y} * kTileWidth;
  const int depth = kOneColumn ? 1 : static_cast<int>(p.columns);
  const auto load = [&](auto& tile, int lines, const void* data, int64_t first, int64_t limit, int64_t pitch) {
    for (int i = thread; i < depth * lines; i += 256) {
      const int64_t line = first + i % lines;
      tile[i / lines][i % lines] = line < limit ? load1(data, p.dtype, line * pitch + i / lines) : 0.0f;
    }
  };
  load(x, kTileRows, p.x, row0, p.rows, p.x_row);
  load(w, kTileWidth, p.w, column0, p.width, p.w_row);
  __syncthreads();

  float s[kSums][kSums] = {}, a[kSums], b[kSums];
  const auto fetch = [&](int k) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) a[i] = x[k][down + 8 * i], b[i] = w[k][across + 32 * i];
  };
  const auto add = [&](bool negative) {
    for (int k = 0; k < depth; ++k) {
      if constexpr (!kOneColumn) fetch(k);
#pragma unroll
      for (int i = 0; i < kSums; ++i)
#pragma unroll
        for (int j = 0; j < kSums; ++j) s[i][j] = fmaf(negative ? -a[i] : a[i], b[j], s[i][j]);
    }
  };
  if constexpr (kOneColumn) fetch(0);
  for (int64_t r = 0; r < p.rounds / 2; ++r) {
    add(false);
    add(true);
  }
  if (p.rounds % 2) add(false);
#pragma unroll
  for (int i = 0; i < kSums; ++i)
#pragma unroll
    for (int j = 0; j < kSums; ++j) {
      const int64_t row = row0 + down + 8 * i, column = column0 + across + 32 * j;
      if (row < p.rows && column < p.width) p.y[row * p.y_row + column] = s[i][j];
    }
}

template <bool kBf16>
__global__ void __launch_bounds__(128, 2) peak_mma(const __grid_constant__ PeakParams p) {
  constexpr int kTiles = kTileWidth / 8;
  const int lane = ptx::lane_id(), group = lane / 4, quad = lane % 4;
  const int64_t row0 = int64_t{blockIdx.x} * kTileRows + threadIdx.x / 32 * 16;
  const int64_t column0 = int64_t{blockIdx.y} * kTileWidth;
  uint32_t a[4], negative[4], b[kTiles][2];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    a[i] = pair_at(p.x, row0 + group + i % 2 * 8, p.rows, p.x_row, 2 * quad + i / 2 * 8, p.columns);
    negative[i] = a[i] ^ 0x80008000u;
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      b[t][i] = pair_at(p.w, column0 + 8 * t + group, p.width, p.w_row, 2 * quad + 8 * i, p.columns);

  float s[kTiles][4] = {};
  const auto add = [&](const uint32_t(&x)[4]) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) mma_m16n8k16<kBf16>(s[t], x, b[t]);
  };
#pragma unroll 1
  for (int64_t r = 0; r < p.rounds / 2; ++r) {
    add(a);
    add(negative);
  }
  if (p.rounds % 2) add(a);
#pragma unroll
  for (int t = 0; t < kTiles; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = row0 + group + i / 2 * 8, column = column0 + 8 * t + 2 * quad + i % 2;
      if (row < p.rows && column < p.width) p.y[row * p.y_row + column] = s[t][i];
    }
}

__global__ void __launch_bounds__(32) peak_spin(const __grid_constant__ PeakParams p) {
  if (threadIdx.x != 0) return;
  const int64_t at = blockIdx.x * p.x_row;
  for (int64_t r = 0; r < p.width; ++r) {
    float s = 0;
    for (int64_t t = 0; t < p.rounds; ++t)
      for (int64_t j = 0; j < p.columns; ++j) {
        const float x = load1(p.x, p.dtype, at + j), w = load1(p.w, p.dtype, r * p.w_row + j);
        s = fmaf(t % 2 ? -x : x, w, s);
      }
    p.y[blockIdx.x * p.y_row + r] = s;
  }
}

// Dimensions that hold at most one element have no stride.
int64_t pitch(const TensorView& t) { return t.dim(0) > 1 ? t.step(0) : 0; }

struct Choice {
  const char* variant = "";
  const char* unit = "";
  void (*kernel)(PeakParams) = nullptr;  // null: peak_wgmma
  int threads = 0;
  bool tiles = false;  // a block takes a tile of y, not a row
};

Choice choose(const PeakArgs& args, const kw_device_info& device) {
  switch (args.load) {
    case PeakLoad::read:
      return {"peak_read", "memory", peak_read, kMemoryThreads, false};
    case PeakLoad::copy:
      return {"peak_copy", "memory", peak_copy, kMemoryThreads, false};
    case PeakLoad::spin:
      return {"peak_spin", "none", peak_spin, 32, false};
    case PeakLoad::multiply:
      break;
  }
  if (args.x.dtype == DType::f32) {
    auto* const kernel = args.x.shape[1] == 1 ? peak_fma<true> : peak_fma<false>;
    return {"peak_fma", "fma_f32", kernel, 256, true};
  }
  const bool bf16 = args.x.dtype == DType::bf16;
  const char* unit = bf16 ? "dot_bf16" : "dot_f16";
  if (wgmma_runs(device)) return {"peak_wgmma", unit, nullptr, 128, true};
  return {"peak_mma", unit, bf16 ? peak_mma<true> : peak_mma<false>, 128, true};
}

class PeakCudaPlan {
 public:
  static std::string declines(const PeakArgs& args, const kw_device_info& device) {
    const auto expected = [](const std::string& what, const std::string& received, const std::string& wanted) {
      return "peak cuda: " + what + " is " + received + ", expected " + wanted;
    };
    if (device.cc_major < 8)
      return expected("compute capability", std::to_string(device.cc_major) + "." + std::to_string(device.cc_minor),
                      "at least 8.0");
    const DType type = args.x.dtype;
    if (type != DType::f32 && type != DType::f16 && type != DType::bf16)
      return expected("dtype of x", name(type), "f32, f16 or bf16");
    if (args.w.present() && args.w.dtype != type)
      return expected("dtype of w", name(args.w.dtype), std::string(name(type)) + " as of x");
    if (args.y.dtype != DType::f32) return expected("dtype of y", name(args.y.dtype), "f32");
    const std::pair<const char*, const TensorView&> tensors[] = {{"x", args.x}, {"w", args.w}, {"y", args.y}};
    for (const auto& [name, t] : tensors)
      if (t.present() && t.dim(-1) > 1 && t.step(-1) != 1)
        return expected(std::string("the last stride of ") + name, std::to_string(t.step(-1)), "1");
    if (args.load >= PeakLoad::multiply && args.x.dim(1) > kPeakDepth)
      return expected("columns", std::to_string(args.x.dim(1)), "at most " + std::to_string(kPeakDepth));
    if (args.y.dim(0) >= int64_t{1} << 31) return expected("rows", std::to_string(args.y.dim(0)), "below 2^31");
    if (args.y.dim(1) > int64_t{65535} * kTileWidth && args.load == PeakLoad::multiply)
      return expected("width", std::to_string(args.y.dim(1)), "at most " + std::to_string(65535 * kTileWidth));
    return "";
  }

  PeakCudaPlan(const PeakArgs& args, const kw_device_info& device) : device_(device) {
    rebind(args, nullptr);
    if (choice_.kernel == nullptr) prepare_wgmma(args.x.dtype);
  }

  uint64_t workspace() const { return 0; }

  void rebind(const PeakArgs& args, void*) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    choice_ = choose(args, device_);
    params_ = {.x = args.x.data,
               .w = args.w.data,
               .y = static_cast<float*>(args.y.data),
               .dtype = args.x.dtype,
               .x_row = pitch(args.x),
               .w_row = args.w.present() ? pitch(args.w) : 0,
               .y_row = pitch(args.y),
               .rows = args.y.dim(0),
               .columns = args.x.dim(1),
               .width = args.y.dim(1),
               .rounds = args.rounds,
               .wide = false};
    const auto aligned = [](const void* data, int64_t row_bytes) {
      return reinterpret_cast<uintptr_t>(data) % 16 == 0 && row_bytes % 16 == 0;
    };
    params_.wide = aligned(params_.x, params_.x_row * bits(params_.dtype) / 8) &&
                   (args.load == PeakLoad::read || aligned(params_.y, params_.y_row * 4));
  }

  void enqueue(void* stream) {
    const auto up = [](int64_t n, int64_t by) { return static_cast<unsigned>((n + by - 1) / by); };
    if (params_.rows == 0 || params_.width == 0) return;
    if (choice_.kernel == nullptr) return launch_wgmma(params_, static_cast<Stream>(stream));
    LaunchConfig config;
    config.grid = choice_.tiles ? Dim{up(params_.rows, kTileRows), up(params_.width, kTileWidth)}
                                : Dim{static_cast<unsigned>(params_.rows)};
    config.block = {static_cast<unsigned>(choice_.threads)};
    config.stream = static_cast<Stream>(stream);
    launch(config, choice_.kernel, params_);
  }

  std::string explain() const {
    return std::string("{\"variant\":\"") + choice_.variant + "\",\"unit\":\"" + choice_.unit +
           "\",\"threads\":" + std::to_string(choice_.threads) + ",\"wide\":" + (params_.wide ? "true" : "false") + "}";
  }

 private:
  kw_device_info device_;
  Choice choice_;
  PeakParams params_{};
};

}  // namespace peak_cuda

KW_REGISTER_OP(PeakArgs, peak_cuda::PeakCudaPlan, peak)

}  // namespace kw
