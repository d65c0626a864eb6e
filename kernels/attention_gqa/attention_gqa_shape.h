// AttentionGqaArgs resolved: sizes, and where each sequence lies and how long it is. Host only: it reads the lengths.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

#include "../core/error.h"
#include "attention_gqa.h"

namespace kw {

struct AttentionShape {
  int64_t batch = 0, len_q = 0, len_kv = 0, heads_q = 0, heads_kv = 0, dim = 0, dim_v = 0;
  int64_t group = 1;      // query heads per key/value head
  bool packed = false;    // by cu_q and cu_kv
  int64_t sequences = 0;  // batch, unless packed
};

// Rows q0 .. q0 + len_q of q and keys kv0 .. kv0 + len_kv, of one batch.
struct AttentionSequence {
  int64_t batch = 0, q0 = 0, len_q = 0, kv0 = 0, len_kv = 0;
};

// Keys begin .. end - 1, as far as no mask says otherwise.
struct AttentionRange {
  int64_t begin = 0, end = 0;
};

// What scores and sums of values of a key head are to be multiplied by, where keys and values are stored divided by it: [heads_kv] each,
// or absent.
struct AttentionStoredScales {
  TensorView k, v;
  static float of(const TensorView& scales, int64_t head) {
    return scales.present() ? static_cast<const float*>(scales.data)[head * scales.stride[0]] : 1;
  }
};

inline AttentionShape resolve(const AttentionGqaArgs& a) {
  AttentionShape s;
  s.batch = a.q.shape[0], s.len_q = a.q.shape[1], s.heads_q = a.q.shape[2], s.dim = a.q.shape[3];
  s.len_kv = a.k.shape[1], s.heads_kv = a.k.shape[2], s.dim_v = a.v.shape[3];
  s.group = s.heads_kv > 0 ? s.heads_q / s.heads_kv : 0;
  s.packed = a.cu_q.present();
  s.sequences = s.packed ? std::max<int64_t>(0, a.cu_q.shape[0] - 1) : s.batch;
  return s;
}

// Element i of a one-dimensional i32 tensor, which has to be from low to high; `where` is the operator that asks.
inline int64_t attention_length(const char* where, const TensorView& t, const char* name, int64_t i, int64_t low,
                                int64_t high) {
  const int64_t value = static_cast<const int32_t*>(t.data)[i * t.stride[0]];
  if (value < low || value > high) {
    throw Error(Code::INDEX, std::string(where) + ": " + name + "[" + std::to_string(i) + "] is " +
                                 std::to_string(value) + ", expected " + std::to_string(low) + " to " +
                                 std::to_string(high));
  }
  return value;
}

// Sequence n, with its lengths checked.
inline AttentionSequence attention_sequence(const AttentionGqaArgs& a, const AttentionShape& s, int64_t n,
                                            const char* where = "attention_gqa") {
  const auto length = [&](const TensorView& t, const char* name, int64_t i, int64_t low, int64_t high) {
    return attention_length(where, t, name, i, low, high);
  };
  if (!s.packed) {
    const int64_t len_q = a.lens_q.present() ? length(a.lens_q, "lens_q", n, 0, s.len_q) : s.len_q;
    const int64_t len_kv = a.lens_kv.present() ? length(a.lens_kv, "lens_kv", n, 0, s.len_kv) : s.len_kv;
    return {n, 0, len_q, 0, len_kv};
  }
  const int64_t q0 = length(a.cu_q, "cu_q", n, 0, s.len_q);
  const int64_t q1 = length(a.cu_q, "cu_q", n + 1, q0, s.len_q);
  const int64_t kv0 = length(a.cu_kv, "cu_kv", n, 0, s.len_kv);
  const int64_t kv1 = length(a.cu_kv, "cu_kv", n + 1, kv0, s.len_kv);
  return {0, q0, q1 - q0, kv0, kv1 - kv0};
}

// The keys that row i of a sequence may see.
inline AttentionRange attention_range(const AttentionGqaArgs& a, const AttentionSequence& q, int64_t i) {
  const int64_t place = i + q.len_kv - q.len_q;
  AttentionRange r{0, q.len_kv};
  if (a.causal) r.end = std::min(r.end, place + 1);
  if (a.window_left >= 0) r.begin = std::max(r.begin, place - a.window_left);
  if (a.window_right >= 0) r.end = std::min(r.end, place + a.window_right + 1);
  return r;
}

}  // namespace kw
