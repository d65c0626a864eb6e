// Element types on the host: conversions between f32 and the shorter floats, access to elements by dtype, and the
// spacing of a dtype. Every conversion rounds to nearest even; NaN stays NaN, infinities and denormals are exact. None
// of it depends on the instruction set or on flush-to-zero modes.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "error.h"
#include "tensor.h"

namespace kw {

inline float bf16_to_f32(uint16_t h) { return std::bit_cast<float>(uint32_t{h} << 16); }

inline uint16_t f32_to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u)
    return static_cast<uint16_t>(u >> 16 | 0x0040u);  // quiet, so it cannot become inf
  return static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  if (mantissa == 0) return std::bit_cast<float>(sign);
  const int shift = std::countl_zero(mantissa) - 21;  // places until the leading one reaches bit 10
  return std::bit_cast<float>(sign | static_cast<uint32_t>(113 - shift) << 23 | (mantissa << shift & 0x3ffu) << 13);
}

inline uint16_t f32_to_f16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f), a = u & 0x7fffffffu, sign = u >> 16 & 0x8000u;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (a >> 13 & 0x3ffu));
  if (a >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and above: infinity
  if (a >= 0x38800000u) return static_cast<uint16_t>(sign | (a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13);
  if (a < 0x33000000u) return static_cast<uint16_t>(sign);  // below 2^-25: zero
  const uint32_t shift = 126 - (a >> 23);                   // denormal: keep the bits of weight 2^-24 and up
  const uint32_t mantissa = (a & 0x7fffffu) | 0x800000u, kept = mantissa >> shift;
  const uint32_t rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
  return static_cast<uint16_t>(sign | (kept + (rest > half || (rest == half && (kept & 1u)))));
}

// f8e4m3: four bits of exponent, three of fraction, no infinity; NaN is 0x7f. Moved up one place, its fields are those of f16
// with an exponent that is 8 too small.
inline float f8e4m3_to_f32(uint8_t code) {
  if ((code & 0x7f) == 0x7f) return std::bit_cast<float>(uint32_t{code & 0x80u} << 24 | 0x7fc00000u);
  return 256 * f16_to_f32(static_cast<uint16_t>((code & 0x80) << 8 | (code & 0x7f) << 7));
}

// Saturates at 448, infinities too.
inline uint8_t f32_to_f8e4m3(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f), sign = u >> 24 & 0x80u;
  uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (a > 0x43e00000u) a = 0x43e00000u;  // 448
  // Below 2^-6 the codes are 2^-9 apart, as f32 is from 2^14 on.
  if (a < 0x3c800000u)
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(a) + 0x1p14f) & 15u));
  return static_cast<uint8_t>(sign | ((a - 0x3c000000u + 0x7ffffu + (a >> 20 & 1u)) >> 20));
}

// What operators compute with unless they say otherwise; f8e4m3 is for those that name it.
constexpr bool is_float(DType t) { return t == DType::f32 || t == DType::f16 || t == DType::bf16; }

// Element `index` of 4-bit ones, two to a byte, the even one in the low half.
inline int nibble(const void* data, int64_t index) {
  return static_cast<const uint8_t*>(data)[index >> 1] >> ((index & 1) * 4) & 15;
}

inline void store_nibble(void* data, int64_t index, int value) {
  uint8_t& byte = static_cast<uint8_t*>(data)[index >> 1];
  const int shift = (index & 1) * 4;
  byte = static_cast<uint8_t>((byte & 0xf0 >> shift) | (value & 15) << shift);
}
// A nibble as the whole number that it is in i4; in u4 and nf4 it is itself.
inline constexpr int nibble_value(DType dtype, int nibble) { return dtype == DType::i4 ? (nibble ^ 8) - 8 : nibble; }

// Element `index` (counted in elements from data) as f32. i32 values beyond 2^24 round.
inline float load_f32(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::f32:
      return static_cast<const float*>(data)[index];
    case DType::f16:
      return f16_to_f32(static_cast<const uint16_t*>(data)[index]);
    case DType::bf16:
      return bf16_to_f32(static_cast<const uint16_t*>(data)[index]);
    case DType::f8e4m3:
      return f8e4m3_to_f32(static_cast<const uint8_t*>(data)[index]);
    case DType::i32:
      return static_cast<float>(static_cast<const int32_t*>(data)[index]);
    case DType::i8:
      return static_cast<const int8_t*>(data)[index];
    case DType::u8:
      return static_cast<const uint8_t*>(data)[index];
    default:
      throw Error(Code::DTYPE, std::string("load_f32: dtype is ") + name(dtype) +
                                   ", expected f32, f16, bf16, f8e4m3, i32, i8 or u8");
  }
}

// Integers round to nearest even and saturate; NaN becomes 0.
inline void store_f32(void* data, DType dtype, int64_t index, float value) {
  const auto whole = [value](double low, double high) {
    return std::isnan(value) ? 0.0 : std::fmin(std::fmax(std::nearbyint(double{value}), low), high);
  };
  switch (dtype) {
    case DType::f32:
      static_cast<float*>(data)[index] = value;
      return;
    case DType::f16:
      static_cast<uint16_t*>(data)[index] = f32_to_f16(value);
      return;
    case DType::bf16:
      static_cast<uint16_t*>(data)[index] = f32_to_bf16(value);
      return;
    case DType::f8e4m3:
      static_cast<uint8_t*>(data)[index] = f32_to_f8e4m3(value);
      return;
    case DType::i32:
      static_cast<int32_t*>(data)[index] = static_cast<int32_t>(whole(-2147483648.0, 2147483647.0));
      return;
    case DType::i8:
      static_cast<int8_t*>(data)[index] = static_cast<int8_t>(whole(-128, 127));
      return;
    case DType::u8:
      static_cast<uint8_t*>(data)[index] = static_cast<uint8_t>(whole(0, 255));
      return;
    default:
      throw Error(Code::DTYPE, std::string("store_f32: dtype is ") + name(dtype) +
                                   ", expected f32, f16, bf16, f8e4m3, i32, i8 or u8");
  }
}

// value rounded to dtype and back.
inline float rounded(DType dtype, float value) {
  uint64_t storage = 0;
  store_f32(&storage, dtype, 0, value);
  return load_f32(&storage, dtype, 0);
}

// Spacing of dtype's numbers at |value|: 1 for integers, the smallest denormal near 0, the largest finite spacing
// beyond the range, NaN for NaN.
inline double ulp(DType dtype, double value) {
  const bool f8 = dtype == DType::f8e4m3;
  if (!is_float(dtype) && !f8) return 1;
  if (std::isnan(value)) return value;
  const int fraction = dtype == DType::f32 ? 23 : dtype == DType::f16 ? 10 : f8 ? 3 : 7;
  const int lowest = dtype == DType::f16 ? -14 : f8 ? -6 : -126, highest = dtype == DType::f16 ? 15 : f8 ? 8 : 127;
  int exponent = lowest;
  if (std::isinf(value)) {
    exponent = highest;
  } else if (value != 0) {
    exponent = std::ilogb(value);
  }
  exponent = exponent < lowest ? lowest : exponent > highest ? highest : exponent;
  return std::ldexp(1.0, exponent - fraction);
}

}  // namespace kw
