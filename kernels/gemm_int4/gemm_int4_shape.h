// GemmInt4Args with optional dimensions resolved: what every backend computes from.
#pragma once
#include <string>

#include "../core/numeric.h"
#include "../gemm/gemm_shape.h"
#include "gemm_int4.h"

namespace kw {

constexpr int kInt4Rows = 16;  // of w in a panel of its packed format, and in a run of their scales and zeros

// The packed formats, the same for every instruction set: words of eight neighbours along k, those of sixteen rows side by
// side, [rows_w / 16][k / 8][16]; scales and zeros in the same order, [rows_w / 16][groups][16].
constexpr PanelFormat kInt4Panels{kInt4Rows, 8, 32};
constexpr PanelFormat int4_sides(int64_t groups) { return {static_cast<int>(groups), kInt4Rows, kInt4Rows}; }
constexpr int64_t kInt4MostPackedGroups = 65535;  // a format counts no more rows

// Where a group's scale or zero point of a row of w is, in elements.
struct Int4Sides {
  int64_t group = 0, run = kInt4Rows;  // from one group to the next, from one run of rows
  int64_t at(int64_t g, int64_t r) const { return g * group + r / kInt4Rows * run + r % kInt4Rows; }
};

struct GemmInt4Shape {
  GemmShape gemm;  // x, bias, residual, y and the extents; w holds the 4-bit rows, `row` elements apart; c is absent
  int64_t groups = 1, group = 0;
  int64_t block = 0;   // neighbours of x that share a scale where x is rounded to int8
  GemmOperand scales;  // [groups, rows_w]
  Int4Sides scales_at, zeros_at;
  void* zeros = nullptr;  // u4 [groups, rows_w] without gaps; null: 8 everywhere, or nf4
  void* perm = nullptr;   // i32 [k], null: as they come
  bool normal_float = false;

  // q - zero as an exact whole number, or the quantile.
  float code(int64_t r, int64_t p) const {
    const int64_t word = gemm.w.format ? (r / kInt4Rows * (gemm.k / 8) + p / 8) * kInt4Rows + r % kInt4Rows : 0;
    const int q = nibble(gemm.w.data, gemm.w.format ? word * 8 + p % 8 : r * gemm.k + p);
    if (normal_float) return kNormalFloat4[q];
    return static_cast<float>(q - (zeros ? nibble(zeros, zeros_at.at(p / group, r)) : 8));
  }
  float scale(int64_t r, int64_t p) const { return load_f32(scales.data, scales.dtype, scales_at.at(p / group, r)); }
};

inline GemmInt4Shape resolve(const GemmInt4Args& args) {
  GemmInt4Shape s;
  GemmShape& g = s.gemm;
  g.batch = args.y.rank > 2 ? args.y.dim(-3) : 1;
  g.m = args.y.dim(-2), g.n = args.y.dim(-1);
  g.rows_w = is_gated(args.activation) ? 2 * g.n : g.n;
  g.k = args.x.dim(-1);
  g.x = resolve_operand(args.x);
  g.w.data = args.w.data, g.w.dtype = args.w.dtype, g.w.format = args.w.format, g.w.row = g.k;
  g.bias = resolve_operand(args.bias);
  g.residual = resolve_operand(args.residual);
  g.y = resolve_operand(args.y);
  s.groups = args.scales.dim(-2);
  s.group = s.groups > 0 ? g.k / s.groups : 0;
  s.block = s.group % 128 == 0 ? 128 : s.group % 64 == 0 ? 64 : 32;
  s.scales = resolve_operand(args.scales);
  s.zeros = args.zeros.data;
  const Int4Sides packed{kInt4Rows, kInt4Rows * s.groups};
  s.scales_at = args.scales.format ? packed : Int4Sides{s.scales.row};
  s.zeros_at = args.zeros.format ? packed : Int4Sides{g.rows_w};
  s.perm = args.perm.data;
  s.normal_float = args.w.dtype == DType::nf4;
  return s;
}

// Throws INDEX unless every value of perm, which lies in host memory, is a column of x.
inline void check_perm(const GemmInt4Shape& s) {
  const auto* perm = static_cast<const int32_t*>(s.perm);
  for (int64_t p = 0; perm && p < s.gemm.k; ++p) {
    if (perm[p] >= 0 && perm[p] < s.gemm.k) continue;
    throw Error(Code::INDEX, "gemm_int4: perm[" + std::to_string(p) + "] is " + std::to_string(perm[p]) +
                                 ", expected 0 to " + std::to_string(s.gemm.k - 1));
  }
}

}  // namespace kw
