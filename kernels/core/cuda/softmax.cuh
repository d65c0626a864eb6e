// Pieces of a softmax that is taken a block of scores at a time (arXiv 1805.02867), for scores in the accumulators of
// m16n8k16, where the four lanes of a quad share a row. Sums are in f32; a row without scores has the maximum -inf.
#pragma once
#include "ptx.cuh"

namespace kw {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

KW_DEVICE float negative_infinity() { return -__uint_as_float(0x7f800000u); }

// Over lanes that differ in the bits of kLanes - 1; every lane gets the result, always summed in the same order.
template <int kLanes>
KW_DEVICE float lanes_max(float x) {
#pragma unroll
  for (int bit = 1; bit < kLanes; bit *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bit));
  return x;
}
template <int kLanes>
KW_DEVICE float lanes_sum(float x) {
#pragma unroll
  for (int bit = 1; bit < kLanes; bit *= 2) x += __shfl_xor_sync(0xffffffffu, x, bit);
  return x;
}

// What is subtracted in the exponent: a row that is all -inf must give 0, not exp(-inf + inf).
KW_DEVICE float finite_or_zero(float maximum) { return maximum == negative_infinity() ? 0.0f : maximum; }

// Two f32 rounded to nearest even and packed, the first in the low half.
template <bool kBf16>
KW_DEVICE uint32_t pack2(float low, float high) {
  if constexpr (kBf16) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

// d += a b with f32 accumulation; bf16 or f16 operands.
template <bool kBf16>
KW_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kBf16) {
    ptx::mma_m16n8k16_bf16(d, a, b, d);
  } else {
    ptx::mma_m16n8k16_f16(d, a, b, d);
  }
}

}  // namespace kw
