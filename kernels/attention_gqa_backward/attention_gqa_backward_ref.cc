// attention_gqa_backward, the definition: every element of every gradient as a sum of its own, in double precision, beside the
// textbook f32 algorithm with its rounding points. Correct by reading.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../attention_gqa/attention_gqa_ref.h"
#include "attention_gqa_backward.h"

namespace kw::ref {
namespace {

constexpr double kU = kAttentionEpsilon;
constexpr double kFlushed = 0x1p-125;  // what a backend may take for 0

// P, S and T of a pair, with the bounds of their errors, and as the textbook has them.
struct Pair {
  struct Weight {
    double value = 0, error = 0;
    float plain = 0;
  };
  Weight p, s, t;
};

// D and lse of a row of q.
struct RowFacts {
  double d = 0, error = 0, lse = 0;
  float plain = 0;
};

// The sum of weights times rows of numbers: a row of an output.
class RowSum {
 public:
  explicit RowSum(int64_t columns) : sums_(columns) {}

  // `rounding`: the dtype that weights are rounded to first.
  void add(const Pair::Weight& w, const float* x, DType rounding) {
    const double r = rounding == DType::bf16  ? 0x1p-9 * std::abs(w.value)
                     : rounding == DType::f16 ? std::max(0x1p-12 * std::abs(w.value), 0x1p-25)
                                              : 0;
    const float plain = rounded(rounding, w.plain);
    for (size_t c = 0; c < sums_.size(); ++c) {
      const double v = double{x[c]}, term = w.value * v;
      Sum& s = sums_[c];
      s.value += term, s.plain += plain * x[c], s.error += w.error * std::abs(v) + (v != 0 ? kFlushed : 0);
      s.largest = std::max(s.largest, std::abs(term)), s.rounding += r * v * (r * v);
    }
    ++terms_;
  }

  // Row `row` of out, all columns times `factor`; with `transposed`, one row for each column.
  void store(ReferenceOutput& out, int64_t row, float factor, DType dtype) const {
    for (size_t c = 0; c < sums_.size(); ++c) {
      const Sum& s = sums_[c];
      const int64_t at = row * static_cast<int64_t>(sums_.size()) + static_cast<int64_t>(c);
      out.value[at] = double{factor} * s.value;
      out.plain[at] = double{rounded(dtype, factor * s.plain)};
      out.slack[at] = std::abs(double{factor}) *
                      (4 * kU * std::sqrt(double(terms_)) * s.largest + s.error + 4 * std::sqrt(s.rounding));
    }
  }

 private:
  struct Sum {
    double value = 0, error = 0, largest = 0, rounding = 0;
    float plain = 0;
  };
  std::vector<Sum> sums_;
  int64_t terms_ = 0;
};

class Definition {
 public:
  explicit Definition(const AttentionGqaBackwardArgs& args)
      : args_(args),
        forward_(forward_of(args)),
        shape_(resolve(forward_)),
        q_(dense(args.q)),
        k_(dense(args.k)),
        v_(dense(args.v)),
        dy_(dense(args.dy)),
        facts_(shape_.batch * shape_.heads_q * shape_.len_q) {
    for (int64_t n = 0; n < shape_.sequences; ++n) {
      sequences_.push_back(attention_sequence(forward_, shape_, n, "attention_gqa_backward"));
      const AttentionSequence& s = sequences_.back();
      for (int64_t h = 0; h < shape_.heads_q; ++h) {
        for (int64_t i = s.q0; i < s.q0 + s.len_q; ++i) facts_[fact(s.batch, h, i)] = facts_of(s.batch, h, i);
      }
    }
  }

  const AttentionShape& shape() const { return shape_; }

