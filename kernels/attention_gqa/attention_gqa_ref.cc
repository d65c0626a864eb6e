// attention_gqa, the definition: plain loops in double precision beside the textbook f32 algorithm. Correct by reading.
#include "attention_gqa_ref.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace kw::ref {
namespace {

constexpr double kEpsilon = kAttentionEpsilon;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A key that a row sees.
struct Score {
  int64_t key = 0;
  double value = 0, error = 0;  // s and e of the contract
  float plain = 0;
};

class Definition {
 public:
  Definition(const AttentionGqaArgs& args, const AttentionStoredScales& stored)
      : args_(args), stored_(stored), scale_(args.scale), shape_(resolve(args)) {
    for (int64_t n = 0; n < shape_.sequences; ++n) sequences_.push_back(attention_sequence(args, shape_, n));
  }

  const AttentionShape& shape() const { return shape_; }

  // Row `row` of q in a batch, for query head `head`: everything but its values.
  void see(int64_t batch, int64_t head, int64_t row) {
    batch_ = batch, head_ = head;
    scores_.clear();
    sequence_ = find(batch, row);
    top_ = lse_ = -kInfinity;
    lse_plain_ = -std::numeric_limits<float>::infinity();
    if (!sequence_) return;
    args_.scale = scale_ * AttentionStoredScales::of(stored_.k, head / shape_.group);
    load_keys();
    const int64_t i = row - sequence_->q0;
    const AttentionRange range = attention_range(args_, *sequence_, i);
    std::vector<float> q(shape_.dim);
    const AttentionRowsOf rows{args_.q};
    for (int64_t e = 0; e < shape_.dim; ++e) q[e] = rows.element(rows.at(batch, row, head), e);
    for (int64_t j = std::max<int64_t>(0, range.begin); j < range.end; ++j) {
      if (attention_masked(args_, batch, head, i, j)) continue;
      const float* k = keys_.data() + j * shape_.dim;
      const AttentionScore s = attention_score(args_, *sequence_, head, i, j, q.data(), k);
      scores_.push_back({j, s.value, s.error, s.plain});
    }
    normalise();
  }

  double lse() const { return lse_; }
  float lse_plain() const { return lse_plain_; }
  double lse_slack() const {
    if (!std::isfinite(lse_)) return 0;
    double slack = 4 * kEpsilon * (std::sqrt(double(scores_.size())) + std::abs(lse_));
    for (size_t n = 0; n < scores_.size(); ++n) slack += weight_[n] > 0 ? weight_[n] * scores_[n].error : 0;
    return slack;
  }

  // The values of the row that was seen last.
  void values(double* value, double* plain, double* slack) const {
    const int64_t columns = shape_.dim_v;
    if (empty()) return;  // zeros, as resize() left them
    const DType type = args_.q.dtype;
    const float stored = AttentionStoredScales::of(stored_.v, head_ / shape_.group);
    std::vector<float> sum(columns);
    for (size_t n = 0; n < scores_.size(); ++n) {
      const float* v = values_.data() + scores_[n].key * columns;
      const float p = rounded(type, plain_[n]);
      for (int64_t c = 0; c < columns; ++c) value[c] += weight_[n] * double{v[c]}, sum[c] += p * v[c];
    }
    std::vector<double> rounding(columns), largest(columns);
    for (size_t n = 0; n < scores_.size(); ++n) {
      const float* v = values_.data() + scores_[n].key * columns;
      const double w = weight_[n], error = w > 0 ? w * scores_[n].error : 0;
      const double r = type == DType::bf16  ? 0x1p-9 * w
                       : type == DType::f16 ? std::max(0x1p-12 * w, 0x1p-25 * std::exp(top_ - lse_))
                                            : 0;
      for (int64_t c = 0; c < columns; ++c) {
        slack[c] += error * std::abs(double{v[c]} - value[c]);
        rounding[c] += r * v[c] * (r * v[c]);
        largest[c] = std::max(largest[c], std::abs(double{v[c]}));
      }
    }
    for (int64_t c = 0; c < columns; ++c) {
      plain[c] = rounded(args_.y.dtype, stored * (sum[c] / sum_plain_));
      slack[c] += 4 * kEpsilon * std::sqrt(double(scores_.size())) * largest[c] + 4 * std::sqrt(rounding[c]);
      if (type == DType::bf16) slack[c] += 0x1p-125;
      value[c] *= double{stored}, slack[c] *= std::abs(double{stored});
    }
  }

 private:
  bool empty() const { return top_ == -kInfinity; }

  // The sequence that a row of q belongs to and is within the length of, or null.
  const AttentionSequence* find(int64_t batch, int64_t row) const {
    for (const AttentionSequence& s : sequences_) {
      if (s.batch == batch && row >= s.q0 && row < s.q0 + s.len_q) return &s;
    }
    return nullptr;
  }

