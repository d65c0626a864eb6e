// The definition of rope for one row, which the definition of kv_append uses too: plain loops in double precision beside the textbook
// f32 algorithm, for any arguments with rope's parameters.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../core/numeric.h"
#include "rope.h"

namespace kw::ref {

class RopeDefinition {
 public:
  // turns: false copies every column.
  template <class Args>
  RopeDefinition(const Args& a, int64_t dim, bool turns = true) : dim_(dim), interleaved_(a.interleaved) {
    if (!turns) return;
    const int64_t r = a.dim_rotary == 0 ? dim : a.dim_rotary;
    const double s = double{a.factor}, n = static_cast<double>(a.original_context);
    for (int64_t j = 0; j < r / 2; ++j) {
      const double f = std::pow(double{a.theta}, -2.0 * static_cast<double>(j) / static_cast<double>(r));
      double scaled = f;
      if (a.scaling == RopeScaling::linear) scaled = f / s;
      if (a.scaling == RopeScaling::llama3)
        scaled = llama3(f, s, n, double{a.low_freq_factor}, double{a.high_freq_factor});
      if (a.scaling == RopeScaling::yarn) {
        const double low = std::min(std::max(std::floor(corrected(a.beta_fast, a.theta, n, r)), 0.0), double(r - 1));
        double high = std::min(std::max(std::ceil(corrected(a.beta_slow, a.theta, n, r)), 0.0), double(r - 1));
        if (low == high) high += 0.001;
        const double t = std::min(std::max((double(j) - low) / (high - low), 0.0), 1.0);
        scaled = (1 - t) * f + t * f / s;
      }
      frequencies_.push_back(scaled);
    }
    if (a.scaling == RopeScaling::yarn) {
      factor_ = a.attention_factor != 0 ? double{a.attention_factor} : s > 1 ? 0.1 * std::log(s) + 1 : 1;
    }
  }

  // Columns of a row at position p, divided by `divisor`, from element `at` of y on.
  template <class X>
  void row(int64_t p, X&& x, DType dtype, float divisor, int64_t at, ReferenceOutput& y) const {
    const int64_t pairs = static_cast<int64_t>(frequencies_.size());
    const auto put = [&](int64_t c, double value, float plain, double slack) {
      y.value[at + c] = bounded(dtype, value / double{divisor});
      y.plain[at + c] = double{rounded(dtype, plain / divisor)};
      y.slack[at + c] = slack / std::fabs(double{divisor});
    };
    for (int64_t j = 0; j < pairs; ++j) {
      const int64_t first = interleaved_ ? 2 * j : j, second = interleaved_ ? 2 * j + 1 : j + pairs;
      const float u = x(first), v = x(second);
      const double angle = static_cast<double>(p) * frequencies_[j];
      const double cos = factor_ * std::cos(angle), sin = factor_ * std::sin(angle);
      const auto cos_plain = static_cast<float>(cos), sin_plain = static_cast<float>(sin);
      const double error = 4 * 0x1p-24 + std::fabs(static_cast<double>(p)) * 0x1p-49;
      const double slack = error * factor_ * (std::fabs(double{u}) + std::fabs(double{v}));
      put(first, double{u} * cos - double{v} * sin, u * cos_plain - v * sin_plain, slack);
      put(second, double{v} * cos + double{u} * sin, v * cos_plain + u * sin_plain, slack);
    }
    for (int64_t c = 2 * pairs; c < dim_; ++c) put(c, double{x(c)}, x(c), 0);
  }

 private:
  static double llama3(double f, double s, double n, double low, double high) {
    const double wavelength = 2 * 3.14159265358979323846 / f;
    if (wavelength < n / high) return f;
    if (wavelength > n / low) return f / s;
    const double t = (n / wavelength - low) / (high - low);
    return t * f + (1 - t) * f / s;
  }
  // The pair that turns beta times within n positions.
  static double corrected(float beta, float theta, double n, int64_t r) {
    return double(r) * std::log(n / (2 * 3.14159265358979323846 * double{beta})) / (2 * std::log(double{theta}));
  }
  // f8e4m3 saturates, infinities too.
  static double bounded(DType dtype, double value) {
    return dtype == DType::f8e4m3 && std::fabs(value) > 448 ? std::copysign(448.0, value) : value;
  }

  int64_t dim_;
  bool interleaved_;
  std::vector<double> frequencies_;
  double factor_ = 1;
};

}  // namespace kw::ref
