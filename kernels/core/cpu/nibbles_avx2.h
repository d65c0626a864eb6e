// 4-bit elements with AVX2: struct Nibbles as nibbles_avx512.h describes it.
#pragma once
#include "simd_avx2.h"

namespace kw::cpu {
namespace {

struct Nibbles {
  using F = Simd::F;
  using I = Simd::I;

  static I unit(const uint8_t* p) { return (I)_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)p)); }
  static F at(const F (&table)[2], I index) {
    const __m256i i = (__m256i)index;
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table[0], i), _mm256_permutevar8x32_ps(table[1], i),
                            _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
  }
  struct Bytes {
    __m256i low, high;
  };
  static Bytes bytes(const uint8_t* p, int n) {
    const __m256i w =
        n >= 32 ? _mm256_loadu_si256((const __m256i*)p) : _mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)p));
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(w, mask), _mm256_and_si256(_mm256_srli_epi16(w, 4), mask)};
  }
  // Pairs of products are at most 2 * 15 * 127, four of them fit in 16 bits.
  static I dot(const Bytes& w, const int8_t* x, I start) {
    const __m256i even = _mm256_maddubs_epi16(w.low, _mm256_loadu_si256((const __m256i*)x));
    const __m256i odd = _mm256_maddubs_epi16(w.high, _mm256_loadu_si256((const __m256i*)(x + 32)));
    return start + (I)_mm256_madd_epi16(_mm256_add_epi16(even, odd), _mm256_set1_epi16(1));
  }
  // Eight sums of two products fit in 16 bits.
  static constexpr int kQuads = 8;
  static constexpr bool kWide = false;
  static I quad(I sum, I w, I x) {
    return (I)_mm256_add_epi16((__m256i)sum, _mm256_maddubs_epi16((__m256i)w, (__m256i)x));
  }
  static I widened(I sum) { return (I)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1)); }
  static void apart(F v, int8_t* even, int8_t* odd) {
    alignas(32) int32_t whole[8];
    _mm256_store_si256((__m256i*)whole, _mm256_cvtps_epi32(v));
    for (int i = 0; i < 4; ++i) even[i] = (int8_t)whole[2 * i], odd[i] = (int8_t)whole[2 * i + 1];
  }
  static F spread(const float* p) { return _mm256_setr_m128(_mm_broadcast_ss(p), _mm_broadcast_ss(p + 1)); }
  static F whole(I v) { return _mm256_cvtepi32_ps((__m256i)v); }
  static F nearest(F v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
};

}  // namespace
}  // namespace kw::cpu
