#include "compare.h"

#include <cmath>
#include <limits>

#include "../numeric.h"
#include "convert.h"

namespace kw {
namespace {

// |actual - value| / tolerance: at most 1 is right. Where the value or its textbook form is no finite number of the dtype,
// only that form, or what the value rounds to, is right.
double excess(double actual, double value, double plain, double rounded, double allowed) {
  if (std::isfinite(value) && std::isfinite(plain) && std::isfinite(actual)) return std::fabs(actual - value) / allowed;
  const auto same = [actual](double other) { return actual == other || (std::isnan(actual) && std::isnan(other)); };
  return same(plain) || same(rounded) ? 0 : std::numeric_limits<double>::infinity();
}

// Sums for the angle between what came and what should have come.
struct Angle {
  double both = 0, actual = 0, expected = 0;
  void add(double a, double e) { both += a * e, actual += a * a, expected += e * e; }
  double cosine() const {
    if (actual == 0 && expected == 0) return 1;
    return actual == 0 || expected == 0 ? 0 : both / std::sqrt(actual * expected);
  }
};

Verdict compare(const char* field, const TensorView& view, const RowList& rows, const ReferenceOutput& reference) {
  const int64_t columns = reference.columns, width = view.shape[view.rank - 1];
  Verdict verdict;
  verdict.field = field;
  verdict.elements = reference.rows * columns;
  std::vector<double> actual(columns);
  Angle angle;
  for (int64_t r = 0; r < reference.rows; ++r) {
    const int64_t begin = reference.element.empty() ? rows.row(r) * columns : reference.element[r];
    load(view, begin, begin + columns, actual.data());
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t at = r * columns + c;
      const double y = actual[c], value = reference.value[at], plain = reference.plain[at];
      const double allowed = 2 * std::fabs(plain - value) + ulp(view.dtype, value) + reference.slack[at];
      const double ratio = excess(y, value, plain, round_to(view.dtype, value), allowed);
      verdict.failed += !(ratio <= 1);
      if (at == 0 || ratio > verdict.worst) {
        verdict.worst = ratio;
        verdict.row = (begin + c) / width, verdict.column = (begin + c) % width;
        verdict.actual = y, verdict.expected = value, verdict.allowed = allowed;
      }
      const double off = std::fabs(y - value);
      if (off > verdict.max_abs) verdict.max_abs = off;
      if (value != 0 && off / std::fabs(value) > verdict.max_rel) verdict.max_rel = off / std::fabs(value);
      if (std::isfinite(y) && std::isfinite(value)) angle.add(y, value);
    }
  }
  verdict.cosine = angle.cosine();
  return verdict;
}

}  // namespace

std::vector<Verdict> compare_outputs(const Schema& schema, const void* args, const RowList& rows,
                                     const ReferenceOutputs& references) {
  std::vector<Verdict> found;
  for (const Field& field : schema.fields) {
    if (!is_result(field)) continue;
    found.push_back(compare(field.name, tensor_at(args, field), rows, references.at(found.size())));
  }
  return found;
}

Differences differences(const TensorView& view, const ReferenceOutput& reference) {
  Differences found;
  found.elements = view.count();
  std::vector<double> actual(found.elements);
  load(view, 0, found.elements, actual.data());
  for (int64_t i = 0; i < found.elements; ++i) {
    const double expected = round_to(view.dtype, reference.value.at(i));
    if (actual[i] == expected || (std::isnan(actual[i]) && std::isnan(expected))) continue;
    if (found.count++ == 0) found.first = i, found.actual = actual[i], found.expected = expected;
  }
  return found;
}

}  // namespace kw
