// From the arguments of attention_gqa to the parameters that its CUDA kernels share (attention_gqa_walk.cuh).
#pragma once
#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "attention_gqa.h"
#include "attention_gqa_walk.cuh"

namespace kw::attention_gqa_cuda {

// Dimensions that hold at most one element have no stride.
inline int64_t stride(const TensorView& t, int dimension) { return t.dim(dimension) > 1 ? t.step(dimension) : 0; }

inline Operand operand(const TensorView& t, int batch, int row, int head) {
  if (!t.present()) return {};
  return {t.data, t.dtype, stride(t, batch), stride(t, row), stride(t, head)};
}

inline bool aligned(const Operand& o, int64_t bytes) {
  const int64_t size = bits(o.dtype) / 8;
  return reinterpret_cast<uintptr_t>(o.data) % bytes == 0 && o.batch * size % bytes == 0 && o.row * size % bytes == 0 &&
         o.head * size % bytes == 0;
}

inline constexpr const char* kNames[] = {"attention_gqa: lens_q", "attention_gqa: lens_kv", "attention_gqa: cu_q",
                                         "attention_gqa: cu_kv"};

inline Params base_params(const AttentionGqaArgs& a) {
  Params p{};
  p.q = operand(a.q, 0, 1, 2);
  p.k = operand(a.k, 0, 1, 2);
  p.v = operand(a.v, 0, 1, 2);
  p.y = operand(a.y, 0, 1, 2);
  p.lse = operand(a.lse, 0, 2, 1);
  p.bias = operand(a.bias, 0, 2, 1);
  p.mask = operand(a.mask, 0, 2, 1);
  p.alibi = static_cast<const float*>(a.alibi.data);
  p.sink = static_cast<const float*>(a.sink.data);
  p.lens_q = static_cast<const int32_t*>(a.lens_q.data);
  p.lens_kv = static_cast<const int32_t*>(a.lens_kv.data);
  p.cu_q = static_cast<const int32_t*>(a.cu_q.data);
  p.cu_kv = static_cast<const int32_t*>(a.cu_kv.data);
  p.cu_count = a.cu_q.present() ? a.cu_q.dim(0) : 0;
  p.batch = static_cast<int>(a.q.dim(0));
  p.len_q = static_cast<int>(a.q.dim(1));
  p.heads_q = static_cast<int>(a.q.dim(2));
  p.dim = static_cast<int>(a.q.dim(3));
  p.len_kv = static_cast<int>(a.k.dim(1));
  p.heads_kv = static_cast<int>(a.k.dim(2));
  p.dim_v = static_cast<int>(a.v.dim(3));
  p.group = p.heads_kv ? p.heads_q / p.heads_kv : 0;
  const auto window = [](int64_t given) {
    return given < 0 ? kUnbounded : static_cast<int>(std::min<int64_t>(given, kUnbounded));
  };
  p.left = window(a.window_left);
  p.right = a.causal ? 0 : window(a.window_right);
  p.mask_block_q = static_cast<int>(std::min<int64_t>(a.mask_block_q, kMostLength));
  p.mask_block_kv = static_cast<int>(std::min<int64_t>(a.mask_block_kv, kMostLength));
  p.mask_reciprocal = ((uint64_t{1} << 48) + static_cast<uint64_t>(p.mask_block_kv) - 1) /
                      static_cast<uint64_t>(std::max(p.mask_block_kv, 1));
  p.scale = a.scale;
  p.softcap = a.softcap;
  p.plain = a.scale > 0 && a.softcap == 0 && !p.bias.data && !p.alibi;
  p.q_wide = aligned(p.q, 16);
  p.k_wide = aligned(p.k, 16);
  p.v_wide = aligned(p.v, 16);
  p.y_pairs = aligned(p.y, 2 * bits(p.y.dtype) / 8);
  p.names = kNames;
  return p;
}

inline int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kMostRows = int64_t{1} << 30;  // of y, over all batches and heads

inline int64_t rows_of(const TensorView& q) { return q.dim(0) * q.dim(1) * q.dim(2); }

// A refusal, in words; `where` is the operator.
inline std::string expected(const char* where, const std::string& what, const std::string& received,
                            const std::string& wanted) {
  return std::string(where) + " cuda: " + what + " is " + received + ", expected " + wanted;
}

constexpr DType kAnyFloat = DType::i4;  // f32, f16 or bf16

struct CheckedTensor {
  const char* name;
  const TensorView& view;
  DType dtype;
};

// The device, or a tensor, that none of an operator's kernels takes; empty where there is none.
inline std::string refused_tensor(const char* where, const kw_device_info& device,
                                  std::span<const CheckedTensor> tensors) {
  const auto text = [](int64_t value) { return std::to_string(value); };
  if (device.cc_major < 8)
    return expected(where, "compute capability", text(device.cc_major) + "." + text(device.cc_minor), "at least 8.0");
  const auto floating = [](DType t) { return t == DType::f32 || t == DType::f16 || t == DType::bf16; };
  for (const CheckedTensor& t : tensors) {
    if (!t.view.present()) continue;
    const bool any = t.dtype == kAnyFloat;
    if (any ? !floating(t.view.dtype) : t.view.dtype != t.dtype)
      return expected(where, std::string("dtype of ") + t.name, name(t.view.dtype),
                      any ? "f32, f16 or bf16" : name(t.dtype));
    if (t.view.dim(-1) > 1 && t.view.step(-1) != 1)
      return expected(where, std::string("the last stride of ") + t.name, text(t.view.step(-1)), "1");
  }
  return "";
}

// As refused_tensor, with the sizes of `forward`.
inline std::string refused_by_all(const char* where, const kw_device_info& device,
                                  std::span<const CheckedTensor> tensors, const AttentionGqaArgs& forward) {
  const std::string reason = refused_tensor(where, device, tensors);
  if (!reason.empty()) return reason;
  const auto text = [](int64_t value) { return std::to_string(value); };
  for (const auto& [what, value] : {std::pair{"dim", forward.q.dim(3)}, {"dim_v", forward.v.dim(3)}})
    if (value < 1 || value > 256)
      return expected(where, what, text(value), "1 to 256 (compiled: 32, 64, 96, 128, 192, 256)");
  for (const auto& [what, value] : {std::pair{"len_q", forward.q.dim(1)}, {"len_kv", forward.k.dim(1)}})
    if (value > kMostLength) return expected(where, what, text(value), "at most " + text(kMostLength));
  const int64_t rows = rows_of(forward.q);
  if (rows > kMostRows) return expected(where, "batch len_q heads_q", text(rows), "at most " + text(kMostRows));
  return "";
}

}  // namespace kw::attention_gqa_cuda
