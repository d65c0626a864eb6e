// attention_gqa_backward on CUDA, compute capability 8.0 and up.
//
// Work, kernel after kernel, each sum by one block in one order:
//   backward_prepare  lse and D of every row, a warp each, to the workspace
//   backward_rows     dq. A block has a tile of rows of one head and goes over the keys they see
//   backward_keys     dk and dv. A block has a tile of keys of one key head and goes over the rows of all heads of the group that see
//                     them. dk and dv at once for head dimensions up to 128; above, one after the other, for want of registers
//   backward_bias     dbias, where there is a bias: a block has a tile of it and goes over what shares it
//   backward_sink     dsink, where there is a sink: a block for each head
// Tiles outside causal bounds, windows and lengths are skipped; a mask is looked at pair by pair.
//   mma   bf16, f16. 128 threads, 64 own lines by 64 or 32 others. m16n8k16, ldmatrix (.trans for the sums), XOR swizzle, cp.async;
//         the accumulators of weights and gradients, rounded to the operands' dtype, are operand A of the sums. Compiled for head
//         dimensions 32, 64, 96, 128, 192 and 256; others are padded with zeros.
//   fma   f32. 32 by 32 lines, beyond dimension 128 16 by 16, IEEE fma. Compiled for 64, 128 and 256. No TF32.
// Scores and gradients of weights are made twice, for rows and for keys: seven products where five would do, but no atomics and
// nothing to add up afterwards. Copies are not overlapped within a block; two or three blocks on an SM cover each other.
//
// Limits: as attention_gqa; a workspace of 8 bytes a row and head. Needs 99 KB of shared memory per block at most.
//
// Prediction, not measured: 7/5 of the contract's FLOPs, at the 40-50 % of peak that mma.sync reaches without overlap: 30-35 % of
// an A100's 312 TFLOP/s by the contract's count, and 180-220 TFLOP/s on an H200 at head dimension 128, less causal.
#include <algorithm>

#include "../attention_gqa/attention_gqa_params.cuh"
#include "../core/cuda/registry.h"
#include "attention_gqa_backward.h"
#include "attention_gqa_backward_ends.cuh"
#include "attention_gqa_backward_variants.cuh"

