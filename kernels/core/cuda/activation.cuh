// Activation functions in f32 for epilogues. NaN passes through. Where a product feeds a sum it is written as one fmaf, so
// that the result does not depend on what the compiler contracts around the call.
#pragma once
#include "launch.cuh"

namespace kw {

KW_DEVICE float relu(float x) { return x < 0 ? 0.0f : x; }

// x σ(x). Where expf(-x) overflows the result is -0, less than 3e-37 away.
KW_DEVICE float silu(float x) { return x / (1.0f + expf(-x)); }

// x Φ(x) = 0.5 x erfc(-x / √2): erfc keeps relative accuracy in the left tail, where 1 + erf would cancel.
KW_DEVICE float gelu_erf(float x) { return 0.5f * x * erfcf(x * -0.70710678f); }

// 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))
KW_DEVICE float gelu_tanh(float x) {
  const float half = 0.5f * x;
  return fmaf(half, tanhf(0.79788456f * x * fmaf(0.044715f * x, x, 1.0f)), half);
}

}  // namespace kw
