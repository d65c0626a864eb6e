// What the definitions of attention and of its gradients say alike: elements of operands that broadcast, and a score.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../core/numeric.h"
#include "attention_gqa_shape.h"

namespace kw::ref {

// The definition where keys and values are stored with scales.
void attention_gqa(const AttentionGqaArgs&, const AttentionStoredScales&, const RowList& rows, ReferenceOutputs& out);

inline constexpr double kAttentionEpsilon = 0x1p-24;  // u of the contracts

// Row (a, b, c) of a tensor of four dimensions whose first may be 1.
struct AttentionRowsOf {
  const TensorView& view;
  int64_t at(int64_t a, int64_t b, int64_t c) const {
    return (view.shape[0] > 1 ? a * view.stride[0] : 0) + b * view.stride[1] + c * view.stride[2];
  }
  float element(int64_t row, int64_t i) const { return load_f32(view.data, view.dtype, row + i * view.stride[3]); }
};

// As AttentionRowsOf, for [batch, heads, rows, columns] with a batch and heads that may be 1.
struct AttentionPlane {
  const TensorView& view;
  float element(int64_t batch, int64_t head, int64_t row, int64_t column) const {
    const int64_t outer =
        (view.shape[0] > 1 ? batch * view.stride[0] : 0) + (view.shape[1] > 1 ? head * view.stride[1] : 0);
    return load_f32(view.data, view.dtype, outer + row * view.stride[2] + column * view.stride[3]);
  }
};

inline bool attention_masked(const AttentionGqaArgs& a, int64_t batch, int64_t head, int64_t i, int64_t j) {
  return a.mask.present() && AttentionPlane{a.mask}.element(batch, head, i / a.mask_block_q, j / a.mask_block_kv) == 0;
}

// s and e of the contract; t is s without bias and alibi. The plain ones as the textbook has them, in f32.
struct AttentionScore {
  double value = 0, error = 0, t = 0;
  float plain = 0, plain_t = 0;
};

// Of row i of q and key j of a sequence, for query head `head`; q and k as f32.
inline AttentionScore attention_score(const AttentionGqaArgs& a, const AttentionSequence& sequence, int64_t head,
                                      int64_t i, int64_t j, const float* q, const float* k) {
  const int64_t dim = a.q.shape[3];
  const double scale = double{a.scale}, cap = double{a.softcap};
  double sum = 0, largest = 0, largest_q = 0, largest_k = 0;
  float plain = 0;
  for (int64_t e = 0; e < dim; ++e) {
    const double product = double{q[e]} * double{k[e]};
    sum += product, plain += q[e] * k[e];
    largest = std::max(largest, std::abs(product));
    largest_q = std::max(largest_q, std::abs(double{q[e]})), largest_k = std::max(largest_k, std::abs(double{k[e]}));
  }
  double t = scale * sum, error = std::sqrt(double(dim)) * std::abs(scale) * largest + 1;
  plain *= a.scale;
  if (cap != 0) t = cap * std::tanh(t / cap), plain = a.softcap * std::tanh(plain / a.softcap);
  AttentionScore s{.t = t, .plain_t = plain};
  error += std::abs(t);
  if (a.bias.present()) {
    const float bias = AttentionPlane{a.bias}.element(sequence.batch, head, i, j);
    t += double{bias}, plain += bias;
    if (std::isfinite(bias)) error += std::abs(double{bias});
  }
  if (a.alibi.present()) {
    const int64_t distance = std::abs(i + sequence.len_kv - sequence.len_q - j);
    const float slope = load_f32(a.alibi.data, a.alibi.dtype, head * a.alibi.stride[0]);
    t -= double{slope} * double(distance), plain -= slope * static_cast<float>(distance);
    error += std::abs(double{slope} * double(distance));
  }
  error *= 4 * kAttentionEpsilon;
  if (a.q.dtype == DType::bf16) error += double(dim) * std::abs(scale) * 0x1p-126 * (1 + largest_q + largest_k);
  s.value = t, s.error = error, s.plain = plain;
  return s;
}

}  // namespace kw::ref