namespace kw {
namespace attention_gqa_backward_cuda {

using attention_gqa_cuda::aligned;
using attention_gqa_cuda::CheckedTensor;
using attention_gqa_cuda::divided;
using attention_gqa_cuda::kAnyFloat;
using attention_gqa_cuda::operand;
using attention_gqa_cuda::rows_of;
using attention_gqa_cuda::stride;

constexpr const char* kWhere = "attention_gqa_backward";

Variant variant_for(DType dtype, int64_t dim, int64_t dim_v) {
  const int64_t most = std::max(dim, dim_v);
  if (dtype == DType::f32) {
    if (most <= 64) return variant<FmaTile<64, 32, 32>, FmaTile<64, 32, 32>, true, 3>("fma");
    if (most <= 128) return variant<FmaTile<128, 32, 32>, FmaTile<128, 32, 32>, true, 2>("fma");
    return variant<FmaTile<256, 16, 16>, FmaTile<256, 16, 16>, true, 2>("fma");
  }
  const bool bf16 = dtype == DType::bf16;
  if (most <= 32) return variant_32(bf16);
  if (most <= 64) return variant_64(bf16);
  if (most <= 96) return variant_96(bf16);
  if (most <= 128) return variant_128(bf16);
  return most <= 192 ? variant_192(bf16) : variant_256(bf16);
}

constexpr const char* kNames[] = {"attention_gqa_backward: lens_q", "attention_gqa_backward: lens_kv",
                                  "attention_gqa_backward: cu_q", "attention_gqa_backward: cu_kv"};

// Tiles of `lines` lines of one batch, at least as many as there are.
int tiles_of(const Params& p, int64_t length, int lines) {
  return static_cast<int>(p.cu_q ? length / lines + std::min<int64_t>(p.cu_count + 1, length) : divided(length, lines));
}

BackwardParams params_of(const AttentionGqaBackwardArgs& a, const Variant& v) {
  BackwardParams b{};
  Params& p = b.rows;
  p = attention_gqa_cuda::base_params(forward_of(a));
  p.lse = operand(a.lse, 0, 2, 1);
  p.names = kNames;
  p.pack = 1;
  p.row_tiles = tiles_of(p, p.len_q, v.row_lines);
  Params& k = b.keys;
  k = p;
  std::swap(k.lens_q, k.lens_kv), std::swap(k.cu_q, k.cu_kv), std::swap(k.len_q, k.len_kv);
  k.row_tiles = tiles_of(p, p.len_kv, v.key_lines);
  b.y = operand(a.y, 0, 1, 2), b.dy = operand(a.dy, 0, 1, 2), b.dlse = operand(a.dlse, 0, 2, 1);
  b.dq = operand(a.dq, 0, 1, 2), b.dk = operand(a.dk, 0, 1, 2), b.dv = operand(a.dv, 0, 1, 2);
  b.dbias = operand(a.dbias, 0, 2, 1);
  b.bias_batch = static_cast<int>(a.dbias.dim(0)), b.bias_heads = static_cast<int>(a.dbias.dim(1));
  b.dy_wide = aligned(b.dy, 16);
  b.dq_pairs = aligned(b.dq, 2 * bits(b.dq.dtype) / 8);
  b.dk_pairs = aligned(b.dk, 2 * bits(b.dk.dtype) / 8);
  b.dv_pairs = aligned(b.dv, 2 * bits(b.dv.dtype) / 8);
  b.dsink = static_cast<float*>(a.dsink.data);
  b.dsink_step = stride(a.dsink, 0);
  return b;
}

// Blocks of each kernel.
struct Grids {
  int64_t prepare, rows, keys, bias, sink;
  Grids(const AttentionGqaBackwardArgs& a, const BackwardParams& b, const Variant& v)
      : prepare(divided(rows_of(a.q), kPrepareThreads / 32)),
        rows(int64_t{b.rows.row_tiles} * b.rows.heads_q * b.rows.batch),
        keys(int64_t{b.keys.row_tiles} * b.rows.heads_kv * b.rows.batch),
        bias(a.bias.present() && a.dbias.count() > 0
                 ? divided(b.rows.len_q, v.row_lines) * divided(b.rows.len_kv, v.row_others) * b.bias_batch *
                       b.bias_heads
                 : 0),
        sink(a.sink.present() ? a.dsink.count() : 0) {}
  int64_t most() const { return std::max({prepare, rows, keys, bias, sink}); }
};

class AttentionGqaBackwardCudaPlan {
 public:
  static std::string declines(const AttentionGqaBackwardArgs& args, const kw_device_info& device) {
    const CheckedTensor tensors[] = {{"q", args.q, kAnyFloat},
                                     {"k", args.k, args.q.dtype},
                                     {"v", args.v, args.q.dtype},
                                     {"y", args.y, kAnyFloat},
                                     {"lse", args.lse, DType::f32},
                                     {"dy", args.dy, args.q.dtype},
                                     {"dlse", args.dlse, DType::f32},
                                     {"bias", args.bias, kAnyFloat},
                                     {"mask", args.mask, DType::u8},
                                     {"alibi", args.alibi, DType::f32},
                                     {"sink", args.sink, DType::f32},
                                     {"lens_q", args.lens_q, DType::i32},
                                     {"lens_kv", args.lens_kv, DType::i32},
                                     {"cu_q", args.cu_q, DType::i32},
                                     {"cu_kv", args.cu_kv, DType::i32},
                                     {"dq", args.dq, kAnyFloat},
                                     {"dk", args.dk, kAnyFloat},
                                     {"dv", args.dv, kAnyFloat},
                                     {"dbias", args.dbias, kAnyFloat},
                                     {"dsink", args.dsink, DType::f32}};
    if (std::string reason = attention_gqa_cuda::refused_by_all(kWhere, device, tensors, forward_of(args));
        !reason.empty())
      return reason;
    const auto expected = [](const std::string& what, int64_t received, const std::string& wanted) {
      return attention_gqa_cuda::expected(kWhere, what, std::to_string(received), wanted);
    };
    const Variant v = variant_for(args.q.dtype, args.q.dim(3), args.v.dim(3));
    const int64_t smem = std::max(v.row_smem, v.key_smem);
    if (static_cast<int64_t>(device.smem_bytes) < smem)
      return expected("bytes of shared memory per block", static_cast<int64_t>(device.smem_bytes),
                      "at least " + std::to_string(smem));
    const int64_t blocks = Grids(args, params_of(args, v), v).most();
    if (blocks > INT32_MAX) return expected("the number of blocks", blocks, "at most " + std::to_string(INT32_MAX));
    return "";
  }

