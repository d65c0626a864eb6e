// GemmArgs with optional and broadcast dimensions and the trans flags resolved: what every backend computes from.
#pragma once
#include "../core/packed.h"
#include "gemm.h"

namespace kw {

// Element (b, i, j) of an operand is at data[b * batch + i * row + j * column], in elements; a stride of 0 repeats.
// Strides of dimensions that hold at most one element are normalised: 0, or 1 where the dimension is stored last.
struct GemmOperand {
  void* data = nullptr;  // null: absent, or not to be read
  DType dtype = DType::f32;
  int64_t batch = 0, row = 0, column = 1;
  uint64_t format = 0;  // w alone: packed, [matrix][panels], `batch` elements between matrices (core/packed.h)
};

struct GemmShape {
  int64_t batch = 1, m = 0, n = 0;
  int64_t rows_w = 0;    // n, or 2 n with a gated activation: rows n .. 2 n - 1 are the up rows
  int64_t k = 0;         // 0 also when alpha is 0: then neither x nor w is read
  GemmOperand x;         // [batch, m, k]
  GemmOperand w;         // [batch, rows_w, k]
  GemmOperand c;         // [batch, m, rows_w]; data is null when absent or when beta is 0
  GemmOperand bias;      // [rows_w] along columns
  GemmOperand residual;  // [batch, m, n]
  GemmOperand y;         // [batch, m, n]
};

// A stored [batch?, rows, columns] tensor, or [columns] when its rank is 1. transposed: stored [batch?, columns, rows].
inline GemmOperand resolve_operand(const TensorView& t, bool transposed = false) {
  GemmOperand o;
  if (!t.present()) return o;
  o.data = t.data;
  o.dtype = t.dtype;
  if (t.format != 0) {
    const PackedExtent extent(t);
    o.format = t.format, o.row = extent.k;
    o.batch = extent.matrices > 1 ? extent.matrix() : 0;
    return o;
  }
  o.batch = t.rank > 2 && t.dim(-3) > 1 ? t.step(-3) : 0;
  const int64_t outer = t.rank > 1 && t.dim(-2) > 1 ? t.step(-2) : 0;
  const int64_t inner = t.dim(-1) > 1 ? t.step(-1) : 1;
  o.row = transposed ? inner : outer;
  o.column = transposed ? outer : inner;
  return o;
}

inline GemmShape resolve(const GemmArgs& args) {
  GemmShape s;
  s.batch = args.y.rank > 2 ? args.y.dim(-3) : 1;
  s.m = args.y.dim(-2);
  s.n = args.y.dim(-1);
  s.rows_w = is_gated(args.activation) ? 2 * s.n : s.n;
  s.k = args.alpha == 0 ? 0 : args.x.dim(args.trans_x ? -2 : -1);
  s.x = resolve_operand(args.x, args.trans_x);
  s.w = resolve_operand(args.w, args.trans_w);
  s.c = resolve_operand(args.c);
  if (args.beta == 0) s.c.data = nullptr;
  s.bias = resolve_operand(args.bias);
  s.residual = resolve_operand(args.residual);
  s.y = resolve_operand(args.y);
  return s;
}

// One w for every batch, and rows that continue from batch to batch: the same problem with batch * m rows.
inline GemmShape fold_batch(const GemmShape& shape) {
  GemmShape s = shape;
  if (s.batch <= 1 || s.w.batch != 0 || s.x.column != 1) return shape;
  for (GemmOperand* o : {&s.x, &s.c, &s.residual, &s.y}) {
    if (!o->data) continue;
    if (s.m == 1) o->row = o->batch;
    if (o->batch != s.m * o->row) return shape;
  }
  s.m *= s.batch, s.batch = 1;
  return s;
}

}  // namespace kw
