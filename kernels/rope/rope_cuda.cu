// rope on CUDA, any compute capability from 8.0.
//
// Work: a thread makes a piece of up to eight heads of a token, eight pairs by accesses of 16 bytes where every row begins on 16
// bytes and its parts are whole pieces, else one pair; its angles are made once. Neighbouring lanes have neighbouring pieces.
//
// Limits: 512 columns that turn, fewer than 2^31 elements. Needs no shared memory.
//
// Prediction, not measured: x and y once, 0.75 FLOP a byte of bf16: bound by memory; 80 % of bandwidth once they are some tens of MB,
// launch latency (2-3 us) below 1 MB.
#include "../core/cuda/registry.h"
#include "rope.cuh"
#include "rope.h"

namespace kw {
namespace rope_cuda {

constexpr int kThreads = 128, kHeads = 8;

struct Params {
  RopeAnglesCuda angles;
  const void* x;
  void* y;
  const int32_t* positions;  // may be null
  DType dtype, y_dtype;
  int64_t x_batch, x_row, x_head, y_batch, y_row, y_head, positions_batch, positions_row, position;
  unsigned total, pieces, groups, rows, heads;
};

template <int kV>
__global__ void __launch_bounds__(kThreads) rope_rows(const __grid_constant__ Params p) {
  const unsigned item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= p.total) return;
  const int piece = static_cast<int>(item % p.pieces);
  const unsigned group = item / p.pieces % p.groups, token = item / p.pieces / p.groups;
  const int64_t b = token / p.rows, i = token % p.rows;
  const int64_t position = p.positions ? p.positions[b * p.positions_batch + i * p.positions_row] : p.position + i;
  float cos[kV], sin[kV];
  rope_piece_angles(p.angles, position, piece, cos, sin);
  const int64_t from = b * p.x_batch + i * p.x_row, to = b * p.y_batch + i * p.y_row;
  const unsigned end = min(p.heads, (group + 1) * kHeads);
#pragma unroll 2
  for (unsigned h = group * kHeads; h < end; ++h)
    rope_piece(p.angles, piece, cos, sin, p.x, p.dtype, from + h * p.x_head, p.y, p.y_dtype, to + h * p.y_head, 1.0f);
}

// Dimensions that hold at most one element have no stride.
int64_t stride(const TensorView& t, int dimension) { return t.dim(dimension) > 1 ? t.step(dimension) : 0; }

class RopeCudaPlan {
 public:
  static std::string declines(const RopeArgs& args, const kw_device_info& device) {
    const auto expected = [](const std::string& what, const std::string& received, const std::string& wanted) {
      return "rope cuda: " + what + " is " + received + ", expected " + wanted;
    };
    if (device.cc_major < 8)
      return expected("compute capability", std::to_string(device.cc_major) + "." + std::to_string(device.cc_minor),
                      "at least 8.0");
    const std::pair<const char*, const TensorView&> tensors[] = {{"x", args.x}, {"y", args.y}};
    for (const auto& [name, t] : tensors) {
      if (t.dtype != DType::f32 && t.dtype != DType::f16 && t.dtype != DType::bf16)
        return expected(std::string("dtype of ") + name, kw::name(t.dtype), "f32, f16 or bf16");
      if (t.dim(-1) > 1 && t.step(-1) != 1)
        return expected(std::string("the last stride of ") + name, std::to_string(t.step(-1)), "1");
    }
    const int64_t rotary = rotary_columns(args, args.x.dim(3));
    if (rotary > 2 * kRopePairs) return expected("dim_rotary", std::to_string(rotary), "at most 512");
    if (args.x.count() >= int64_t{1} << 31)
      return expected("elements of x", std::to_string(args.x.count()), "below 2^31");
    return "";
  }

  RopeCudaPlan(const RopeArgs& args, const kw_device_info& device) : device_(device) { rebind(args, nullptr); }

  uint64_t workspace() const { return 0; }

  void rebind(const RopeArgs& args, void*) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    const int64_t columns = args.x.dim(3);
    Params& p = params_;
    p = {};
    p.angles = rope_angles_cuda(rope_turns(args, columns), columns, args.interleaved);
    width_ = p.angles.pairs % 8 == 0 && columns % 8 == 0 && rows_aligned(args.x) && rows_aligned(args.y) ? 8 : 1;
    p.x = args.x.data, p.dtype = args.x.dtype;
    p.x_batch = stride(args.x, 0), p.x_row = stride(args.x, 1), p.x_head = stride(args.x, 2);
    p.y = args.y.data, p.y_dtype = args.y.dtype;
    p.y_batch = stride(args.y, 0), p.y_row = stride(args.y, 1), p.y_head = stride(args.y, 2);
    if (args.positions.present()) {
      p.positions = static_cast<const int32_t*>(args.positions.data);
      p.positions_batch = stride(args.positions, 0), p.positions_row = stride(args.positions, 1);
    }
    p.position = args.position;
    p.rows = static_cast<unsigned>(args.x.dim(1)), p.heads = static_cast<unsigned>(args.x.dim(2));
    p.groups = (p.heads + kHeads - 1) / kHeads;
    p.pieces = static_cast<unsigned>(rope_pieces(p.angles.pairs, columns, width_));
    p.total = static_cast<unsigned>(args.x.dim(0)) * p.rows * p.groups * p.pieces;
  }

  void enqueue(void* stream) {
    if (params_.total == 0) return;
    launch({.grid = {(params_.total + kThreads - 1) / kThreads},
            .block = {kThreads},
            .stream = static_cast<Stream>(stream)},
           width_ == 8 ? rope_rows<8> : rope_rows<1>, params_);
  }

  std::string explain() const {
    return "{\"variant\":\"rope_rows\",\"reason\":\"the angles of a token are made once for eight heads\",\"width\":" +
           std::to_string(width_) + ",\"threads\":" + std::to_string(kThreads) +
           ",\"grid\":" + std::to_string((params_.total + kThreads - 1) / kThreads) + "}";
  }

 private:
  kw_device_info device_;
  Params params_;
  int width_ = 1;
};

}  // namespace rope_cuda

KW_REGISTER_OP(RopeArgs, rope_cuda::RopeCudaPlan, rope)

}  // namespace kw