  AttentionGqaBackwardCudaPlan(const AttentionGqaBackwardArgs& args, const kw_device_info& device) : device_(device) {
    bind(args);
    capacity_ = rows_of(args.q);
    prepare(variant_.rows, static_cast<size_t>(variant_.row_smem));
    prepare(variant_.bias, static_cast<size_t>(variant_.row_smem));
    for (const Kernel kernel : variant_.keys)
      if (kernel) prepare(kernel, static_cast<size_t>(variant_.key_smem));
  }

  uint64_t workspace() const { return static_cast<uint64_t>(capacity_) * 2 * sizeof(float); }

  void rebind(const AttentionGqaBackwardArgs& args, void* workspace) {
    bind(args);
    if (rows_of(args.q) > capacity_)
      throw Error(Code::SHAPE, "attention_gqa_backward: workspace is for " + std::to_string(capacity_) +
                                   " rows, expected " + std::to_string(rows_of(args.q)));
    params_.lse = static_cast<float*>(workspace);
    params_.delta = params_.lse + rows_of(args.q);
  }

  void enqueue(void* stream) {
    BackwardParams& b = params_;
    b.rows.status = status_of(stream);
    const Grids grids(args_, b, variant_);
    const auto run = [&](Kernel kernel, int64_t blocks, int threads, int smem) {
      if (blocks == 0 || !kernel) return;
      launch({.grid = {static_cast<unsigned>(blocks)},
              .block = {static_cast<unsigned>(threads)},
              .smem = static_cast<size_t>(smem),
              .stream = static_cast<Stream>(stream)},
             kernel, b);
    };
    const Variant& v = variant_;
    run(backward_prepare, grids.prepare, kPrepareThreads, 0);
    run(v.rows, grids.rows, v.row_threads, v.row_smem);
    for (const Kernel kernel : v.keys) run(kernel, grids.keys, v.key_threads, v.key_smem);
    run(v.bias, grids.bias, v.row_threads, v.row_smem);
    run(backward_sink, grids.sink, kSinkThreads, 0);
  }

  std::string explain() const {
    const Variant& v = variant_;
    const Grids grids(args_, params_, v);
    const auto text = [](int64_t value) { return std::to_string(value); };
    const Params& p = params_.rows;
    return std::string("{\"variant\":\"") + v.name + "\",\"reason\":\"" +
           (p.q.dtype == DType::f32 ? "f32 is computed with IEEE fma" : "mma.sync of the operands' dtype") +
           "\",\"tile\":[" + text(v.row_lines) + "," + text(v.row_others) + "],\"tileKeys\":[" + text(v.key_lines) +
           "," + text(v.key_others) + "],\"headDim\":" + text(v.dim) + ",\"keyPasses\":" + (v.keys[1] ? "2" : "1") +
           ",\"threads\":" + text(v.row_threads) + ",\"smemBytes\":[" + text(v.row_smem) + "," + text(v.key_smem) +
           "],\"grid\":[" + text(grids.rows) + "," + text(grids.keys) +
           "],\"asyncCopies\":" + (p.q_wide && p.k_wide && p.v_wide && params_.dy_wide ? "true" : "false") + "}";
  }

 private:
  void bind(const AttentionGqaBackwardArgs& args) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    args_ = args;
    variant_ = variant_for(args.q.dtype, args.q.dim(3), args.v.dim(3));
    params_ = params_of(args, variant_);
  }

  kw_device_info device_;
  AttentionGqaBackwardArgs args_;
  Variant variant_{};
  BackwardParams params_{};
  int64_t capacity_ = 0;  // rows that the workspace is for
};

}  // namespace attention_gqa_backward_cuda

KW_REGISTER_OP(AttentionGqaBackwardArgs, attention_gqa_backward_cuda::AttentionGqaBackwardCudaPlan,
               attention_gqa_backward)

}  // namespace kw
