// AVX2 with FMA and F16C: struct Simd as simd_avx512.h describes it, eight lanes.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "f8e4m3.h"

namespace kw::cpu {
namespace {

struct Simd {
  static constexpr int kWidth = 8;
  using F = __m256;
  typedef int32_t I __attribute__((vector_size(32)));

  static F set(float v) { return _mm256_set1_ps(v); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static float sum(F v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float top(F v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const float* p, int n) { return n >= 8 ? load(p) : _mm256_maskload_ps(p, first(n)); }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static void store(float* p, F v, int n) {
    if (n >= 8) return store(p, v);
    _mm256_maskstore_ps(p, first(n), v);
  }

  static void stream(float* p, F v) { _mm256_stream_ps(p, v); }
  static void fence() { _mm_sfence(); }

  static F load_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
  static F load_f16(const uint16_t* p, int n) { return n >= 8 ? load_f16(p) : _mm256_cvtph_ps(halves(p, n)); }
  static void store_f16(uint16_t* p, F v, int n) {
    put(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), n);
  }

  static F load_bf16(const uint16_t* p) { return widen_bf16(_mm_loadu_si128((const __m128i*)p)); }
  static F load_bf16(const uint16_t* p, int n) { return n >= 8 ? load_bf16(p) : widen_bf16(halves(p, n)); }
  static void store_bf16(uint16_t* p, F v, int n) {
    const __m256i u = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i near = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256i h = _mm256_srli_epi32(_mm256_blendv_epi8(near, quiet, nan), 16);
    put(p, _mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)), n);
  }

  static F load_f8e4m3(const uint8_t* p, int n) {
    // As in numeric.h: moved up one place, the fields are those of f16.
    const __m128i code = _mm_cvtepu8_epi16(bytes(p, n));
    const __m128i rest = _mm_and_si128(code, _mm_set1_epi16(0x7f)), sign = _mm_slli_epi16(_mm_xor_si128(code, rest), 8);
    const F v = _mm256_cvtph_ps(_mm_or_si128(sign, _mm_slli_epi16(rest, 7))) * set(256);
    const __m256i nan = _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(rest, _mm_set1_epi16(0x7f)));
    return _mm256_blendv_ps(v, set(__builtin_nanf("")), _mm256_castsi256_ps(nan));
  }
  template <class As>
  static void widen_f8e4m3(uint16_t* to, const uint8_t* from, int64_t n) {
    int64_t e = 0;
    for (; e + 16 <= n; e += 16)
      _mm256_storeu_si256((__m256i*)(to + e), widened_f8e4m3<As>(_mm_loadu_si128((const __m128i*)(from + e))));
    for (; e < n; ++e) to[e] = As::of(from[e]);
  }
  static void store_f8e4m3(uint8_t* p, F v, int n) {
    const __m256i u = _mm256_castps_si256(v),
                  sign = _mm256_and_si256(_mm256_srli_epi32(u, 24), _mm256_set1_epi32(0x80));
    const __m256i most = _mm256_set1_epi32(0x43e00000);  // 448
    const __m256i a = _mm256_min_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff)), most);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(a, 20), _mm256_set1_epi32(1));
    const __m256i near = _mm256_add_epi32(_mm256_sub_epi32(a, _mm256_set1_epi32(0x3c000000 - 0x7ffff)), odd);
    const F shifted = _mm256_castsi256_ps(a) + set(0x1p14f);
    const __m256i small = _mm256_and_si256(_mm256_castps_si256(shifted), _mm256_set1_epi32(15));
    const __m256i low = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x3c800000), a);
    const __m256i code = _mm256_blendv_epi8(_mm256_srli_epi32(near, 20), small, low);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i all = _mm256_or_si256(sign, _mm256_blendv_epi8(code, _mm256_set1_epi32(0x7f), nan));
    const __m128i half = _mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    const __m128i lanes = _mm_packus_epi16(half, half);
    if (n >= 8) return _mm_storel_epi64((__m128i*)p, lanes);
    __builtin_memcpy(p, &lanes, n);
  }

  static void transpose(F (&r)[kWidth]) {
    F t[8];
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    F s[8];
    for (int i = 0; i < 8; i += 4) {
      s[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      s[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
      s[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      s[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
      r[i] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x20);
      r[i + 4] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x31);
    }
  }

  static F sums(const F (&r)[kWidth]) {
    const F low = four(r[0], r[1], r[2], r[3]), high = four(r[4], r[5], r[6], r[7]);
    return _mm256_permute2f128_ps(low, high, 0x20) + _mm256_permute2f128_ps(low, high, 0x31);
  }

 private:
  static F four(F a, F b, F c, F d) {
    const F ab = _mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b);
    const F cd = _mm256_unpacklo_ps(c, d) + _mm256_unpackhi_ps(c, d);
    return _mm256_shuffle_ps(ab, cd, 0x44) + _mm256_shuffle_ps(ab, cd, 0xee);
  }
  static __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  template <class As>
  static __m256i widened_f8e4m3(__m128i codes) {
    const __m256i code = _mm256_cvtepu8_epi16(codes), size = _mm256_and_si256(code, _mm256_set1_epi16(0x7f));
    const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i*)As::kSmall.value));
    // Both bytes of entry `size`.
    const __m256i at = _mm256_add_epi16(_mm256_mullo_epi16(size, _mm256_set1_epi16(0x202)), _mm256_set1_epi16(0x100));
    const __m256i large = _mm256_add_epi16(_mm256_slli_epi16(size, As::kUp), _mm256_set1_epi16(As::kMore));
    const __m256i low = _mm256_cmpgt_epi16(_mm256_set1_epi16(8), size);
    const __m256i nan = _mm256_cmpeq_epi16(size, _mm256_set1_epi16(0x7f));
    __m256i v = _mm256_blendv_epi8(large, _mm256_shuffle_epi8(table, at), low);
    v = _mm256_blendv_epi8(v, _mm256_set1_epi16(As::kNan), nan);
    return _mm256_or_si256(v, _mm256_slli_epi16(_mm256_xor_si256(code, size), 8));
  }
  static __m128i bytes(const uint8_t* p, int n) {
    if (n >= 8) return _mm_loadl_epi64((const __m128i*)p);
    __m128i lanes = _mm_setzero_si128();
    __builtin_memcpy(&lanes, p, n);
    return lanes;
  }
  static __m128i halves(const uint16_t* p, int n) {
    alignas(16) uint16_t lanes[8] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return _mm_load_si128((const __m128i*)lanes);
  }
  static void put(uint16_t* p, __m128i v, int n) {
    if (n >= 8) return _mm_storeu_si128((__m128i*)p, v);
    alignas(16) uint16_t lanes[8];
    _mm_store_si128((__m128i*)lanes, v);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }
  static F widen_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
};

}  // namespace
}  // namespace kw::cpu
