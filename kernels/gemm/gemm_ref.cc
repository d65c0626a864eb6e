// gemm, the definition: plain loops in double precision beside the textbook f32 algorithm. Correct by reading.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../core/numeric.h"
#include "gemm.h"
#include "gemm_shape.h"

namespace kw::ref {
namespace {

// Each activation in double, and as a textbook writes it in f32.
double activate(Activation a, double s) {
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

float activate_f32(Activation a, float s) {
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

constexpr double kEpsilon = 0x1p-24;  // half the spacing of f32 at 1

// s[b,i,r] of the contract.
struct Sum {
  double value = 0, slack = 0;
  float plain = 0;
};

// Row r of w; a packed one where its format says.
void load_row(const GemmArgs& args, const GemmShape& shape, int64_t b, int64_t r, float* to) {
  const GemmOperand& w = shape.w;
  for (int64_t p = 0; p < shape.k; ++p) {
    const int64_t at = w.format ? PackedExtent(args.w).at(r, p) : r * w.row + p * w.column;
    to[p] = load_f32(w.data, w.dtype, b * w.batch + at);
  }
}

float element(const GemmOperand& o, int64_t b, int64_t i, int64_t j) {
  return o.data ? load_f32(o.data, o.dtype, b * o.batch + i * o.row + j * o.column) : 0;
}

Sum dot(const float* x, const float* w, int64_t k, DType dtype) {
  Sum s;
  double largest = 0, largest_x = 0, largest_w = 0;
  for (int64_t p = 0; p < k; ++p) {
    s.value += double{x[p]} * double{w[p]};
    s.plain += x[p] * w[p];
    largest = std::max(largest, std::abs(double{x[p]} * double{w[p]}));
    largest_x = std::max(largest_x, std::abs(double{x[p]}));
    largest_w = std::max(largest_w, std::abs(double{w[p]}));
  }
  s.slack = 16 * std::sqrt(double(k)) * kEpsilon * largest;
  if (dtype == DType::bf16) s.slack += double(k) * 0x1p-126 * (1 + largest_x + largest_w);
  return s;
}

Sum scale_and_shift(const GemmArgs& args, Sum s, float c, float bias) {
  const double product = double{args.alpha} * s.value, shift = double{args.beta} * double{c};
  s.value = product + shift + double{bias};
  s.plain = args.alpha * s.plain + args.beta * c + bias;
  s.slack = std::abs(double{args.alpha}) * s.slack +
            4 * kEpsilon * (std::abs(product) + std::abs(shift) + std::abs(double{bias}));
  return s;
}

Sum activated(Activation a, Sum s) {
  if (a == Activation::none || a == Activation::relu) return {activate(a, s.value), s.slack, activate_f32(a, s.plain)};
  return {activate(a, s.value), 1.13 * s.slack + 4 * kEpsilon * std::abs(s.value), activate_f32(a, s.plain)};
}

Sum gated(Sum gate, Sum up) {
  return {gate.value * up.value, gate.slack * (std::abs(up.value) + up.slack) + std::abs(gate.value) * up.slack,
          gate.plain * up.plain};
}

}  // namespace

void gemm(const GemmArgs& args, const RowList& rows, ReferenceOutputs& out) {
  const GemmShape shape = resolve(args);
  const int64_t count = rows.count(shape.batch * shape.m);
  out.resize(1);
  out[0].resize(count, shape.n);
  if (count == 0 || shape.n == 0) return;

  std::vector<float> x(count * shape.k), w(shape.k);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t b = rows.row(i) / shape.m, row = rows.row(i) % shape.m;
    for (int64_t p = 0; p < shape.k; ++p) x[i * shape.k + p] = element(shape.x, b, row, p);
  }

  std::vector<Sum> sums(count * shape.rows_w);
  for (int64_t r = 0; r < shape.rows_w; ++r) {
    int64_t loaded = -1;  // the batch whose row r is in w
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = rows.row(i) / shape.m, row = rows.row(i) % shape.m;
      if (b != loaded) {
        load_row(args, shape, b, r, w.data());
        loaded = b;
      }
      const Sum s = dot(x.data() + i * shape.k, w.data(), shape.k, shape.x.dtype);
      sums[i * shape.rows_w + r] = scale_and_shift(args, s, element(shape.c, b, row, r), element(shape.bias, 0, 0, r));
    }
  }

  for (int64_t i = 0; i < count; ++i) {
    const int64_t b = rows.row(i) / shape.m, row = rows.row(i) % shape.m;
    for (int64_t j = 0; j < shape.n; ++j) {
      const Sum* s = &sums[i * shape.rows_w + j];
      Sum y = activated(args.activation, *s);
      if (is_gated(args.activation)) y = gated(y, s[shape.n]);
      const float residual = element(shape.residual, b, row, j);
      const int64_t at = i * shape.n + j;
      out[0].value[at] = y.value + double{residual};
      out[0].plain[at] = rounded(shape.y.dtype, y.plain + residual);
      out[0].slack[at] = y.slack + 2 * kEpsilon * (std::abs(y.value) + std::abs(double{residual}));
    }
  }
}

}  // namespace kw::ref
