// Grouped-query attention: every group of heads_q / heads_kv query heads reads one key/value head.
// Multi-query attention is the case heads_kv = 1; multi-head attention is heads_kv = heads_q.
//
//   p         = i + len_kv - len_q, the place of query i among the keys, so that the last query sees every key
//   t[h,i,j]  = scale * q[i,h,:] . k[j,g,:],  g = h / (heads_q / heads_kv);  with softcap: t = softcap * tanh(t / softcap)
//   s[h,i,j]  = t + bias[h,i,j] - alibi[h] * |p - j|
//   visible   = j < len_kv, causal: j <= p, window_left >= 0: j >= p - window_left, window_right >= 0: j <= p + window_right,
//               mask: mask[h, i / mask_block_q, j / mask_block_kv] != 0
//   lse[h,i]  = ln(sum over visible j of exp(s[h,i,j])  (+ exp(sink[h])))
//   y[i,h,:]  = sum over visible j of exp(s[h,i,j] - lse[h,i]) * v[j,g,:]
//   a row that sees no key gives y = 0, and lse = -inf (sink[h] where there is a sink).
//
// Shapes, any strides with the last dimension contiguous:
//   q [batch, len_q, heads_q, dim]      k [batch, len_kv, heads_kv, dim]      v [batch, len_kv, heads_kv, dim_v]
//   bias [batch, heads_q, len_q, len_kv] and mask [batch, heads_q, ceil(len_q / mask_block_q), ceil(len_kv / mask_block_kv)]:
//     batch and heads may be 1 (or have stride 0), which broadcasts
//   alibi, sink [heads_q]      lens_q, lens_kv [batch]: rows past a length are not there (y = 0, lse = -inf; keys never read)
//   cu_q, cu_kv [sequences + 1]: packed sequences of different length. batch is 1, len_q and len_kv count all tokens, sequence n
//     is rows cu[n] to cu[n + 1] of each, and everything above holds within it
//   y [batch, len_q, heads_q, dim_v]      lse [batch, heads_q, len_q]
// Dtypes: q, k, v alike, one of f32, bf16, f16; y one of f32, bf16, f16; bias one of f32, bf16, f16; mask u8; alibi, sink, lse f32;
//   lens and cu i32. dim and dim_v from 1 to 256.
//
// Rounding points: products and sums in f32; exp(s - max) is rounded to the dtype of q before it multiplies v (the sum that
// normalises keeps f32); one rounding to y's dtype at the end.
// Tolerance (core/reference.h): c = 4, K = dim + visible keys, max|x||w| = max|v|.
//
// Source: Ainslie et al. 2023 (arXiv 2305.13245); Shazeer 2019 (arXiv 1911.02150); online softmax: arXiv 1805.02867; ALiBi:
// arXiv 2108.12409; sinks: arXiv 2309.17453.
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"

namespace kw {

struct AttentionGqaArgs {
  uint64_t size = sizeof(AttentionGqaArgs);
  ConstTensor q;
  ConstTensor k;
  ConstTensor v;
  OptionalConstTensor bias;
  OptionalConstTensor mask;
  OptionalConstTensor alibi;
  OptionalConstTensor sink;
  OptionalConstTensor lens_q;
  OptionalConstTensor lens_kv;
  OptionalConstTensor cu_q;
  OptionalConstTensor cu_kv;
  Tensor y;
  Tensor lse;
  float scale = 0;    // 1 / sqrt(dim) unless given
  float softcap = 0;  // 0: off
  bool causal = false;
  int64_t window_left = -1;  // -1: no bound
  int64_t window_right = -1;
  int64_t mask_block_q = 1;
  int64_t mask_block_kv = 1;
  bool batch_invariant = false;  // the split over keys depends on the capacity alone
};
KW_FIELDS(AttentionGqaArgs, q, k, v, bias, mask, alibi, sink, lens_q, lens_kv, cu_q, cu_kv, y, lse, scale, softcap,
          causal, window_left, window_right, mask_block_q, mask_block_kv, batch_invariant)

namespace ref {
void attention_gqa(const AttentionGqaArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& attention_gqa();
}

}  // namespace kw
