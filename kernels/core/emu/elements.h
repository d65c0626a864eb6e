// 16-bit elements and the inner product of 16 rows that mma.sync and wgmma share.
#pragma once
#include <cstdint>

#include "../numeric.h"

namespace kw::emu {

inline float element(uint16_t bits, bool f16) { return f16 ? f16_to_f32(bits) : bf16_to_f32(bits); }

// The two elements of a register, the lower half first, `stride` floats apart.
inline void load_pair(float* to, int stride, uint32_t pair, bool f16) {
  to[0] = element(static_cast<uint16_t>(pair), f16);
  to[stride] = element(static_cast<uint16_t>(pair >> 16), f16);
}

// d[16][n] += a[16][16] b[16][n], k ascending.
void multiply_add(float* d, const float* a, const float* b, int n);

}  // namespace kw::emu
