// nsa_compress on CUDA, any compute capability from 8.0.
//
// Work: a thread makes eight columns of a window, by accesses of 16 bytes where every row begins on 16 bytes and dim is a multiple of 8;
// else one column. Neighbouring threads have neighbouring columns, then heads, then windows, so that the windows that share tokens are
// computed at about the same time and the second finds them in L2. Rows are read four at a time. Lengths are read where they are used, so
// that the grid depends on shapes alone and graphs can be captured.
//
// Limits: fewer than 2^31 elements of x and of y. Needs no shared memory.
//
// Prediction, not measured: x and y once from memory, block / stride times x from L2, an addition for each element read: 64k tokens of 4
// heads of 128 in bf16 are 67 + 4 MB of memory and 134 MB of L2: 70-75 % of an H200's bandwidth, 20 us.
#include <string>
#include <utility>

#include "../core/cuda/pieces.cuh"
#include "../core/cuda/registry.h"
#include "../core/cuda/status.cuh"
#include "nsa_compress.h"

namespace kw {
namespace nsa_compress_cuda {

constexpr int kThreads = 128;

struct Params {
  const void *x, *position;  // position may be null
  void* y;
  const int32_t* lens;  // may be null
  DType dtype, position_dtype, y_dtype;
  int64_t x_batch, x_row, x_head, position_row, position_head, y_batch, y_row, y_head, lens_batch;
  StreamStatus* status;
  const char* const* names;
  unsigned total, pieces, heads, blocks;
  int len, block, stride;
};

const char* const kNames[] = {"nsa_compress: lens"};

template <int kV>
__global__ void __launch_bounds__(kThreads, 8) compress_windows(const __grid_constant__ Params p) {
  const unsigned item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= p.total) return;
  const unsigned piece = item % p.pieces, head = item / p.pieces % p.heads, row = item / p.pieces / p.heads;
  const int window = static_cast<int>(row % p.blocks), b = static_cast<int>(row / p.blocks);
  const int given = p.lens ? p.lens[b * p.lens_batch] : p.len;
  if ((given < 0 || given > p.len) && piece == 0 && head == 0 && window == 0)
    report_index(p.status, p.names, b, given, 0, p.len);
  const int column = static_cast<int>(piece) * kV, first = window * p.stride;
  float sum[kV] = {};
  if (first + p.block <= min(given, p.len)) {
    const int64_t from = b * p.x_batch + first * p.x_row + head * p.x_head + column;
    const int64_t at = head * p.position_head + column;
#pragma unroll 4
    for (int j = 0; j < p.block; ++j) {
      float x[kV];
      load_piece(x, p.x, p.dtype, from + j * p.x_row);
      if (p.position) {
        float u[kV];
        load_piece(u, p.position, p.position_dtype, at + j * p.position_row);
#pragma unroll
        for (int i = 0; i < kV; ++i) x[i] += u[i];
      }
#pragma unroll
      for (int i = 0; i < kV; ++i) sum[i] += x[i];
    }
  }
  const float factor = 1.0f / static_cast<float>(p.block);
#pragma unroll
  for (int i = 0; i < kV; ++i) sum[i] *= factor;
  const int64_t to = b * p.y_batch + window * p.y_row + head * p.y_head + column;
  if constexpr (kV == 8)
    store8(p.y, p.y_dtype, to, sum);
  else
    store1(p.y, p.y_dtype, to, sum[0]);
}

// Dimensions that hold at most one element have no stride.
int64_t stride(const TensorView& t, int dimension) { return t.dim(dimension) > 1 ? t.step(dimension) : 0; }

bool wide(const TensorView& t) { return t.dim(-1) % 8 == 0 && rows_aligned(t); }

class NsaCompressCudaPlan {
 public:
  static std::string declines(const NsaCompressArgs& args, const kw_device_info& device) {
    const auto expected = [](const std::string& what, const std::string& received, const std::string& wanted) {
      return "nsa_compress cuda: " + what + " is " + received + ", expected " + wanted;
    };
    if (device.cc_major < 8)
      return expected("compute capability", std::to_string(device.cc_major) + "." + std::to_string(device.cc_minor),
                      "at least 8.0");
    const std::pair<const char*, const TensorView&> tensors[] = {
        {"x", args.x}, {"position", args.position}, {"y", args.y}};
    for (const auto& [name, t] : tensors) {
      if (!t.present()) continue;
      if (t.dtype != DType::f32 && t.dtype != DType::f16 && t.dtype != DType::bf16)
        return expected(std::string("dtype of ") + name, kw::name(t.dtype), "f32, f16 or bf16");
      if (t.dim(-1) > 1 && t.step(-1) != 1)
        return expected(std::string("the last stride of ") + name, std::to_string(t.step(-1)), "1");
      if (t.count() >= int64_t{1} << 31)
        return expected(std::string("elements of ") + name, std::to_string(t.count()), "below 2^31");
    }
    return "";
  }

  NsaCompressCudaPlan(const NsaCompressArgs& args, const kw_device_info& device) : device_(device) {
    rebind(args, nullptr);
  }

  uint64_t workspace() const { return 0; }

  void rebind(const NsaCompressArgs& args, void*) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    const TensorView &x = args.x, &position = args.position, &y = args.y;
    Params& p = params_;
    p = {};
    p.x = x.data, p.dtype = x.dtype;
    p.x_batch = stride(x, 0), p.x_row = stride(x, 1), p.x_head = stride(x, 2);
    p.y = y.data, p.y_dtype = y.dtype;
    p.y_batch = stride(y, 0), p.y_row = stride(y, 1), p.y_head = stride(y, 2);
    if (position.present()) {
      p.position = position.data, p.position_dtype = position.dtype;
      p.position_row = stride(position, 0), p.position_head = stride(position, 1);
    }
    if (args.lens.present()) {
      p.lens = static_cast<const int32_t*>(args.lens.data);
      p.lens_batch = stride(args.lens, 0);
    }
    p.names = kNames;
    width_ = wide(x) && wide(y) && (!position.present() || wide(position)) ? 8 : 1;
    p.len = static_cast<int>(x.dim(1)), p.block = static_cast<int>(args.block);
    p.stride = static_cast<int>(args.stride);
    p.heads = static_cast<unsigned>(x.dim(2)), p.blocks = static_cast<unsigned>(y.dim(1));
    p.pieces = static_cast<unsigned>(x.dim(3) / width_);
    p.total = static_cast<unsigned>(y.dim(0)) * p.blocks * p.heads * p.pieces;
  }

  void enqueue(void* stream) {
    if (params_.total == 0) return;
    params_.status = status_of(stream);
    launch({.grid = {(params_.total + kThreads - 1) / kThreads},
            .block = {kThreads},
            .stream = static_cast<Stream>(stream)},
           width_ == 8 ? compress_windows<8> : compress_windows<1>, params_);
  }

  std::string explain() const {
    return "{\"variant\":\"compress_windows\",\"reason\":\"a thread makes a piece of a window\",\"width\":" +
           std::to_string(width_) + ",\"threads\":" + std::to_string(kThreads) +
           ",\"grid\":" + std::to_string((params_.total + kThreads - 1) / kThreads) + "}";
  }

 private:
  kw_device_info device_;
  Params params_;
  int width_ = 1;
};

}  // namespace nsa_compress_cuda

KW_REGISTER_OP(NsaCompressArgs, nsa_compress_cuda::NsaCompressCudaPlan, nsa_compress)

}  // namespace kw
