// peak, the definition: plain loops in double precision beside the textbook f32 algorithm. Correct by reading.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../core/numeric.h"
#include "peak.h"

namespace kw::ref {
namespace {

constexpr double kEpsilon = 0x1p-24;

float element(const TensorView& t, int64_t row, int64_t column) {
  return load_f32(t.data, t.dtype, row * t.stride[0] + column * t.stride[1]);
}

double largest(const TensorView& t, int64_t row, int64_t columns) {
  double most = 0;
  for (int64_t j = 0; j < columns; ++j) most = std::max(most, std::abs(double{element(t, row, j)}));
  return most;
}

// The slack for `terms` additions of products of at most x and w.
double slack(DType dtype, double terms, double x, double w) {
  const double denormals = dtype == DType::bf16 ? terms * 0x1p-126 * (1 + x + w) : 0;
  return 16 * std::sqrt(terms) * kEpsilon * x * w + denormals;
}

}  // namespace

void peak(const PeakArgs& a, const RowList& rows, ReferenceOutputs& out) {
  const int64_t columns = a.x.shape[1];
  out.resize(1);
  ReferenceOutput& y = out[0];
  y.resize(rows.count(a.y.shape[0]), a.y.shape[1]);
  for (int64_t n = 0; n < y.rows; ++n) {
    const int64_t i = rows.row(n);
    for (int64_t r = 0; r < y.columns; ++r) {
      double value = 0;
      float plain = 0;
      double& allowed = y.slack[n * y.columns + r];
      switch (a.load) {
        case PeakLoad::read:
          for (int64_t j = 0; j < columns; ++j) {
            value += double{element(a.x, i, j)};
            plain += element(a.x, i, j);
          }
          allowed = slack(a.x.dtype, double(columns), largest(a.x, i, columns), 1);
          break;
        case PeakLoad::copy:
          value = double{plain = element(a.x, i, r)};
          break;
        case PeakLoad::multiply:
        case PeakLoad::spin:
          // Rounds cancel in pairs: the last one of an odd number is left.
          for (int64_t j = 0; j < columns && a.rounds % 2; ++j) {
            value += double{element(a.x, i, j)} * double{element(a.w, r, j)};
            plain += element(a.x, i, j) * element(a.w, r, j);
          }
          allowed =
              slack(a.x.dtype, double(columns) * double(a.rounds), largest(a.x, i, columns), largest(a.w, r, columns));
          break;
      }
      y.value[n * y.columns + r] = value;
      y.plain[n * y.columns + r] = double{plain};
    }
  }
}

}  // namespace kw::ref