  RowSum dq(int64_t batch, int64_t row, int64_t head) const {
    RowSum sum(shape_.dim);
    for (const AttentionSequence& s : sequences_) {
      if (s.batch != batch || row < s.q0 || row >= s.q0 + s.len_q) continue;
      for (int64_t j = 0; j < s.len_kv; ++j) {
        if (!visible(s, head, row - s.q0, j)) continue;
        sum.add(pair(s, head, row - s.q0, j).t, key(k_, shape_.dim, s, j, head / shape_.group), args_.q.dtype);
      }
    }
    return sum;
  }

  void keys(int64_t batch, int64_t row, int64_t group, RowSum& dk, RowSum& dv) const {
    for (const AttentionSequence& s : sequences_) {
      if (s.batch != batch || row < s.kv0 || row >= s.kv0 + s.len_kv) continue;
      for (int64_t i = 0; i < s.len_q; ++i) {
        for (int64_t h = group * shape_.group; h < (group + 1) * shape_.group; ++h) {
          if (!visible(s, h, i, row - s.kv0)) continue;
          const Pair p = pair(s, h, i, row - s.kv0);
          dk.add(p.t, query(q_, shape_.dim, s, i, h), args_.q.dtype);
          dv.add(p.p, query(dy_, shape_.dim_v, s, i, h), args_.q.dtype);
        }
      }
    }
  }

  RowSum dbias(int64_t batch, int64_t head, int64_t i, int64_t j) const {
    RowSum sum(1);
    constexpr float one = 1;
    for (const AttentionSequence& s : sequences_) {
      if ((args_.bias.shape[0] > 1 && s.batch != batch) || i >= s.len_q || j >= s.len_kv) continue;
      for (int64_t h = 0; h < shape_.heads_q; ++h) {
        if ((args_.bias.shape[1] > 1 && h != head) || !visible(s, h, i, j)) continue;
        sum.add(pair(s, h, i, j).s, &one, DType::f32);
      }
    }
    return sum;
  }

  RowSum dsink(int64_t head) const {
    RowSum sum(1);
    const float logit = load_f32(args_.sink.data, args_.sink.dtype, head * args_.sink.stride[0]);
    for (const AttentionSequence& s : sequences_) {
      for (int64_t i = s.q0; i < s.q0 + s.len_q; ++i) {
        const RowFacts& row = facts_[fact(s.batch, head, i)];
        const double away = std::min(double{logit} - row.lse, 0.0), w = std::exp(away);
        const float plain = std::exp(std::min(logit - static_cast<float>(row.lse), 0.0f));
        const double off = w > 0 ? w * 4 * kU * (1 - away) : 0;
        const float d = static_cast<float>(row.plain);
        const Pair::Weight weight{w * row.d, off * std::abs(row.d) + w * row.error, plain * d};
        constexpr float minus = -1;
        sum.add(weight, &minus, DType::f32);
      }
    }
    return sum;
  }

 private:
  // All elements as f32, row by row.
  static std::vector<float> dense(const TensorView& t) {
    std::vector<float> values;
    values.reserve(t.count());
    const AttentionRowsOf rows{t};
    for (int64_t a = 0; a < t.shape[0]; ++a) {
      for (int64_t b = 0; b < t.shape[1]; ++b) {
        for (int64_t c = 0; c < t.shape[2]; ++c) {
          for (int64_t e = 0; e < t.shape[3]; ++e) values.push_back(rows.element(rows.at(a, b, c), e));
        }
      }
    }
    return values;
  }

  int64_t fact(int64_t batch, int64_t head, int64_t row) const {
    return (batch * shape_.heads_q + head) * shape_.len_q + row;
  }
  const float* query(const std::vector<float>& of, int64_t columns, const AttentionSequence& s, int64_t i,
                     int64_t head) const {
    return of.data() + ((s.batch * shape_.len_q + s.q0 + i) * shape_.heads_q + head) * columns;
  }
  const float* key(const std::vector<float>& of, int64_t columns, const AttentionSequence& s, int64_t j,
                   int64_t group) const {
    return of.data() + ((s.batch * shape_.len_kv + s.kv0 + j) * shape_.heads_kv + group) * columns;
  }
  static float at(const TensorView& t, int64_t batch, int64_t head, int64_t row) {
    return static_cast<const float*>(t.data)[batch * t.stride[0] + head * t.stride[1] + row * t.stride[2]];
  }

