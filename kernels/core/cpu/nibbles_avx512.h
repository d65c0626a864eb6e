// 4-bit elements with AVX-512, vpdpbusd where the file is compiled for it. Every nibbles_<isa>.h defines the same struct
// Nibbles over its simd_<isa>.h. kWidth below is Simd::kWidth.
#pragma once
#include "simd_avx512.h"

namespace kw::cpu {
namespace {

struct Nibbles {
  using F = Simd::F;
  using I = Simd::I;

  // 16 bytes, 32 elements, into every four lanes: lane 4 q + i holds elements 8 i to 8 i + 7 from its lowest bits on.
  static I unit(const uint8_t* p) { return (I)_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)p)); }
  // The entry that the low four bits of each lane name; higher bits are not looked at.
  static F at(const F (&table)[1], I index) { return _mm512_permutexvar_ps((__m512i)index, table[0]); }

  // 4 kWidth bytes, n of them present (16 at least): even elements apart from odd ones, one to a byte.
  struct Bytes {
    __m512i low, high;
  };
  static Bytes bytes(const uint8_t* p, int n) {
    const __m512i w = n >= 64 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi32((__mmask16)((1u << n / 4) - 1), p);
    const __m512i mask = _mm512_set1_epi8(15);
    return {_mm512_and_si512(w, mask), _mm512_and_si512(_mm512_srli_epi16(w, 4), mask)};
  }
  // x: int8 that meet the even elements, then those that meet the odd ones. Lane i is that of start plus eight
  // products, those of elements 8 i to 8 i + 7.
  static I dot(const Bytes& w, const int8_t* x, I start) {
    const __m512i xe = _mm512_loadu_si512(x), xo = _mm512_loadu_si512(x + 64);
#ifdef __AVX512VNNI__
    return (I)_mm512_dpbusd_epi32(_mm512_dpbusd_epi32((__m512i)start, w.low, xe), w.high, xo);
#else
    const __m512i pairs = _mm512_add_epi16(_mm512_maddubs_epi16(w.low, xe), _mm512_maddubs_epi16(w.high, xo));
    return start + (I)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#endif
  }
  // Tiles: the sum so far plus four products of bytes in each lane, w without signs and 15 at most, x with; kQuads of them may
  // follow one another before the sum has to be widened to 32 bits.
#ifdef __AVX512VNNI__
  static constexpr int kQuads = 16;
  static constexpr bool kWide = true;  // sums have 32 bits from the start
  static I quad(I sum, I w, I x) { return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x); }
  static I widened(I sum) { return sum; }
#else
  static constexpr int kQuads = 8;
  static constexpr bool kWide = false;
  static I quad(I sum, I w, I x) {
    return (I)_mm512_add_epi16((__m512i)sum, _mm512_maddubs_epi16((__m512i)w, (__m512i)x));
  }
  static I widened(I sum) { return (I)_mm512_madd_epi16((__m512i)sum, _mm512_set1_epi16(1)); }
#endif
  // kWidth whole numbers that fit in int8, the even ones apart from the odd ones.
  static void apart(F v, int8_t* even, int8_t* odd) {
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    const __m128i both = _mm_shuffle_epi8(_mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)), order);
    _mm_storel_epi64((__m128i*)even, both);
    _mm_storel_epi64((__m128i*)odd, _mm_unpackhi_epi64(both, both));
  }
  // Lane l is p[l / 4].
  static F spread(const float* p) {
    const __m512i quarters = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return _mm512_permutexvar_ps(quarters, _mm512_castps128_ps512(_mm_loadu_ps(p)));
  }
  static F whole(I v) { return _mm512_cvtepi32_ps((__m512i)v); }
  // To whole numbers, half to even. (Adding 1.5 * 2^23 would be fused with a product before it.)
  static F nearest(F v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
};

}  // namespace
}  // namespace kw::cpu
