// What the CPU's kernels of attention, forward and backward, need of a problem's tensors beyond what the declaration promises.
#pragma once
#include <limits>
#include <span>
#include <string>

#include "../core/numeric.h"
#include "../core/tensor.h"

namespace kw::cpu {

struct CheckedTensor {
  enum Kind { like_q, like_q_or_f8, floats, f32, flags };
  const char* name;
  const TensorView& view;
  Kind kind;
};

// Why they cannot be used; empty: they can. `where` is the operator that asks, `dtype` that of q.
inline std::string declines_tensors(const std::string& where, std::span<const CheckedTensor> tensors, DType dtype) {
  for (const auto& [name, t, kind] : tensors) {
    if (!t.present()) continue;
    const bool f8 = kind == CheckedTensor::like_q_or_f8;
    const bool right = kind == CheckedTensor::flags          ? t.dtype == DType::u8
                       : kind == CheckedTensor::f32          ? t.dtype == DType::f32
                       : kind == CheckedTensor::like_q || f8 ? t.dtype == dtype || (f8 && t.dtype == DType::f8e4m3)
                                                             : is_float(t.dtype);
    if (!right) {
      return where + ": " + name + " is " + kw::name(t.dtype) + ", expected " +
             (kind == CheckedTensor::flags    ? "u8"
              : kind == CheckedTensor::f32    ? "f32"
              : kind == CheckedTensor::like_q ? std::string(kw::name(dtype)) + " as q"
              : f8                            ? std::string(kw::name(dtype)) + " as q, or f8e4m3"
                                              : "f32, f16 or bf16");
    }
    if (t.rank > 1 && t.dim(-1) > 1 && t.step(-1) != 1)
      return where + ": last dimension of " + name + " has stride " + std::to_string(t.step(-1)) + ", expected 1";
  }
  return "";
}

// Keys have numbers of 32 bits, the tile after the last one too.
inline std::string declines_length(const std::string& where, const char* keys, int64_t length, int64_t tile) {
  if (length <= std::numeric_limits<int32_t>::max() - tile) return "";
  return where + ": " + keys + " has " + std::to_string(length) + " keys, expected fewer than 2^31 - " +
         std::to_string(tile);
}

}  // namespace kw::cpu
