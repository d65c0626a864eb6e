// The loops of peak.h over Simd, to be included after one simd_<isa>.h. Lengths are multiples of 1024 floats, memory is 64-byte aligned.
#pragma once
#include "peak.h"

namespace kw::cpu {
namespace {

using F = Simd::F;

// Chains independent multiply-adds, enough to hide their latency.
template <int Chains>
double fma_f32(int64_t rounds, float* out) {
  const F a = Simd::set(0.999f), b = Simd::set(0.001f);
  F s[Chains];
  for (int i = 0; i < Chains; ++i) s[i] = Simd::set(static_cast<float>(i));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < Chains; ++i) s[i] = Simd::fma(s[i], a, b);
  }
  for (int i = 1; i < Chains; ++i) s[0] += s[i];
  Simd::store(out, s[0]);
  return 2.0 * static_cast<double>(rounds) * Chains * Simd::kWidth;
}

inline void read(const float* from, int64_t floats, float* out) {
  F s[8] = {};
  for (int64_t i = 0; i < floats; i += 8 * Simd::kWidth) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) s[j] += Simd::load(from + i + j * Simd::kWidth);
  }
  for (int j = 1; j < 8; ++j) s[0] += s[j];
  Simd::store(out, s[0]);
}

// Stores past the caches where the instruction set can.
inline void copy(float* to, const float* from, int64_t floats) {
  for (int64_t i = 0; i < floats; i += 4 * Simd::kWidth) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) Simd::stream(to + i + j * Simd::kWidth, Simd::load(from + i + j * Simd::kWidth));
  }
  Simd::fence();
}

}  // namespace
}  // namespace kw::cpu
