// AVX-512 (F, BW, VL, DQ) vectors. Every simd_<isa>.h defines the same struct Simd, in an unnamed namespace, so that
// code compiled for one instruction set is never merged with another's; a file includes exactly one of them.
#pragma once
// GCC 12 takes the header's own undefined vectors for a mistake (its bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#include <stdint.h>

#include "f8e4m3.h"

namespace kw::cpu {
namespace {

struct Simd {
  static constexpr int kWidth = 16;
  using F = __m512;                                    // f32 lanes; + - * / < and ?: work lane by lane
  typedef int32_t I __attribute__((vector_size(64)));  // what comparisons yield; (I)f and (F)i keep the bits

  static F set(float v) { return _mm512_set1_ps(v); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
  static float sum(F v) { return _mm512_reduce_add_ps(v); }
  static float top(F v) { return _mm512_reduce_max_ps(v); }  // the largest lane

  // n lanes from or to memory; lanes beyond n read as 0 and are not stored.
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }

  // To 64-byte aligned memory, past the caches; fence() orders such stores before later ones.
  static void stream(float* p, F v) { _mm512_stream_ps(p, v); }
  static void fence() { _mm_sfence(); }

  static F load_f16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
  static F load_f16(const uint16_t* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p)); }
  static void store_f16(uint16_t* p, F v, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow_f16(v)); }

  static F load_bf16(const uint16_t* p) { return widen_bf16(_mm256_loadu_si256((const __m256i*)p)); }
  static F load_bf16(const uint16_t* p, int n) { return widen_bf16(_mm256_maskz_loadu_epi16(first(n), p)); }
  static void store_bf16(uint16_t* p, F v, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow_bf16(v)); }

  static F load_f8e4m3(const uint8_t* p, int n) {
    // As in numeric.h: moved up one place, the fields are those of f16.
    const __m256i code = _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(first(n), p));
    const __m256i rest = _mm256_and_si256(code, _mm256_set1_epi16(0x7f));
    const __m256i sign = _mm256_slli_epi16(_mm256_xor_si256(code, rest), 8);
    const F v = _mm512_cvtph_ps(_mm256_or_si256(sign, _mm256_slli_epi16(rest, 7))) * set(256);
    return _mm512_mask_mov_ps(v, _mm256_cmpeq_epi16_mask(rest, _mm256_set1_epi16(0x7f)), set(__builtin_nanf("")));
  }
  static void store_f8e4m3(uint8_t* p, F v, int n) { _mm_mask_storeu_epi8(p, first(n), narrow_f8e4m3(v)); }
  // n elements as 16-bit floats: As is F8e4m3AsF16 or F8e4m3AsBf16.
  template <class As>
  static void widen_f8e4m3(uint16_t* to, const uint8_t* from, int64_t n) {
    int64_t e = 0;
    if constexpr (As::kUp == 4) {
      for (; e + 64 <= n; e += 64) widen_bytes(to + e, from + e);
    }
    for (; e + 32 <= n; e += 32)
      _mm512_storeu_si512(to + e, widened_f8e4m3<As>(_mm256_loadu_si256((const __m256i*)(from + e))));
    if (e == n) return;
    const __mmask32 rest = (1u << (n - e)) - 1;
    _mm512_mask_storeu_epi16(to + e, rest, widened_f8e4m3<As>(_mm256_maskz_loadu_epi8(rest, from + e)));
  }

  // Lane i holds element 2 i in its low half and 2 i + 1 in its high half, bits unchanged; n counts elements.
  static F load_pairs(const uint16_t* p) { return _mm512_loadu_ps(p); }
  static F load_pairs(const uint16_t* p, int n) {
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(n >= 32 ? 0xffffffffu : (1u << n) - 1, p));
  }
  // Lane i holds low[i] and high[i]; a null high is zeros. n lanes.
  static F zip_pairs(const uint16_t* low, const uint16_t* high, int n) {
    const __m512i l = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), low));
    if (!high) return _mm512_castsi512_ps(l);
    const __m512i h = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), high));
    return _mm512_castsi512_ps(_mm512_or_si512(l, _mm512_slli_epi32(h, 16)));
  }

  static void transpose(F (&r)[kWidth]) {
    F t[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      r[i] = unpacklo_pd(t[i], t[i + 2]);
      r[i + 1] = unpackhi_pd(t[i], t[i + 2]);
      r[i + 2] = unpacklo_pd(t[i + 1], t[i + 3]);
      r[i + 3] = unpackhi_pd(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
      t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
      t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
      t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
      t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; ++i) {
      r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
      r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    }
  }

  // Lane i is the sum of r[i].
  static F sums(const F (&r)[kWidth]) {
    const F a = four(r[0], r[1], r[2], r[3]), b = four(r[4], r[5], r[6], r[7]);
    const F c = four(r[8], r[9], r[10], r[11]), d = four(r[12], r[13], r[14], r[15]);
    const F low = _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd);
    const F high = _mm512_shuffle_f32x4(c, d, 0x88) + _mm512_shuffle_f32x4(c, d, 0xdd);
    return _mm512_shuffle_f32x4(low, high, 0x88) + _mm512_shuffle_f32x4(low, high, 0xdd);
  }

 private:
  static __mmask16 first(int n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }
  // In every quarter the sums of four quarters, one of each argument.
  static F four(F a, F b, F c, F d) {
    const F ab = _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b);
    const F cd = _mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d);
    return unpacklo_pd(ab, cd) + unpackhi_pd(ab, cd);
  }
  static F unpacklo_pd(F a, F b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }
  static F unpackhi_pd(F a, F b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }
  static F widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
  static __m256i narrow_f16(F v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // 64 elements as bf16, byte by byte: 8 instructions for 32 elements instead of 12.
  static void widen_bytes(uint16_t* to, const uint8_t* from) {
    const auto table = [](const uint8_t* t) { return _mm512_broadcast_i32x4(_mm_load_si128((const __m128i*)t)); };
    const F8e4m3Bf16Bytes& bytes = kF8e4m3Bf16Bytes;
    // So that the bytes of 32 neighbours are zipped into one vector.
    const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    const __m512i code = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(from));
    const __m512i size = _mm512_and_si512(code, _mm512_set1_epi8(0x7f));
    const __m512i upper = _mm512_and_si512(_mm512_srli_epi16(size, 4), _mm512_set1_epi8(15));
    const __mmask64 small = _mm512_cmplt_epu8_mask(size, _mm512_set1_epi8(8));
    const __mmask64 nan = _mm512_cmpeq_epi8_mask(size, _mm512_set1_epi8(0x7f));
    __m512i high = _mm512_shuffle_epi8(table(bytes.high), upper), low = _mm512_shuffle_epi8(table(bytes.low), size);
    high = _mm512_mask_shuffle_epi8(high, small, table(bytes.small_high), size);
    low = _mm512_mask_shuffle_epi8(low, small, table(bytes.small_low), size);
    high = _mm512_mask_mov_epi8(high, nan, _mm512_set1_epi8(0x7f));
    high = _mm512_ternarylogic_epi32(high, code, _mm512_set1_epi8((char)0x80), 0xf8);  // high | code & sign
    _mm512_storeu_si512(to, _mm512_unpacklo_epi8(low, high));
    _mm512_storeu_si512(to + 32, _mm512_unpackhi_epi8(low, high));
  }
  template <class As>
  static __m512i widened_f8e4m3(__m256i codes) {
    const __m512i code = _mm512_cvtepu8_epi16(codes), size = _mm512_and_si512(code, _mm512_set1_epi16(0x7f));
    const __m512i small = _mm512_castsi128_si512(_mm_load_si128((const __m128i*)As::kSmall.value));
    __m512i v = _mm512_add_epi16(_mm512_slli_epi16(size, As::kUp), _mm512_set1_epi16(As::kMore));
    v = _mm512_mask_permutexvar_epi16(v, _mm512_cmplt_epi16_mask(size, _mm512_set1_epi16(8)), size, small);
    const __mmask32 nan = _mm512_cmpeq_epi16_mask(size, _mm512_set1_epi16(0x7f));
    v = _mm512_mask_mov_epi16(v, nan, _mm512_set1_epi16(As::kNan));
    const __m512i sign = _mm512_set1_epi16((short)0x8000);
    return _mm512_ternarylogic_epi32(v, _mm512_slli_epi16(code, 8), sign, 0xf8);  // v | code << 8 & sign
  }
  static __m128i narrow_f8e4m3(F v) {
    const __m512i u = _mm512_castps_si512(v),
                  sign = _mm512_and_si512(_mm512_srli_epi32(u, 24), _mm512_set1_epi32(0x80));
    const __m512i most = _mm512_set1_epi32(0x43e00000);  // 448
    const __m512i a = _mm512_min_epi32(_mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff)), most);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(a, 20), _mm512_set1_epi32(1));
    const __m512i near = _mm512_add_epi32(_mm512_sub_epi32(a, _mm512_set1_epi32(0x3c000000 - 0x7ffff)), odd);
    const F shifted = _mm512_castsi512_ps(a) + set(0x1p14f);
    const __m512i small = _mm512_and_si512(_mm512_castps_si512(shifted), _mm512_set1_epi32(15));
    const __mmask16 low = _mm512_cmplt_epi32_mask(a, _mm512_set1_epi32(0x3c800000));
    const __m512i code = _mm512_mask_mov_epi32(_mm512_srli_epi32(near, 20), low, small);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi8(_mm512_or_si512(sign, _mm512_mask_mov_epi32(code, nan, _mm512_set1_epi32(0x7f))));
  }
  // To nearest even in integers: the instruction for it flushes denormals.
  static __m256i narrow_bf16(F v) {
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i near = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(near, nan, quiet), 16));
  }
};

}  // namespace
}  // namespace kw::cpu
