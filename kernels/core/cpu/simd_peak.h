// The loops of peak.h over Simd, to be included after one simd_<isa>.h. Lengths are multiples of 1024 floats, memory is
// 64-byte aligned.
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

// Four streams, from the quarters of the memory: the processor fetches ahead in each.
inline void read(const float* from, int64_t floats, float* out) {
  const int64_t quarter = floats / 4;
  F s[4][2] = {};
  for (int64_t i = 0; i < quarter; i += 2 * Simd::kWidth) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      s[q][0] += Simd::load(from + q * quarter + i);
      s[q][1] += Simd::load(from + q * quarter + i + Simd::kWidth);
    }
  }
  for (int q = 0; q < 4; ++q) s[0][0] += s[q][1] + (q ? s[q][0] : Simd::set(0));
  Simd::store(out, s[0][0]);
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
