// attention_merge, the definition: plain loops in double precision beside the textbook f32 algorithm. Correct by reading.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../core/numeric.h"
#include "attention_merge.h"

namespace kw::ref {
namespace {

constexpr double kEpsilon = 0x1p-24;  // u of the contract

float element(const TensorView& t, std::initializer_list<int64_t> index) {
  int64_t at = 0, d = 0;
  for (const int64_t i : index) at += i * t.stride[d++];
  return load_f32(t.data, t.dtype, at);
}

// The parts of a row that have seen keys, and their weights.
struct Row {
  struct Part {
    int64_t part;
    double lse, weight, error;  // w and e of the contract
    float plain;                // exp(lse - the largest)
  };
  std::vector<Part> parts;
  double lse = -std::numeric_limits<double>::infinity();
  float lse_plain = -std::numeric_limits<float>::infinity(), sum_plain = 0;
};

Row row(const AttentionMergeArgs& a, int64_t b, int64_t h, int64_t i) {
  Row r;
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t n = 0; n < a.lse_parts.shape[0]; ++n) {
    const float lse = element(a.lse_parts, {n, b, h, i});
    if (lse == -std::numeric_limits<float>::infinity()) continue;
    r.parts.push_back({n, double{lse}, 0, 0, 0});
    if (lse > top || std::isnan(lse)) top = lse;
  }
  if (r.parts.empty()) return r;
  double sum = 0;
  for (Row::Part& p : r.parts) {
    sum += p.weight = std::exp(p.lse - double{top});
    r.sum_plain += p.plain = std::exp(static_cast<float>(p.lse) - top);
  }
  r.lse = double{top} + std::log(sum);
  r.lse_plain = top + std::log(r.sum_plain);
  for (Row::Part& p : r.parts) {
    p.weight /= sum;
    p.error = 4 * kEpsilon * (std::abs(p.lse) + std::abs(r.lse) + 1);
  }
  return r;
}

// The values of a row, from position `begin` on.
void put_values(const AttentionMergeArgs& a, const Row& r, int64_t b, int64_t i, int64_t h, int64_t begin,
                ReferenceOutput& y) {
  for (int64_t c = 0; c < y.columns && !r.parts.empty(); ++c) {
    const int64_t at = begin + c;
    double largest = 0;
    float plain = 0;
    for (const Row::Part& p : r.parts) {
      const float v = element(a.y_parts, {p.part, b, i, h, c});
      y.value[at] += p.weight * double{v};
      plain += p.plain * v;
      largest = std::max(largest, std::abs(double{v}));
    }
    for (const Row::Part& p : r.parts) {
      const double off = std::abs(double{element(a.y_parts, {p.part, b, i, h, c})} - y.value[at]);
      y.slack[at] += p.weight * p.error * off;
    }
    y.plain[at] = double{rounded(a.y.dtype, plain / r.sum_plain)};
    y.slack[at] += 4 * kEpsilon * std::sqrt(double(r.parts.size())) * largest;
  }
}

void put_lse(const Row& r, int64_t at, ReferenceOutput& lse) {
  lse.value[at] = r.lse, lse.plain[at] = double{r.lse_plain};
  if (!std::isfinite(r.lse)) return;
  lse.slack[at] = 4 * kEpsilon * (std::sqrt(double(r.parts.size())) + std::abs(r.lse));
  for (const Row::Part& p : r.parts) lse.slack[at] += p.weight * p.error;
}

}  // namespace

void attention_merge(const AttentionMergeArgs& a, const RowList& rows, ReferenceOutputs& out) {
  const int64_t batch = a.y.shape[0], len = a.y.shape[1], heads = a.y.shape[2], columns = a.y.shape[3];
  out.resize(2);
  ReferenceOutput &y = out[0], &lse = out[1];
  y.resize(rows.count(batch * len * heads), columns);
  // A row of y goes with one element of lse.
  if (rows.every)
    lse.resize(batch * heads, len);
  else
    lse.resize(rows.size, 1), lse.element.resize(rows.size);
  for (int64_t n = 0; n < y.rows; ++n) {
    const int64_t h = rows.row(n) % heads, i = rows.row(n) / heads % len, b = rows.row(n) / heads / len;
    const Row r = row(a, b, h, i);
    put_values(a, r, b, i, h, n * columns, y);
    const int64_t at = (b * heads + h) * len + i;
    if (!rows.every) lse.element[n] = at;
    put_lse(r, rows.every ? at : n, lse);
  }
}

}  // namespace kw::ref
