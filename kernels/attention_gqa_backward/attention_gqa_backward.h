// The gradients of attention_gqa (its contract defines p, s, t, visible, sequences and shapes), from what the forward gave.
//
//   P[h,i,j]  = exp(min(s[h,i,j] - lse[h,i], 0)) where j is visible to i, else 0; where lse is -inf all are 0
//   D[h,i]    = dy[i,h,:] . y[i,h,:] - dlse[h,i]
//   S[h,i,j]  = P (dy[i,h,:] . v[j,g,:] - D[h,i]),  the gradient of a score
//   T[h,i,j]  = S, with softcap: S (1 - (t / softcap)^2), the gradient of scale q . k
//   dv[j,g,:] = sum over the heads h of group g and the rows i of P[h,i,j] dy[i,h,:]
//   dk[j,g,:] = scale * sum over the same of T[h,i,j] q[i,h,:]
//   dq[i,h,:] = scale * sum over j of T[h,i,j] k[j,g,:]
//   dbias     = S, summed over the batches, heads or sequences that share an element of bias; 0 where nothing is visible
//   dsink[h]  = - sum over the rows i of all batches of exp(min(sink[h] - lse[h,i], 0)) D[h,i]
//
// y and lse are what attention_gqa gave for the same inputs, dy and dlse the gradients of a loss by them. All are inputs like
// others: what comes out is defined for any numbers there, and the bound on P keeps it finite when they belong to another call.
// Slopes (alibi) get no gradient. Rows past a length or in no sequence have dq = 0 and count nowhere, whatever memory holds
// there; keys that are in no sequence or that nobody sees have dk = dv = 0.
//
// Shapes, any strides with the last dimension contiguous, as attention_gqa, and
//   y, dy [batch, len_q, heads_q, dim_v]      lse, dlse [batch, heads_q, len_q]      dq, dk, dv as q, k, v
//   bias [1 or batch, 1 or heads_q, len_q, len_kv]; dbias has the shape of bias, without elements when there is none
//   sink [heads_q]; dsink likewise
// Dtypes: q, k, v, dy alike, one of f32, bf16, f16; y, bias, dq, dk, dv and dbias any of them; mask u8; alibi, sink, lse, dlse
//   and dsink f32; lens and cu i32. dim and dim_v from 1 to 256.
// A length that does not fit is INDEX, as in attention_gqa.
//
// Deterministic: sums have one order, which depends on a sequence's lengths alone (and, with a bias that batches share, on
// len_kv), never on the number of threads, other sequences or the run.
//
// Rounding points: products and sums in f32; P and T are rounded to the dtype of q before they multiply dy, q and k; one
// rounding to each output's dtype at the end. A backend may round less. In f16 a T past 65504 is infinite: scale the loss.
// Tolerance (core/reference.h), with u = 2^-24, e the error of a score as attention_gqa states it, and with bf16 inputs its 2^-126 terms:
//   f = e + 4 u (|s - lse| + 1), so that P is off by P f; 2^-125 more anywhere, for what is taken for 0
//   a = 4 u (√dim_v (max|dy v| + max|dy y|) + |D| + |dlse|), the error of dy . v - D;   (bf16: 2^-126 dim_v (1 + max|dy| + max|v|) more)
//   b = |S| f + P a + 4 u |S|, the error of S; for T it is scaled as T is, and with softcap 2 |S| e more
//   r = the rounding of P or T: 2^-9 of it (bf16), max(2^-12 of it, 2^-25) (f16), 0 (f32)
//   dv: 4 u √n max|P dy| + Σ P f |dy| + 4 √Σ (r dy)²,  dq: |scale| (4 u √n max|T k| + Σ b |k| + 4 √Σ (r k)²),  dk alike by q;
//   dbias: 4 u √n max|S| + Σ b;  dsink: 4 u √n max|w D| + Σ w (|D| 4 u (|sink - lse| + 1) + a),  n the terms of each sum. bf16: 2^-125 more.
//
// Work: five products where the forward has two, 2 (3 dim + 2 dim_v) FLOPs for each head and visible pair: 2.5 times the forward
// when dim = dim_v. Bytes are every operand once. Bound by arithmetic in all but decoding.
//
// Source: Dao et al. 2022 (arXiv 2205.14135), Dao 2023 (arXiv 2307.08691).
#pragma once
#include "../attention_gqa/attention_gqa.h"

namespace kw {

struct AttentionGqaBackwardArgs {
  uint64_t size = sizeof(AttentionGqaBackwardArgs);
  ConstTensor q;
  ConstTensor k;
  ConstTensor v;
  ConstTensor y;
  ConstTensor lse;
  ConstTensor dy;
  OptionalConstTensor dlse;
  OptionalConstTensor bias;
  OptionalConstTensor mask;
  OptionalConstTensor alibi;
  OptionalConstTensor sink;
  OptionalConstTensor lens_q;
  OptionalConstTensor lens_kv;
  OptionalConstTensor cu_q;
  OptionalConstTensor cu_kv;
  Tensor dq;
  Tensor dk;
  Tensor dv;
  Tensor dbias;
  Tensor dsink;
  float scale = 0;    // the declaration's default is 1 / sqrt(dim)
  float softcap = 0;  // 0: off
  bool causal = false;
  int64_t window_left = -1;  // -1: no bound
  int64_t window_right = -1;
  int64_t mask_block_q = 1;
  int64_t mask_block_kv = 1;
};
// KW_FIELDS in two parts: one expansion takes 21 names.
template <class Visit>
void for_each_field(AttentionGqaBackwardArgs& s, Visit&& visit) {
  KW_EXPAND(KW_EACH(q, k, v, y, lse, dy, dlse, bias, mask, alibi, sink, lens_q, lens_kv, cu_q, cu_kv))
  KW_EXPAND(
      KW_EACH(dq, dk, dv, dbias, dsink, scale, softcap, causal, window_left, window_right, mask_block_q, mask_block_kv))
}

// The forward problem, without its outputs.
inline AttentionGqaArgs forward_of(const AttentionGqaBackwardArgs& a) {
  AttentionGqaArgs f;
  f.q = a.q, f.k = a.k, f.v = a.v;
  f.bias = a.bias, f.mask = a.mask, f.alibi = a.alibi, f.sink = a.sink;
  f.lens_q = a.lens_q, f.lens_kv = a.lens_kv, f.cu_q = a.cu_q, f.cu_kv = a.cu_kv;
  f.scale = a.scale, f.softcap = a.softcap, f.causal = a.causal;
  f.window_left = a.window_left, f.window_right = a.window_right;
  f.mask_block_q = a.mask_block_q, f.mask_block_kv = a.mask_block_kv;
  return f;
}

namespace ref {
void attention_gqa_backward(const AttentionGqaBackwardArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& attention_gqa_backward();
}

}  // namespace kw
