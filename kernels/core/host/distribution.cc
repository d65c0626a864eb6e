#include "distribution.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "convert.h"

namespace kw {
namespace {

// Bits of element i: SplitMix64 (Steele, Lea, Flood 2014) at position i from a start that the seed scatters.
uint64_t mix(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

constexpr uint64_t kGamma = 0x9e3779b97f4a7c15;
uint64_t random_bits(uint64_t start, uint64_t i) { return mix(start + (i + 1) * kGamma); }

// In (0, 1), never an end: 52 bits and a half.
double open_unit(uint64_t bits) { return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52; }

template <size_t n>
double polynomial(const std::array<double, n>& coefficients, double x) {
  double sum = 0;
  for (size_t i = n; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

// Natural logarithm of a normal number, to about 1e-9: exponent and a series in (m - 1) / (m + 1). The C library's differs
// between machines.
double natural_log(double x) {
  const auto bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffff) | 0x3ff0000000000000);
  if (m > 1.4142135623730951) m *= 0.5, ++exponent;
  const double t = (m - 1) / (m + 1), s = t * t;
  return exponent * 0.6931471805599453 +
         2 * t * polynomial(std::array{1.0, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11}, s);
}

// The value that a standard normal variable stays below with probability p, to about 1e-7: Wichura 1988, algorithm AS 241,
// PPND7.
double normal_quantile(double p) {
  const double q = p - 0.5;
  if (std::fabs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(std::array{3.3871327179, 50.434271938, 159.29113202, 59.109374720}, r) /
           polynomial(std::array{1.0, 17.895169469, 78.757757664, 67.187563600}, r);
  }
  const double r = std::sqrt(-natural_log(q < 0 ? p : 1 - p));
  double value;
  if (r <= 5) {
    const double s = r - 1.6;
    value = polynomial(std::array{1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103}, s) /
            polynomial(std::array{1.0, 0.73700164250, 0.12021132975}, s);
  } else {
    const double s = r - 5;
    value = polynomial(std::array{6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997}, s) /
            polynomial(std::array{1.0, 0.24197894225, 0.012258202635}, s);
  }
  return q < 0 ? -value : value;
}

struct Constant {
  double a;
  double operator()(uint64_t) const { return a; }
};
struct Uniform {
  uint64_t start;
  double a, b;
  double operator()(uint64_t i) const {
    return a + (b - a) * (static_cast<double>(random_bits(start, i) >> 11) * 0x1p-53);
  }
};
struct Normal {
  uint64_t start;
  double mean, deviation;
  double operator()(uint64_t i) const { return mean + deviation * normal_quantile(open_unit(random_bits(start, i))); }
};
struct Integers {
  uint64_t start;
  double a;
  uint64_t choices;
  double operator()(uint64_t i) const {
    return a + static_cast<double>(static_cast<unsigned __int128>(random_bits(start, i)) * choices >> 64);
  }
};

template <class Values>
void fill_with(const TensorView& view, int64_t begin, int64_t end, const Values& value) {
  if (bits(view.dtype) < 8) {
    // The last half byte of an odd number of elements becomes 0.
    for (int64_t i = begin; i < end; i += 2) {
      const int low = static_cast<int>(value(i)) & 15, high = i + 1 < end ? static_cast<int>(value(i + 1)) & 15 : 0;
      static_cast<uint8_t*>(view.data)[i / 2] = static_cast<uint8_t>(low | high << 4);
    }
    return;
  }
  constexpr int64_t kChunk = 256;
  double values[kChunk];
  const Walk<1> elements = walk(view);
  const Element stored = element_of(view.dtype, "fill");
  const int64_t size = size_of(stored);
  elements(begin, end, [&](int64_t first, int64_t length, const int64_t* offset) {
    for (int64_t done = 0; done < length; done += kChunk) {
      const int64_t n = std::min(kChunk, length - done);
      for (int64_t i = 0; i < n; ++i) values[i] = value(first + done + i);
      convert(values, Element::f64, 1, static_cast<char*>(view.data) + (offset[0] + done * elements.step(0)) * size,
              stored, elements.step(0), n);
    }
  });
}

}  // namespace

Distribution::Distribution(Kind kind, uint64_t seed, double a, double b)
    : kind(kind), start(mix(seed * kGamma + kGamma)), a(a), b(b) {}

void Distribution::fill(const TensorView& view, int64_t begin, int64_t end) const {
  switch (kind) {
    case kConstant:
      return fill_with(view, begin, end, Constant{a});
    case kUniform:
      return fill_with(view, begin, end, Uniform{start, a, b});
    case kNormal:
      return fill_with(view, begin, end, Normal{start, a, b});
    case kIntegers:
      return fill_with(view, begin, end, Integers{start, a, static_cast<uint64_t>(b - a) + 1});
  }
}

}  // namespace kw
