// 4-bit elements in plain C++: struct Nibbles as nibbles_avx512.h describes it.
#pragma once
#include <string.h>

#include "simd_generic.h"

namespace kw::cpu {
namespace {

struct Nibbles {
  using F = Simd::F;
  using I = Simd::I;

  static I unit(const uint8_t* p) {
    I v;
    memcpy(&v, p, sizeof(v));
    return v;
  }
  static F at(const F (&table)[4], I index) {
    F v{};
    for (int l = 0; l < 4; ++l) v[l] = table[index[l] >> 2 & 3][index[l] & 3];
    return v;
  }
  struct Bytes {
    uint8_t low[16], high[16];
  };
  static Bytes bytes(const uint8_t* p, int) {
    Bytes b;
    for (int i = 0; i < 16; ++i) b.low[i] = p[i] & 15, b.high[i] = p[i] >> 4;
    return b;
  }
  static I dot(const Bytes& w, const int8_t* x, I v) {
    for (int i = 0; i < 16; ++i) v[i / 4] += w.low[i] * x[i] + w.high[i] * x[16 + i];
    return v;
  }
  static constexpr bool kWide = true;
  static I quad(I sum, I w, I x) {
    const auto* codes = reinterpret_cast<const uint8_t*>(&w);
    const auto* bytes = reinterpret_cast<const int8_t*>(&x);
    for (int i = 0; i < 16; ++i) sum[i / 4] += codes[i] * bytes[i];
    return sum;
  }
  static I widened(I sum) { return sum; }
  static void apart(F v, int8_t* even, int8_t* odd) {
    for (int i = 0; i < 2; ++i) even[i] = static_cast<int8_t>(v[2 * i]), odd[i] = static_cast<int8_t>(v[2 * i + 1]);
  }
  static F spread(const float* p) { return Simd::set(*p); }
  static F whole(I v) {
    return F{static_cast<float>(v[0]), static_cast<float>(v[1]), static_cast<float>(v[2]), static_cast<float>(v[3])};
  }
  static F nearest(F v) {
    return F{__builtin_nearbyintf(v[0]), __builtin_nearbyintf(v[1]), __builtin_nearbyintf(v[2]),
             __builtin_nearbyintf(v[3])};
  }
};

}  // namespace
}  // namespace kw::cpu
