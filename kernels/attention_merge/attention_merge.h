// Merging attention over parts of the keys, as attention_gqa and its kin give it, into attention over all of them.
//
//   lse[b,h,i]  = ln(sum over parts n of exp(lse_parts[n,b,h,i]))
//   y[b,i,h,:]  = sum over parts n of exp(lse_parts[n,b,h,i] - lse[b,h,i]) * y_parts[n,b,i,h,:]
//   a part whose lse is -inf has seen no key: it contributes nothing, whatever its y holds (it is not read, so NaN does not
//   spread); a row of such parts alone gives y = 0 and lse = -inf.
//
// This is exact when the parts see disjoint sets of keys. A sink is like a key: it belongs to one part alone, so give it to one
// attention_gqa and to no other. Merging is associative, so results may be merged again.
//
// Shapes, any strides with the last dimension of y_parts and y contiguous:
//   y_parts [parts, batch, len_q, heads_q, dim_v]      lse_parts [parts, batch, heads_q, len_q]
//   y [batch, len_q, heads_q, dim_v]                   lse [batch, heads_q, len_q]
// Dtypes: y_parts and y each one of f32, bf16, f16; lse_parts and lse f32.
//
// Rounding points: products and sums in f32, one rounding to y's dtype at the end.
// Tolerance (core/reference.h), with u = 2^-24, w = exp(lse_parts - lse), e = 4 u (|lse_parts| + |lse| + 1):
//   y: 4 u √parts max|y_parts| + Σ w e |y_parts - y|;  lse: 4 u (√parts + |lse|) + Σ w e.
//
// Work: 2 FLOPs for each element of y_parts; bytes are every operand once. It runs at the speed of memory: 0.5 FLOP a byte of f32.
//
// Source: Rabe and Staats 2021 (arXiv 2112.05682); Dao et al. 2022 (arXiv 2205.14135).
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"

namespace kw {

struct AttentionMergeArgs {
  uint64_t size = sizeof(AttentionMergeArgs);
  ConstTensor y_parts;
  ConstTensor lse_parts;
  Tensor y;
  Tensor lse;
};
KW_FIELDS(AttentionMergeArgs, y_parts, lse_parts, y, lse)

namespace ref {
void attention_merge(const AttentionMergeArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& attention_merge();
}

}  // namespace kw
