// Grouped-query attention over keys and values in pages: what a server that decodes for many requests computes. A step may bring
// a request one query (decoding), a few that were guessed ahead, or a piece of a prompt.
//
//   key j of request b   slot j % page_size of page page_table[b, j / page_size] of k_cache, its value there in v_cache
//   len_kv = lens_kv[b]  keys of the request, those of this step included;  len_q = lens_q[b], without lens_q the size of q
//   p = i + len_kv - len_q, the place of query i among the keys, so that the last query sees every key
//   t[h,i,j] = scale * k_scale[g] * q[b,i,h,:] . k[j,g,:],  g = h / (heads_q / heads_kv);  with softcap: softcap * tanh(t / softcap)
//   visible  = j < len_kv, causal: j <= p, window_left >= 0: j >= p - window_left
//   lse[b,h,i] = ln(sum over visible j of exp(t[h,i,j])  (+ exp(sink[h])))
//   y[b,i,h,:] = v_scale[g] * sum over visible j of exp(t[h,i,j] - lse[b,h,i]) * v[j,g,:]
//   k and v are elements as they are stored; without k_scale and v_scale, 1.
//   A row that sees no key gives y = 0, and lse = -inf (sink[h] where there is a sink); rows of q from len_q on y = 0, lse = -inf.
// It is attention_gqa on keys and values gathered from their pages, each times the scale of its head.
//
// Shapes, any strides with the last dimension contiguous:
//   q [batch, len_q, heads_q, dim]      k_cache [pages, page_size, heads_kv, dim]      v_cache [pages, page_size, heads_kv, dim_v]
//   page_table [batch, max_pages], lens_kv, lens_q [batch], all i32; page_size from 1; requests may share pages
//   sink [heads_q]; y [batch, len_q, heads_q, dim_v]; lse [batch, heads_q, len_q]
//   k_scale, v_scale [heads_kv], f32: with caches of f8e4m3, and then both, as kv_append wrote them
// Dtypes: q one of f32, bf16, f16; k_cache and v_cache alike, the dtype of q or f8e4m3; y one of f32, bf16, f16; sink and lse f32.
// dim and dim_v 1 to 256.
//
// What the kernel finds in device memory: lens_kv is 0 to max_pages * page_size, lens_q is 0 to the size of q, and an entry of
// page_table for a key that some row sees is 0 to pages - 1. A length out of range is taken as the nearest that is in it, and the
// keys and values of a page that is none count as zeros. Either is INDEX, `attention_gqa_paged: page_table[2, 5] is 99, expected 0
// to 63`, once everything has been computed: other requests are as they would be. Slots past a length, pages that no entry
// names and entries past a length are never read, whatever memory holds there.
//
// splits: into how many parts, at most, the keys of a request are cut; 0: as many as the backend finds best. Parts are merged in
// order, so that a result is the same every time; with batch_invariant it does not depend on other requests either.
//
// Rounding points and tolerance are those of attention_gqa. f8e4m3 is converted up when it is read, to the dtype of q, which holds
// every value of it exactly. scale * k_scale[g] is one number, rounded to f32 once, and v_scale[g] multiplies sums in f32: neither
// costs a rounding of each key.
//
// Work: 2 (dim + dim_v) FLOPs for each head and each pair of a row and a key it sees; bytes are q, y, lse and, once, the keys
// and values of every request: a decode step of bf16 does heads_q / heads_kv FLOPs a byte, so it runs at the speed of memory.
// 32 / 8 heads of 128, 4096 keys of bf16: 16.8 MB and 67 MFLOP for each request; of f8e4m3, half the bytes.
//
// Source: Kwon et al. 2023 (arXiv 2309.06180); splitting over keys: Dao et al. 2023 (Flash-Decoding); the rest as attention_gqa.
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"

namespace kw {

struct AttentionGqaPagedArgs {
  uint64_t size = sizeof(AttentionGqaPagedArgs);
  ConstTensor q;
  ConstTensor k_cache;
  ConstTensor v_cache;
  ConstTensor page_table;
  ConstTensor lens_kv;
  OptionalConstTensor lens_q;
  OptionalConstTensor sink;
  OptionalConstTensor k_scale;
  OptionalConstTensor v_scale;
  Tensor y;
  Tensor lse;
  float scale = 0;    // the declaration's default is 1 / sqrt(dim)
  float softcap = 0;  // 0: off
  bool causal = true;
  int64_t window_left = -1;  // -1: no bound
  int64_t splits = 0;
  bool batch_invariant = false;
};
KW_FIELDS(AttentionGqaPagedArgs, q, k_cache, v_cache, page_table, lens_kv, lens_q, sink, k_scale, v_scale, y, lse,
          scale, softcap, causal, window_left, splits, batch_invariant)

namespace ref {
void attention_gqa_paged(const AttentionGqaPagedArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& attention_gqa_paged();
}

}  // namespace kw
