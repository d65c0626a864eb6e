// AVX-512 with vdpbf16ps: cells of two bf16, see simd_cells.h.
#pragma once
#include "simd_avx512.h"

namespace kw::cpu {
namespace {

struct Bf16Pairs {
  using T = uint16_t;
  static constexpr int kPerCell = 2;
  static Simd::F load(const T* p) { return Simd::load_pairs(p); }
  static Simd::F load(const T* p, int n) { return Simd::load_pairs(p, n); }
  static Simd::F across(const T* p, int64_t stride, bool second, int n) {
    return Simd::zip_pairs(p, second ? p + stride : nullptr, n);
  }
  static void widen(T* to, const uint8_t* from, int64_t n) { Simd::widen_f8e4m3<F8e4m3AsBf16>(to, from, n); }
  // f32 rounded to cells: lane i holds a[i] and b[i]; or elements 2 i and 2 i + 1 of a followed by b.
  static Simd::F zip(Simd::F a, Simd::F b) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a)));
  }
  static Simd::F along(Simd::F a, Simd::F b) { return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(b, a)); }
};

struct DotBf16 {
  static Simd::F mul_add(Simd::F a, Simd::F b, Simd::F c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
};

}  // namespace
}  // namespace kw::cpu
