// What the plans of attention and of its gradients on the CPU share: where elements lie, the rows of a panel, and which keys a
// mask hides from all of them.
#pragma once
#include <algorithm>
#include <cstdint>

#include "attention_gqa_cpu.h"
#include "attention_gqa_shape.h"

namespace kw::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
inline int64_t element_bytes(DType t) { return bits(t) / 8; }

// Element 0 of (a, b, c) in a tensor of four dimensions, any of which repeats when it is 1.
inline char* at(const TensorView& t, int64_t a, int64_t b, int64_t c) {
  const auto step = [&t](int dimension, int64_t i) { return t.shape[dimension] > 1 ? i * t.stride[dimension] : 0; };
  return static_cast<char*>(t.data) + (step(0, a) + step(1, b) + step(2, c)) * element_bytes(t.dtype);
}

inline AttentionScoring scoring_of(const AttentionGqaArgs& args) {
  return {.scale = args.scale,
          .softcap = args.softcap,
          .alibi = args.alibi.present(),
          .bias = args.bias.present(),
          .mask = args.mask.present(),
          .bias_dtype = args.bias.dtype,
          .mask_block = args.mask_block_kv};
}

// Rows row .. row + count - 1 of a key head of a sequence, numbered query by query.
inline void set_rows(AttentionRows& rows, const AttentionGqaArgs& args, const AttentionShape& shape,
                     const AttentionSequence& s, int64_t head, int64_t row, int64_t count) {
  rows.count = static_cast<int>(count);
  rows.fresh = true;
  for (int64_t lane = 0; lane < AttentionRows::kMost; ++lane) {
    rows.begin[lane] = rows.end[lane] = 0;
    rows.place[lane] = rows.slope[lane] = rows.max[lane] = rows.sum[lane] = 0;
    if (lane >= count) continue;
    const int64_t i = (row + lane) / shape.group, h = head * shape.group + (row + lane) % shape.group;
    const AttentionRange range = attention_range(args, s, i);
    rows.begin[lane] = static_cast<int32_t>(std::clamp<int64_t>(range.begin, 0, s.len_kv));
    rows.end[lane] = static_cast<int32_t>(std::clamp<int64_t>(range.end, 0, s.len_kv));
    rows.place[lane] = static_cast<float>(i + s.len_kv - s.len_q);
    if (args.alibi.present()) rows.slope[lane] = static_cast<const float*>(args.alibi.data)[h * args.alibi.stride[0]];
    if (args.bias.present()) rows.bias[lane] = at(args.bias, s.batch, h, i);
    if (args.mask.present()) {
      rows.mask[lane] = reinterpret_cast<const uint8_t*>(at(args.mask, s.batch, h, i / args.mask_block_q));
    }
  }
}

// Whether the mask hides keys begin .. end - 1 from all rows.
inline bool masked_out(const AttentionScoring& scoring, const AttentionRows& rows, int64_t begin, int64_t end) {
  if (!scoring.mask) return false;
  const int64_t first = begin / scoring.mask_block, last = (end - 1) / scoring.mask_block;
  for (int r = 0; r < rows.count; ++r) {
    const uint8_t* mask = rows.mask[r];
    if (r > 0 && mask == rows.mask[r - 1]) continue;
    if (std::any_of(mask + first, mask + last + 1, [](uint8_t m) { return m != 0; })) return false;
  }
  return true;
}

}  // namespace kw::cpu
