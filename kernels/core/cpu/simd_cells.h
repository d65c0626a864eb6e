// How f32, f16 and bf16 elements become the 32-bit cells that products are summed over, over core/cpu/simd_<isa>.h, which must
// be included before: one element a cell, widened to f32. simd_pairs.h has the cells of two.
#pragma once
#include "../tensor.h"

namespace kw::cpu {
namespace {

using F = Simd::F;

template <class T>
T lesser(T a, T b) {
  return a < b ? a : b;
}

// n lanes of f32, f16 or bf16, at element `at` of p.
inline F load_as(DType dtype, const void* p, int64_t at, int n) {
  if (dtype == DType::f32) return Simd::load(static_cast<const float*>(p) + at, n);
  const auto* half = static_cast<const uint16_t*>(p) + at;
  return dtype == DType::f16 ? Simd::load_f16(half, n) : Simd::load_bf16(half, n);
}

inline void store_as(DType dtype, void* p, int64_t at, F v, int n) {
  if (dtype == DType::f32) return Simd::store(static_cast<float*>(p) + at, v, n);
  auto* half = static_cast<uint16_t*>(p) + at;
  dtype == DType::f16 ? Simd::store_f16(half, v, n) : Simd::store_bf16(half, v, n);
}

// The same for operators that take f8e4m3 as well.
inline F load_any(DType dtype, const void* p, int64_t at, int n) {
  if (dtype == DType::f8e4m3) return Simd::load_f8e4m3(static_cast<const uint8_t*>(p) + at, n);
  return load_as(dtype, p, at, n);
}

inline void store_any(DType dtype, void* p, int64_t at, F v, int n) {
  if (dtype == DType::f8e4m3) return Simd::store_f8e4m3(static_cast<uint8_t*>(p) + at, v, n);
  store_as(dtype, p, at, v, n);
}

// Cells. load: a vector of cells along k, n elements; across: one cell of each of n rows, element k and, where a cell holds two,
// the one `stride` further, unless it is past the end. widen: n elements of f8e4m3 as those that cells are made of.
struct F32Cells {
  using T = float;
  static constexpr int kPerCell = 1;
  static F load(const T* p) { return Simd::load(p); }
  static F load(const T* p, int n) { return Simd::load(p, n); }
  static F across(const T* p, int64_t, bool, int n) { return Simd::load(p, n); }
  static void widen(T* to, const uint8_t* from, int64_t n) {
    for (int64_t e = 0; e < n; e += Simd::kWidth) {
      const int count = static_cast<int>(lesser<int64_t>(n - e, Simd::kWidth));
      Simd::store(to + e, Simd::load_f8e4m3(from + e, count), count);
    }
  }
};
struct F16Cells {
  using T = uint16_t;
  static constexpr int kPerCell = 1;
  static F load(const T* p) { return Simd::load_f16(p); }
  static F load(const T* p, int n) { return Simd::load_f16(p, n); }
  static F across(const T* p, int64_t, bool, int n) { return Simd::load_f16(p, n); }
  static void widen(T* to, const uint8_t* from, int64_t n) { Simd::widen_f8e4m3<F8e4m3AsF16>(to, from, n); }
};
struct Bf16Cells {
  using T = uint16_t;
  static constexpr int kPerCell = 1;
  static F load(const T* p) { return Simd::load_bf16(p); }
  static F load(const T* p, int n) { return Simd::load_bf16(p, n); }
  static F across(const T* p, int64_t, bool, int n) { return Simd::load_bf16(p, n); }
  static void widen(T* to, const uint8_t* from, int64_t n) { Simd::widen_f8e4m3<F8e4m3AsBf16>(to, from, n); }
};

struct Fma {
  static F mul_add(F a, F b, F c) { return Simd::fma(a, b, c); }
};

}  // namespace
}  // namespace kw::cpu
