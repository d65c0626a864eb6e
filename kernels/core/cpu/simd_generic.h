// Plain C++ vectors of four lanes (SSE2 on x86-64, NEON on arm64, through the compiler's vector types): struct Simd as
// simd_avx512.h describes it.
#pragma once
#include <stdint.h>

#include "../numeric.h"
#include "f8e4m3.h"

namespace kw::cpu {
namespace {

struct Simd {
  static constexpr int kWidth = 4;
  typedef float F __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));

  static F set(float v) { return F{v, v, v, v}; }
  static F fma(F a, F b, F c) { return a * b + c; }  // may round twice
  static F fnma(F a, F b, F c) { return c - a * b; }
  static float sum(F v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static float top(F v) {
    const float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
  }

  static F load(const float* p) { return F{p[0], p[1], p[2], p[3]}; }
  static F load(const float* p, int n) {
    return gather(p, n, [](float v) { return v; });
  }
  static void store(float* p, F v) { store(p, v, 4); }
  static void store(float* p, F v, int n) {
    scatter(p, v, n, [](float f) { return f; });
  }

  static void stream(float* p, F v) { *(F*)p = v; }  // plain C++ has no such store
  static void fence() {}

  static F load_f16(const uint16_t* p, int n = 4) { return gather(p, n, f16_to_f32); }
  static void store_f16(uint16_t* p, F v, int n) { scatter(p, v, n, f32_to_f16); }
  static F load_bf16(const uint16_t* p, int n = 4) { return gather(p, n, bf16_to_f32); }
  static void store_bf16(uint16_t* p, F v, int n) { scatter(p, v, n, f32_to_bf16); }
  static F load_f8e4m3(const uint8_t* p, int n) { return gather(p, n, f8e4m3_to_f32); }
  static void store_f8e4m3(uint8_t* p, F v, int n) { scatter(p, v, n, f32_to_f8e4m3); }
  template <class As>
  static void widen_f8e4m3(uint16_t* to, const uint8_t* from, int64_t n) {
    for (int64_t e = 0; e < n; ++e) to[e] = As::of(from[e]);
  }

  static void transpose(F (&r)[kWidth]) {
    const F a = r[0], b = r[1], c = r[2], d = r[3];
    for (int i = 0; i < 4; ++i) r[i] = F{a[i], b[i], c[i], d[i]};
  }

  static F sums(const F (&r)[kWidth]) {
    F t[kWidth] = {r[0], r[1], r[2], r[3]};
    transpose(t);
    return (t[0] + t[2]) + (t[1] + t[3]);
  }

 private:
  template <class T, class Convert>
  static F gather(const T* p, int n, Convert convert) {
    F v{};
    for (int i = 0; i < kWidth; ++i) {
      if (i < n) v[i] = convert(p[i]);
    }
    return v;
  }
  template <class T, class Convert>
  static void scatter(T* p, F v, int n, Convert convert) {
    for (int i = 0; i < kWidth; ++i) {
      if (i < n) p[i] = convert(v[i]);
    }
  }
};

}  // namespace
}  // namespace kw::cpu
