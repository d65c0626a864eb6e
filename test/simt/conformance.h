// An independent model of what ptx.cuh wraps, in plain C++ from the PTX ISA's own words: fragment layouts as functions
// of lane and register, matrices as plain arrays. Shares no code with the emulator.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "device.h"
#include "harness.h"
#include "random.h"

namespace kw::test {

// ---- 16-bit floats -----------------------------------------------------------------------------
inline float from_bf16(uint16_t bits) {
  const uint32_t word = uint32_t{bits} << 16;
  float f;
  std::memcpy(&f, &word, 4);
  return f;
}
// Sign, 5 bits of exponent with bias 15, 10 of fraction.
inline float from_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                           : exponent == 31 ? (fraction ? NAN : INFINITY)
                                            : std::ldexp(1024 + fraction, exponent - 25);
  return static_cast<float>(bits & 0x8000 ? -magnitude : magnitude);
}
inline float from_16(uint16_t bits, bool f16) { return f16 ? from_f16(bits) : from_bf16(bits); }
// Small integers, exact in both types, or any value in (-1, 1).
inline uint16_t random_16(Random& random, bool f16, bool integers) {
  const float value = integers ? static_cast<float>(random.below(9)) - 4 : random.uniform(-1, 1);
  uint16_t bits;
  if (f16) {
    const __half h = __float2half_rn(value);
    std::memcpy(&bits, &h, 2);
  } else {
    const __nv_bfloat16 b = __float2bfloat16_rn(value);
    std::memcpy(&bits, &b, 2);
  }
  return bits;
}

// ---- fragments ---------------------------------------------------------------------------------
struct Place {
  int row, column;
};
// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": element i of A, B and C in a lane.
inline Place place_a16(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  const int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
  const int column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
  return {row, column};
}
inline Place place_b16(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8, group};
}
inline Place place_c(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i < 2 ? group : group + 8, in_group * 2 + (i & 1)};
}
// "Matrix Fragments for mma.m16n8k32" with 8-bit integers.
inline Place place_a8(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  const int row = (i >= 0 && i < 4) || (i >= 8 && i < 12) ? group : group + 8;
  const int column = i < 8 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16;
  return {row, column};
}
inline Place place_b8(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i < 4 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16, group};
}
// "Register Fragments for wgmma.mma_async.m64nNk16": element i of D in thread t of the warpgroup.
inline Place place_d64(int thread, int i) {
  const int warp = thread / 32, lane = thread % 32;
  return {warp * 16 + lane / 4 + 8 * ((i / 2) % 2), (i / 4) * 8 + (lane % 4) * 2 + i % 2};
}

// ---- swizzling ---------------------------------------------------------------------------------
// Swizzle<B,4,3> of a byte address: bits 4 .. 3 + B are XORed with bits 7 .. 6 + B. Span 32, 64, 128 bytes: B = 1, 2, 3.
inline uint32_t swizzle_address(uint32_t address, Swizzle mode) {
  const uint32_t b = static_cast<uint32_t>(mode);
  const uint32_t moved = (address >> 7) % (1u << b);
  return address ^ moved * 16;
}

inline const char* name_of(Swizzle s) {
  constexpr const char* names[] = {"none", "32B", "64B", "128B"};
  return names[static_cast<int>(s)];
}

}  // namespace kw::test
