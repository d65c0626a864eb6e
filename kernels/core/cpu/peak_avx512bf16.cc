// The loops behind peak() with AVX-512 BF16.
#include "simd_avx512.h"
#include "simd_peak.h"

namespace kw::cpu {
namespace {

double dot_bf16(int64_t rounds, float* out) {
  constexpr int kChains = 24;
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f7f), b = (__m512bh)_mm512_set1_epi16(0x3a83);  // 0.996, 0.001
  F s[kChains];
  for (int i = 0; i < kChains; ++i) s[i] = Simd::set(static_cast<float>(i));  // equal chains would be merged into one
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) s[i] = _mm512_dpbf16_ps(s[i], a, b);
  }
  for (int i = 1; i < kChains; ++i) s[0] += s[i];
  Simd::store(out, s[0]);
  return 4.0 * static_cast<double>(rounds) * kChains * Simd::kWidth;
}

}  // namespace

const PeakKernels kPeakAvx512Bf16 = {fma_f32<24>, dot_bf16, read, copy};

}  // namespace kw::cpu
