// Frequencies of rope as the kernels take them, for any operator whose arguments have rope's parameters: turns for each step of the
// position, 64 bits behind the point, so that a position times them needs no more than a multiplication modulo 2^64.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "rope.h"

namespace kw {

// Least-maximum polynomials in the square of an angle up to a quarter of pi, fitted for this project:
// sin r = r + r^3 (s0 + s1 r^2 + s2 r^4), cos r = 1 - r^2 / 2 + r^4 (c0 + c1 r^2 + c2 r^4), both to 4e-9.
inline constexpr float kRopeSin0 = -0.16666655f, kRopeSin1 = 0.008332178f, kRopeSin2 = -0.00019517267f;
inline constexpr float kRopeCos0 = 0.041666646f, kRopeCos1 = -0.0013887368f, kRopeCos2 = 2.4438415e-05f;
// Of a turn of 32 bits behind the point, in radians.
inline constexpr float kRopeRadians = 1.46291807926715968e-9f;

// Columns that turn, of `dim`.
template <class Args>
int64_t rotary_columns(const Args& a, int64_t dim) {
  return a.dim_rotary == 0 ? dim : a.dim_rotary;
}

struct RopeTurns {
  std::vector<uint64_t> turns;  // of each pair
  float factor = 1;             // m of the contract
};

// Of heads with `dim` columns.
template <class Args>
RopeTurns rope_turns(const Args& a, int64_t dim) {
  const int64_t rotary = rotary_columns(a, dim);
  constexpr double kTau = 6.283185307179586476925286766559;
  const double theta = double{a.theta}, context = static_cast<double>(a.original_context),
               r = static_cast<double>(rotary);
  RopeTurns result;
  // How much of a frequency is divided by the factor.
  std::vector<double> divided(static_cast<size_t>(rotary / 2), a.scaling == RopeScaling::linear ? 1.0 : 0.0);
  if (a.scaling == RopeScaling::yarn) {
    const auto dimension = [&](float beta) {
      return r * std::log(context / (kTau * double{beta})) / (2 * std::log(theta));
    };
    const double low = std::clamp(std::floor(dimension(a.beta_fast)), 0.0, std::max(r - 1, 0.0));
    double high = std::clamp(std::ceil(dimension(a.beta_slow)), 0.0, std::max(r - 1, 0.0));
    if (high == low) high += 0.001;
    for (size_t j = 0; j < divided.size(); ++j)
      divided[j] = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    const double usual = a.factor > 1 ? 0.1 * std::log(double{a.factor}) + 1 : 1;
    result.factor = a.attention_factor != 0 ? a.attention_factor : static_cast<float>(usual);
  }
  for (size_t j = 0; j < divided.size(); ++j) {
    double turns = std::pow(theta, -2 * static_cast<double>(j) / r) / kTau;
    if (a.scaling == RopeScaling::llama3) {
      const double low = double{a.low_freq_factor}, high = double{a.high_freq_factor};
      divided[j] = 1 - std::clamp((context * turns - low) / (high - low), 0.0, 1.0);
    }
    turns *= (1 - divided[j]) + divided[j] / double{a.factor};
    result.turns.push_back(static_cast<uint64_t>((turns - std::floor(turns)) * 0x1p64));
  }
  return result;
}

}  // namespace kw
