// AttentionGqaPagedArgs on the host: the lengths that count, what is out of range, and attention_gqa's arguments for the rest.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "../attention_gqa/attention_gqa.h"
#include "attention_gqa_paged.h"

namespace kw {

// Everything of attention_gqa's arguments but where keys and values lie, and the lengths.
inline AttentionGqaArgs attention_without_keys(const AttentionGqaPagedArgs& a) {
  AttentionGqaArgs to;
  to.q = a.q;
  to.sink = a.sink;
  to.y = a.y;
  to.lse = a.lse;
  to.scale = a.scale;
  to.softcap = a.softcap;
  to.causal = a.causal;
  to.window_left = a.window_left;
  to.batch_invariant = a.batch_invariant;
  return to;
}

// The arguments of attention_gqa, with keys and values as long as a table reaches, at the strides within a page.
inline AttentionGqaArgs with_capacity(const AttentionGqaPagedArgs& args) {
  AttentionGqaArgs to = attention_without_keys(args);
  static_cast<TensorView&>(to.k) = args.k_cache;
  static_cast<TensorView&>(to.v) = args.v_cache;
  for (TensorView* view : {static_cast<TensorView*>(&to.k), static_cast<TensorView*>(&to.v)}) {
    view->shape[0] = args.q.shape[0];
    view->shape[1] = args.page_table.shape[1] * args.k_cache.shape[1];
  }
  to.lens_q = args.lens_q;
  return to;
}

// A one-dimensional view of numbers without gaps.
inline OptionalConstTensor view_of(const std::vector<int32_t>& numbers) {
  OptionalConstTensor v;
  v.data = const_cast<int32_t*>(numbers.data());
  v.dtype = DType::i32;
  v.rank = 1;
  v.shape[0] = static_cast<int64_t>(numbers.size());
  v.stride[0] = 1;
  return v;
}

// The lengths as they count, and what the first value out of range is.
struct AttentionPagedLengths {
  std::vector<int32_t> q, kv;
  std::string wrong;  // of the contract's INDEX; empty: nothing

  // where: the operator that asks.
  AttentionPagedLengths(const char* where, const AttentionGqaPagedArgs& a) {
    const int64_t batch = a.q.shape[0], size = a.k_cache.shape[1];
    const auto read = [&](const TensorView& t, int64_t at) { return static_cast<const int32_t*>(t.data)[at]; };
    const auto note = [&](const std::string& what, int64_t value, int64_t high) {
      if (wrong.empty() && (value < 0 || value > high)) {
        wrong = std::string(where) + ": " + what + " is " + std::to_string(value) + ", expected 0 to " +
                std::to_string(high);
      }
    };
    const auto clamped = [&](const TensorView& t, const char* name, int64_t b, int64_t high) {
      const int64_t value = read(t, b * t.stride[0]);
      note(std::string(name) + "[" + std::to_string(b) + "]", value, high);
      return static_cast<int32_t>(std::clamp<int64_t>(value, 0, high));
    };
    for (int64_t b = 0; b < batch; ++b) {
      kv.push_back(clamped(a.lens_kv, "lens_kv", b, a.page_table.shape[1] * size));
      q.push_back(a.lens_q.present() ? clamped(a.lens_q, "lens_q", b, a.q.shape[1])
                                     : static_cast<int32_t>(a.q.shape[1]));
    }
    for (int64_t b = 0; b < batch; ++b) {
      if (q[b] == 0 || kv[b] == 0) continue;
      // The first key that some row sees.
      const int64_t first = a.window_left < 0 ? 0 : std::max<int64_t>(0, kv[b] - q[b] - a.window_left);
      for (int64_t p = first / size; p * size < kv[b]; ++p) {
        const int64_t page = read(a.page_table, b * a.page_table.stride[0] + p * a.page_table.stride[1]);
        if (page >= 0 && page < a.k_cache.shape[0]) continue;
        note("page_table[" + std::to_string(b) + ", " + std::to_string(p) + "]", page, a.k_cache.shape[0] - 1);
      }
    }
  }
};

}  // namespace kw
