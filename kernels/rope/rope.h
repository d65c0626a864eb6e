// Rotary position embedding: pairs of columns of every head turned by angles that grow with the position.
//
//   pair j < r/2 of dim_rotary = r columns (0: all of them): columns (j, j + r/2), or (2 j, 2 j + 1) where `interleaved`
//   a = p f_j,   p = positions[b,i], or position + i without a tensor; any int32
//   y_first = m (x_first cos a - x_second sin a)      y_second = m (x_second cos a + x_first sin a)
//   columns from r on are copied.
//
//   f_j = theta^(-2 j / r), and by scaling, with s = factor:
//   none    f_j                                                                                   m = 1
//   linear  f_j / s                                                                               m = 1
//   llama3  wavelength w = 2 pi / f_j, n = original_context, l = low_freq_factor, h = high_freq_factor       m = 1
//           w < n / h: f_j;  w > n / l: f_j / s;  else t f_j + (1 - t) f_j / s,  t = (n / w - l) / (h - l)
//   yarn    (1 - t) f_j + t f_j / s,  t = clamp((j - low) / (high - low), 0, 1), the bounds whole and within 0 to r - 1 (equal
//           ones 0.001 apart): low = floor(d(beta_fast)), high = ceil(d(beta_slow)), d(b) = r ln(n / (2 pi b)) / (2 ln theta)
//           m = attention_factor, or where that is 0: 0.1 ln s + 1 for s > 1, else 1
//
// Shapes, any strides with the last dimension contiguous; y may be exactly the same view as x:
//   x, y [batch, len, heads, dim]      positions [batch, len], i32
// Dtypes: x and y each one of f32, bf16, f16.
//
// Angles: frequencies in double on the host, as turns f_j / 2 pi of 64 bits behind the point; p times that modulo 1 is exact in
// integers, so an angle is off by less than 2^-32 turns for |p| up to 2^20, and by |p| 2^-52 turns beyond: nothing is lost at
// positions of a million.
// Rounding points: cos and sin in f32, products and sums in f32, one rounding to y's dtype at the end.
// Tolerance (core/reference.h), with u = 2^-24: (4 u + |p| 2^-49) m (|x_first| + |x_second|).
//
// Work: 6 FLOPs for each pair; bytes are x and y once and positions. It runs at the speed of memory: below 1 FLOP a byte.
//
// Sources: Su et al. 2021 (arXiv 2104.09864); linear: Chen et al. 2023 (arXiv 2306.15595); YaRN: Peng et al. 2023 (arXiv
// 2309.00071); llama3: the Llama 3.1 release.
#pragma once
#include <cstdint>

#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"

namespace kw {

enum class RopeScaling : int32_t { none, linear, llama3, yarn };
KW_CHOICES(RopeScaling, none, linear, llama3, yarn)

struct RopeArgs {
  uint64_t size = sizeof(RopeArgs);
  ConstTensor x;
  OptionalConstTensor positions;
  Tensor y;
  int64_t position = 0;
  bool interleaved = false;
  int64_t dim_rotary = 0;
  float theta = 10000;
  RopeScaling scaling = RopeScaling::none;
  float factor = 1;
  float low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_context = 8192;
  float beta_fast = 32, beta_slow = 1;
  float attention_factor = 0;
};
KW_FIELDS(RopeArgs, x, positions, y, position, interleaved, dim_rotary, theta, scaling, factor, low_freq_factor,
          high_freq_factor, original_context, beta_fast, beta_slow, attention_factor)

namespace ref {
void rope(const RopeArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& rope();
}

}  // namespace kw
