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
//   a row that sees no key, or none whose score is above -inf, gives y = 0, and lse = -inf (sink[h] where there is a sink).
//
// Shapes, any strides with the last dimension contiguous:
//   q [batch, len_q, heads_q, dim]      k [batch, len_kv, heads_kv, dim]      v [batch, len_kv, heads_kv, dim_v]
//   bias [batch, heads_q, len_q, len_kv] and mask [batch, heads_q, ceil(len_q / mask_block_q), ceil(len_kv / mask_block_kv)]:
//     batch and heads may be 1 (or have stride 0), which broadcasts
//   alibi, sink [heads_q]
//   lens_q, lens_kv [batch]: the lengths of each batch, at most len_q and len_kv; they take the place of len_q and len_kv in
//     everything above. Rows of q past a length give y = 0 and lse = -inf, with a sink too
//   cu_q, cu_kv [sequences + 1], both or neither, and without lens: packed sequences of different length. batch is 1, len_q and
//     len_kv count all tokens, sequence n is rows cu[n] to cu[n + 1] of each, and everything above holds within it, i and j
//     (of bias and mask too) counted from where it begins. Rows of q in no sequence give y = 0 and lse = -inf
//   y [batch, len_q, heads_q, dim_v]      lse [batch, heads_q, len_q]
// Dtypes: q, k, v alike, one of f32, bf16, f16; y one of f32, bf16, f16; bias one of f32, bf16, f16; mask u8; alibi, sink, lse f32;
//   lens and cu i32. dim and dim_v from 1 to 256.
// A length below 0 or past the tensor, or a cu that decreases, is INDEX: `attention_gqa: lens_kv[1] is 9, expected 0 to 8`.
// Keys and values past a length or outside every sequence are never read, whatever memory holds there. A NaN or infinity in the
// v of a key that is there, but not visible to some row, may reach that row: kernels multiply it by 0.
//
// Rounding points: products and sums in f32; exp(s - max) is rounded to the dtype of q before it multiplies v (the sum that
// normalises keeps f32); one rounding to y's dtype at the end. A backend may round less.
// Tolerance (core/reference.h), with u = 2^-24, w = exp(s - lse), n visible keys, and for each of them
//   e:    4 u (√dim |scale| max|q k| + |t| + |bias| + |alibi (p - j)| + |s - max s| + 1), the error of a score and its exponential;
//   y:    4 u √n max|v| + Σ w e |v - y| + 4 √Σ (r v)²,  r the rounding of w: 2^-9 w (bf16), max(2^-12 w, 2^-25 exp(max s - lse)) (f16),
//         0 (f32), the last term being what many roundings of either sign add up to;
//   lse:  4 u (√n + |lse|) + Σ w e.
// bf16 denormals may count as 0 (vdpbf16ps): with bf16 inputs e has dim |scale| 2^-126 (1 + max|q| + max|k|), and y has 2^-125, more.
//
// Work: 2 (dim + dim_v) FLOPs for each head and each pair of a row and a key it sees; bytes are every operand once. A decode
// step does heads_q / heads_kv FLOPs a byte of f32 (twice that of bf16), so it runs at the speed of memory; a prefill of 1024
// causal tokens with 32 / 8 heads of 128 does 8.6 GFLOP on 42 MB and runs at the speed of arithmetic.
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
  float scale = 0;    // the declaration's default is 1 / sqrt(dim)
  float softcap = 0;  // 0: off
  bool causal = false;
  int64_t window_left = -1;  // -1: no bound
  int64_t window_right = -1;
  int64_t mask_block_q = 1;
  int64_t mask_block_kv = 1;
  bool batch_invariant =
      false;  // a row's result does not depend on what else is computed, nor on how many threads do it
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
