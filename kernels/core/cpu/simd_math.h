// exp and the activations over Simd::F, to be included after one simd_<isa>.h. Largest error on every 211th f32: exp
// 1.12 units in the last place where the result is normal, the gates 2 * 2^-24 |x|. NaN stays NaN. The polynomials were
// fitted for this file (least maximum of the relative error).
#pragma once

namespace kw::cpu {
namespace {

using F = Simd::F;
using I = Simd::I;

inline F poly(F x, const float* c, int degree) {
  F p = Simd::set(c[degree]);
  for (int i = degree - 1; i >= 0; --i) p = Simd::fma(p, x, Simd::set(c[i]));
  return p;
}

// 2^n * polynomial(x - n ln 2), n = round(x / ln 2). Overflows to inf, underflows through the denormals to 0.
inline F exp(F x) {
  static constexpr float c[] = {1, 1, 0.49999993f, 0.1666652f, 0.041668388f, 0.008368711f, 0.0013814608f};
  const F low = Simd::set(-104), high = Simd::set(89),
          magic = Simd::set(12582912);  // 1.5 * 2^23: adding it rounds to integers
  x = x < low ? low : x;
  x = x > high ? high : x;
  const F shifted = Simd::fma(x, Simd::set(1.44269504f), magic), n = shifted - magic;
  F r = Simd::fma(n, Simd::set(-0.693359375f), x);  // ln 2 in two parts, the first exact times any n here
  r = Simd::fma(n, Simd::set(2.12194440e-4f), r);
  const I e = (I)shifted - (I)magic, half = e >> 1;
  return poly(r, c, 6) * (F)((half + 127) << 23) * (F)((e - half + 127) << 23);
}

// exp for weights relative to a largest one, x at most 88: what would be below 2^-126 is 0. Takes ln 2 in one part, 2^-28 from it:
// 1 + |x| / 24 ulp, in plain C++, which has no fused product, 1 + |x| ulp.
inline F exp_flushed(F x) {
  static constexpr float c[] = {1, 1, 0.49999993f, 0.1666652f, 0.041668388f, 0.008368711f, 0.0013814608f};
  const F shifted = Simd::fma(x, Simd::set(1.44269504f), Simd::set(12582912)), n = shifted - Simd::set(12582912);
  const F r = Simd::fma(n, Simd::set(-0.693147182f), x);
  const F power = (F)(((I)shifted << 23) + 0x3f800000);  // the low bits of `shifted` are those of n
  return x < Simd::set(-87.3365f) ? Simd::set(0) : poly(r, c, 6) * power;
}

// Lane by lane; a NaN in b stays, one in a is dropped.
inline F larger(F a, F b) { return a > b ? a : b; }

// Near 0 an odd polynomial, which keeps the relative error small; elsewhere 1 - 2 / (exp(2 |x|) + 1) with the sign of x. 1.4 ulp.
inline F tanh(F x) {
  static constexpr float c[] = {-0.33333328f, 0.1333277f, -0.053850908f, 0.02099718f, -0.006096714f};
  const F one = Simd::set(1), two = Simd::set(2), zero = Simd::set(0), a = x < zero ? -x : x, square = x * x;
  const F near = Simd::fma(x * square, poly(square, c, 4), x);
  const F far = one - two / (exp(two * a) + one);
  return a < Simd::set(0.625f) ? near : x < zero ? -far : far;
}

inline F relu(F x) { return x < Simd::set(0) ? Simd::set(0) : x; }

// x / (1 + exp(-x))
inline F silu(F x) { return x / (Simd::set(1) + exp(-x)); }

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
inline F gelu_tanh(F x) {
  const F minus_2u = x * Simd::fma(x * x, Simd::set(-0.0713548162726f), Simd::set(-1.59576912161f));
  return x / (Simd::set(1) + exp(minus_2u));
}

// x Phi(x) = max(x, 0) - a Phi(-a), a = |x|, and Phi(-a) = exp(-a^2 / 2) t P(1 - t), t = 1 / (1 + 0.3 a), 3.5e-9
// relative.
inline F gelu_erf(F x) {
  static constexpr float c[] = {0.5f,         -0.829807162f, 0.618145168f,  -0.0810196996f, -0.139732808f,
                                0.023364732f, 0.0101149157f, 0.0711738095f, -0.0731757656f, 0.0206235126f};
  const F zero = Simd::set(0), one = Simd::set(1), a = x < zero ? -x : x, scaled = Simd::set(0.3f) * a;
  const F t = one / (one + scaled), square = a * a, rest = Simd::fma(a, a, -square);  // a^2 = square + rest
  const F half = Simd::set(-0.5f), tail = exp(half * square) * Simd::fma(half, rest, one) * t * poly(scaled * t, c, 9);
  const F negative = x < zero ? x : zero;
  return relu(x) -
         (a > Simd::set(15) ? negative * zero : a * tail);  // beyond 15, Phi(-a) is 0 in f32 and -inf gives NaN
}

}  // namespace
}  // namespace kw::cpu
