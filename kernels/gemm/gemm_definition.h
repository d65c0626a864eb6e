// The parts of gemm's definition that other matrix multiplies share: one element in double precision beside the textbook
// f32 algorithm, with the slack of gemm.h.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../core/numeric.h"
#include "../core/reference.h"
#include "gemm.h"
#include "gemm_shape.h"

namespace kw::ref {

// Each activation in double, and as a textbook writes it in f32.
inline double activate(Activation a, double s) {
  switch (a) {
    case Activation::none:
      return s;
    case Activation::relu:
      return s < 0 ? 0 : s;
    case Activation::gelu_erf:
    case Activation::geglu_erf:
      return s * 0.5 * std::erfc(-s / std::sqrt(2.0));
    case Activation::gelu_tanh:
    case Activation::geglu_tanh:
      return s / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (s + 0.044715 * s * s * s)));
    case Activation::silu:
    case Activation::swiglu:
      return s / (1 + std::exp(-s));
  }
  return NAN;
}

inline float activate_f32(Activation a, float s) {
  switch (a) {
    case Activation::none:
      return s;
    case Activation::relu:
      return s < 0 ? 0 : s;
    case Activation::gelu_erf:
    case Activation::geglu_erf:
      return 0.5f * s * (1 + std::erf(s * 0.70710678f));
    case Activation::gelu_tanh:
    case Activation::geglu_tanh:
      return 0.5f * s * (1 + std::tanh(0.79788456f * (s + 0.044715f * s * s * s)));
    case Activation::silu:
    case Activation::swiglu:
      return s / (1 + std::exp(-s));
  }
  return NAN;
}

inline constexpr double kEpsilon = 0x1p-24;  // half the spacing of f32 at 1

// s[b,i,r] of the contract.
struct Sum {
  double value = 0, slack = 0;
  float plain = 0;
};

inline float element(const GemmOperand& o, int64_t b, int64_t i, int64_t j) {
  return o.data ? load_f32(o.data, o.dtype, b * o.batch + i * o.row + j * o.column) : 0;
}

// The sum over k; x_plain and w_plain are what the textbook algorithm multiplies, after its rounding points; c as the
// contract says.
template <class X, class W>
Sum dot(const X* x, const W* w, const float* x_plain, const float* w_plain, int64_t k, DType dtype, double c = 16) {
  Sum s;
  double largest = 0, largest_x = 0, largest_w = 0;
  for (int64_t p = 0; p < k; ++p) {
    const double product = double{x[p]} * double{w[p]};
    s.value += product;
    s.plain += x_plain[p] * w_plain[p];
    largest = std::max(largest, std::abs(product));
    largest_x = std::max(largest_x, std::abs(double{x[p]}));
    largest_w = std::max(largest_w, std::abs(double{w[p]}));
  }
  s.slack = c * std::sqrt(double(k)) * kEpsilon * largest;
  if (dtype == DType::bf16) s.slack += double(k) * 0x1p-126 * (1 + largest_x + largest_w);
  return s;
}

inline Sum scale_and_shift(float alpha, float beta, Sum s, float c, float bias) {
  const double product = double{alpha} * s.value, shift = double{beta} * double{c};
  s.value = product + shift + double{bias};
  s.plain = alpha * s.plain + beta * c + bias;
  s.slack =
      std::abs(double{alpha}) * s.slack + 4 * kEpsilon * (std::abs(product) + std::abs(shift) + std::abs(double{bias}));
  return s;
}

inline Sum activated(Activation a, Sum s) {
  if (a == Activation::none || a == Activation::relu) return {activate(a, s.value), s.slack, activate_f32(a, s.plain)};
  return {activate(a, s.value), 1.13 * s.slack + 4 * kEpsilon * std::abs(s.value), activate_f32(a, s.plain)};
}

inline Sum gated(Sum gate, Sum up) {
  return {gate.value * up.value, gate.slack * (std::abs(up.value) + up.slack) + std::abs(gate.value) * up.slack,
          gate.plain * up.plain};
}

// The last rounding may cancel the error before it by chance, and a backend's not; a result that overflows stands.
inline double farther(double value, float before, float after) {
  return std::isfinite(after) && std::abs(before - value) > std::abs(after - value) ? before : after;
}

// y of row i of the reference's rows, which is row `row` of batch b: rows_w finished sums, the epilogue from here on.
inline void finish_row(const GemmShape& shape, Activation activation, const Sum* sums, int64_t i, int64_t b,
                       int64_t row, ReferenceOutput& out) {
  for (int64_t j = 0; j < shape.n; ++j) {
    Sum y = activated(activation, sums[j]);
    if (is_gated(activation)) y = gated(y, sums[shape.n + j]);
    const float residual = element(shape.residual, b, row, j);
    const int64_t at = i * shape.n + j;
    out.value[at] = y.value + double{residual};
    out.plain[at] = farther(out.value[at], y.plain + residual, rounded(shape.y.dtype, y.plain + residual));
    out.slack[at] = y.slack + 2 * kEpsilon * (std::abs(y.value) + std::abs(double{residual}));
  }
}

}  // namespace kw::ref