  RowFacts facts_of(int64_t batch, int64_t head, int64_t row) const {
    const AttentionRowsOf y{args_.y};
    const float* dy = dy_.data() + ((batch * shape_.len_q + row) * shape_.heads_q + head) * shape_.dim_v;
    RowFacts f;
    double largest = 0;
    for (int64_t e = 0; e < shape_.dim_v; ++e) {
      const float value = y.element(y.at(batch, row, head), e);
      const double product = double{value} * double{dy[e]};
      f.d += product, f.plain += value * dy[e], largest = std::max(largest, std::abs(product));
    }
    f.error = std::sqrt(double(shape_.dim_v)) * largest;
    if (args_.dlse.present()) {
      const float dlse = at(args_.dlse, batch, head, row);
      f.d -= double{dlse}, f.plain -= dlse, f.error += std::abs(double{dlse});
    }
    f.error = 4 * kU * (f.error + std::abs(f.d));
    f.lse = double{at(args_.lse, batch, head, row)};
    // A row that saw nothing: every exponential below is 0.
    if (f.lse == -std::numeric_limits<double>::infinity()) f.lse = std::numeric_limits<double>::infinity();
    return f;
  }

  bool visible(const AttentionSequence& s, int64_t head, int64_t i, int64_t j) const {
    const AttentionRange range = attention_range(forward_, s, i);
    return j >= range.begin && j < range.end && !attention_masked(forward_, s.batch, head, i, j);
  }

  Pair pair(const AttentionSequence& s, int64_t head, int64_t i, int64_t j) const {
    const int64_t group = head / shape_.group;
    const RowFacts& row = facts_[fact(s.batch, head, s.q0 + i)];
    const AttentionScore score =
        attention_score(forward_, s, head, i, j, query(q_, shape_.dim, s, i, head), key(k_, shape_.dim, s, j, group));
    const float* dy = query(dy_, shape_.dim_v, s, i, head);
    const float* v = key(v_, shape_.dim_v, s, j, group);
    double product = 0, largest = 0, largest_dy = 0, largest_v = 0;
    float product_plain = 0;
    for (int64_t e = 0; e < shape_.dim_v; ++e) {
      const double term = double{dy[e]} * double{v[e]};
      product += term, product_plain += dy[e] * v[e], largest = std::max(largest, std::abs(term));
      largest_dy = std::max(largest_dy, std::abs(double{dy[e]}));
      largest_v = std::max(largest_v, std::abs(double{v[e]}));
    }
    double a = 4 * kU * std::sqrt(double(shape_.dim_v)) * largest + row.error;
    if (args_.q.dtype == DType::bf16) a += double(shape_.dim_v) * 0x1p-126 * (1 + largest_dy + largest_v);

    const double away = std::min(score.value - row.lse, 0.0), from_d = product - row.d;
    Pair out;
    out.p.value = std::exp(away);
    out.p.error = kFlushed + (out.p.value > 0 ? out.p.value * (score.error + 4 * kU * (1 - away)) : 0);
    out.p.plain = std::exp(std::min(score.plain - static_cast<float>(row.lse), 0.0f));
    out.s.value = out.p.value * from_d;
    out.s.error = out.p.error * std::abs(from_d) + out.p.value * a + 4 * kU * std::abs(out.s.value) + kFlushed;
    out.s.plain = out.p.plain * (product_plain - row.plain);
    out.t = out.s;
    if (args_.softcap != 0) {
      const double share = score.t / double{args_.softcap}, slope = 1 - share * share;
      const float share_plain = score.plain_t / args_.softcap;
      out.t.value *= slope, out.t.plain *= 1 - share_plain * share_plain;
      out.t.error = out.s.error + std::abs(out.s.value) * (8 * kU + 2 * score.error / double{args_.softcap});
    }
    return out;
  }

