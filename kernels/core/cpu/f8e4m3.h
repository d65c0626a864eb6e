// How f8e4m3 becomes a float of 16 bits, which holds every value of it: constants for core/cpu/simd_<isa>.h. The fields of a code move
// up and its exponent grows by a constant; the eight values below 2^-6, which have no leading one, come from a table.
#pragma once
#include <stdint.h>

namespace kw::cpu {
namespace {

template <int kFraction, int kBias>
struct alignas(16) F8e4m3Small {
  uint16_t value[8] = {};  // of 0 to 7 times 2^-9
  constexpr F8e4m3Small() {
    for (int i = 1; i < 8; ++i) {
      const int first = i >= 4 ? 2 : i >= 2 ? 1 : 0;
      value[i] = static_cast<uint16_t>((kBias - 9 + first) << kFraction | (i ^ 1 << first) << (kFraction - first));
    }
  }
};

template <int kFraction, int kBias>
struct F8e4m3As {
  static constexpr int kUp = kFraction - 3;                                // places
  static constexpr int16_t kMore = (kBias - 7) << kFraction;               // to the exponent
  static constexpr int16_t kNan = 0x7fff & ~((1 << (kFraction - 1)) - 1);  // quiet
  static constexpr F8e4m3Small<kFraction, kBias> kSmall{};

  static uint16_t of(uint8_t code) {
    const int size = code & 0x7f, sign = (code & 0x80) << 8;
    const int value = size < 8 ? kSmall.value[size] : size == 0x7f ? kNan : (size << kUp) + kMore;
    return static_cast<uint16_t>(sign | value);
  }
};

// Bytes of bf16 by halves of a code without its sign: four places up, a half goes to each byte.
struct alignas(16) F8e4m3Bf16Bytes {
  uint8_t high[16] = {}, low[16] = {};              // by the upper half, by the lower one
  uint8_t small_high[16] = {}, small_low[16] = {};  // of values below 2^-6
  constexpr F8e4m3Bf16Bytes() {
    using As = F8e4m3As<7, 127>;
    for (int i = 0; i < 16; ++i) {
      high[i] = static_cast<uint8_t>((As::kMore >> 8) + i), low[i] = static_cast<uint8_t>(i << 4);
      small_high[i] = static_cast<uint8_t>(As::kSmall.value[i % 8] >> 8);
      small_low[i] = static_cast<uint8_t>(As::kSmall.value[i % 8]);
    }
  }
};
constexpr F8e4m3Bf16Bytes kF8e4m3Bf16Bytes;

using F8e4m3AsF16 = F8e4m3As<10, 15>;
using F8e4m3AsBf16 = F8e4m3As<7, 127>;

}  // namespace
}  // namespace kw::cpu