  // The sequence's keys and values of the head's group, as f32.
  void load_keys() {
    const int64_t group = head_ / shape_.group;
    if (loaded_ == sequence_ && loaded_group_ == group) return;
    loaded_ = sequence_, loaded_group_ = group;
    keys_.resize(sequence_->len_kv * shape_.dim), values_.resize(sequence_->len_kv * shape_.dim_v);
    const AttentionRowsOf k{args_.k}, v{args_.v};
    for (int64_t j = 0; j < sequence_->len_kv; ++j) {
      const int64_t from_k = k.at(batch_, sequence_->kv0 + j, group), from_v = v.at(batch_, sequence_->kv0 + j, group);
      for (int64_t e = 0; e < shape_.dim; ++e) keys_[j * shape_.dim + e] = k.element(from_k, e);
      for (int64_t e = 0; e < shape_.dim_v; ++e) values_[j * shape_.dim_v + e] = v.element(from_v, e);
    }
  }

  // Scores to weights, and their sum to lse, in double and as the textbook does it.
  void normalise() {
    const float none = -std::numeric_limits<float>::infinity();
    float top_plain = none;
    for (const Score& s : scores_) top_ = larger(top_, s.value), top_plain = larger(top_plain, s.plain);
    double sum = 0;
    sum_plain_ = 0;
    weight_.resize(scores_.size()), plain_.resize(scores_.size());
    for (size_t n = 0; n < scores_.size(); ++n) {
      scores_[n].error += std::isfinite(scores_[n].value) ? 4 * kEpsilon * std::abs(scores_[n].value - top_) : 0;
      if (!empty()) sum += weight_[n] = std::exp(scores_[n].value - top_);
      if (top_plain != none) sum_plain_ += plain_[n] = std::exp(scores_[n].plain - top_plain);
    }
    lse_ = empty() ? -kInfinity : top_ + std::log(sum);
    lse_plain_ = top_plain == none ? none : top_plain + std::log(sum_plain_);
    if (args_.sink.present()) {
      const float sink = load_f32(args_.sink.data, args_.sink.dtype, head_ * args_.sink.stride[0]);
      lse_ = join(lse_, double{sink});
      if (!empty()) sum += std::exp(sink - top_), sum_plain_ += std::exp(sink - top_plain);
      lse_plain_ = join(lse_plain_, sink);
    }
    // Not by lse, whose logarithm is never exact: equal scores of 2^n keys give 2^-n.
    for (double& w : weight_) w = empty() ? 0 : w / sum;
  }

  // Keeps NaN.
  template <class T>
  static T larger(T a, T b) {
    return b > a || std::isnan(b) ? b : a;
  }

  // ln(exp(a) + exp(b))
  template <class T>
  static T join(T a, T b) {
    const T high = larger(a, b), low = b > a ? a : b;
    return std::isfinite(high) && std::isfinite(low) ? high + std::log1p(std::exp(low - high)) : high;
  }

  AttentionGqaArgs args_;  // with the scale of the head that is seen
  const AttentionStoredScales stored_;
  const float scale_;
  const AttentionShape shape_;
  std::vector<AttentionSequence> sequences_;
  int64_t batch_ = 0, head_ = 0;
  const AttentionSequence* sequence_ = nullptr;
  const AttentionSequence* loaded_ = nullptr;
  int64_t loaded_group_ = -1;
  std::vector<float> keys_, values_;
  std::vector<Score> scores_;
  std::vector<double> weight_;  // exp(s - lse)
  std::vector<float> plain_;    // exp(s - max s), before it is rounded
  float sum_plain_ = 0;
  double top_ = 0;  // the highest score
  double lse_ = 0;
  float lse_plain_ = 0;
};

}  // namespace

void attention_gqa(const AttentionGqaArgs& args, const AttentionStoredScales& stored, const RowList& rows,
                   ReferenceOutputs& out) {
  Definition d(args, stored);
  const AttentionShape& s = d.shape();
  out.resize(2);
  ReferenceOutput &y = out[0], &lse = out[1];
  y.resize(rows.count(s.batch * s.len_q * s.heads_q), s.dim_v);
  const auto put = [&](int64_t row, int64_t at) {
    const int64_t begin = row * s.dim_v;
    d.values(y.value.data() + begin, y.plain.data() + begin, y.slack.data() + begin);
    lse.value[at] = d.lse(), lse.plain[at] = double{d.lse_plain()}, lse.slack[at] = d.lse_slack();
  };
  if (rows.every) {
    lse.resize(s.batch * s.heads_q, s.len_q);
    for (int64_t b = 0; b < s.batch; ++b) {
      for (int64_t h = 0; h < s.heads_q; ++h) {
        for (int64_t i = 0; i < s.len_q; ++i) {
          d.see(b, h, i);
          put((b * s.len_q + i) * s.heads_q + h, (b * s.heads_q + h) * s.len_q + i);
        }
      }
    }
    return;
  }
  // A row of y goes with one element of lse.
  lse.resize(rows.size, 1), lse.element.resize(rows.size);
  for (int64_t n = 0; n < rows.size; ++n) {
    const int64_t h = rows.index[n] % s.heads_q, i = rows.index[n] / s.heads_q % s.len_q;
    const int64_t b = rows.index[n] / s.heads_q / s.len_q;
    d.see(b, h, i);
    put(n, n);
    lse.element[n] = (b * s.heads_q + h) * s.len_q + i;
  }
}

void attention_gqa(const AttentionGqaArgs& args, const RowList& rows, ReferenceOutputs& out) {
  attention_gqa(args, {}, rows, out);
}

}  // namespace kw::ref