  const AttentionGqaBackwardArgs& args_;
  const AttentionGqaArgs forward_;
  const AttentionShape shape_;
  std::vector<float> q_, k_, v_, dy_;
  std::vector<RowFacts> facts_;
  std::vector<AttentionSequence> sequences_;
};

}  // namespace

void attention_gqa_backward(const AttentionGqaBackwardArgs& args, const RowList& rows, ReferenceOutputs& out) {
  const Definition d(args);
  const AttentionShape& s = d.shape();
  out.resize(5);
  // For a list, beside each row of dq: the rows of dk and dv of a key, and an element of dbias and dsink, that its number picks.
  const int64_t queries = rows.count(s.batch * s.len_q * s.heads_q), all_keys = s.batch * s.len_kv * s.heads_kv;
  const int64_t biases = args.dbias.count(), sinks = args.dsink.count();
  const auto picked = [&](int64_t total) { return rows.every ? total : total > 0 ? queries : 0; };
  const auto number = [&](int64_t n, int64_t total) { return rows.every ? n : rows.index[n] % total; };

  out[0].resize(queries, s.dim);
  for (int64_t n = 0; n < queries; ++n) {
    const int64_t row = rows.row(n), h = row % s.heads_q, i = row / s.heads_q % s.len_q;
    d.dq(row / s.heads_q / s.len_q, i, h).store(out[0], n, args.scale, args.dq.dtype);
  }
  const int64_t keys = picked(all_keys);
  out[1].resize(keys, s.dim), out[2].resize(keys, s.dim_v);
  for (int64_t n = 0; n < keys; ++n) {
    const int64_t row = number(n, all_keys), g = row % s.heads_kv, j = row / s.heads_kv % s.len_kv;
    RowSum dk(s.dim), dv(s.dim_v);
    d.keys(row / s.heads_kv / s.len_kv, j, g, dk, dv);
    dk.store(out[1], n, args.scale, args.dk.dtype), dv.store(out[2], n, 1, args.dv.dtype);
  }
  out[3].resize(picked(biases), 1);
  for (int64_t n = 0; n < out[3].rows; ++n) {
    const int64_t at = number(n, biases), j = at % s.len_kv, i = at / s.len_kv % s.len_q;
    const int64_t h = at / s.len_kv / s.len_q % args.dbias.shape[1];
    d.dbias(at / s.len_kv / s.len_q / args.dbias.shape[1], h, i, j).store(out[3], n, 1, args.dbias.dtype);
  }
  out[4].resize(picked(sinks), 1);
  for (int64_t n = 0; n < out[4].rows; ++n) d.dsink(number(n, sinks)).store(out[4], n, 1, args.dsink.dtype);

  if (rows.every) {  // outputs have the columns of their tensors
    if (s.len_kv > 0) out[3].rows = biases / s.len_kv, out[3].columns = s.len_kv;
    if (sinks > 0) out[4].rows = 1, out[4].columns = sinks;
    return;
  }
  for (int64_t n = 0; n < keys * s.dim; ++n) out[1].element.push_back(number(n / s.dim, all_keys) * s.dim + n % s.dim);
  for (int64_t n = 0; n < keys * s.dim_v; ++n)
    out[2].element.push_back(number(n / s.dim_v, all_keys) * s.dim_v + n % s.dim_v);
  for (int64_t n = 0; n < out[3].rows; ++n) out[3].element.push_back(number(n, biases));
  for (int64_t n = 0; n < out[4].rows; ++n) out[4].element.push_back(number(n, sinks));
  for (int n : {1, 2}) out[n].rows *= out[n].columns, out[n].columns = 1;
}

}  // namespace kw::ref
