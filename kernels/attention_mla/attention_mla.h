// Multi-head latent attention over a paged cache of latents, absorbed: one row of the cache is the key of all heads, and its first
// columns are the value. This is what a step of decoding computes; a prompt without a cache is cheaper expanded, which is
// attention_gqa with a dim of 192 and a dim_v of 128.
//
//   Of a layer whose head h has the projections Wuk_h [nope, latent] and Wuv_h [latent, v] (from the latent to keys and values):
//     q[b,i,h,:] = (q_nope Wuk_h, rope(q_rope))      before this, gemm of every head: queries meet latents instead of keys
//     c[j,:]     = (latent, rope(k_rope))            what the cache holds of a token, whatever the number of heads
//     out[b,i,h] = y[b,i,h,:] Wuv_h                  after this
//   key j of request b   row j % page_size of page page_table[b, j / page_size] of c_cache
//   len_kv = lens_kv[b]  rows of the request, those of this step included;  len_q = lens_q[b], without lens_q the size of q
//   p = i + len_kv - len_q, the place of query i among the keys, so that the last query sees every key
//   t[h,i,j]   = scale * c_scale * q[b,i,h,:] . c[j,:]
//   visible    = j < len_kv, causal: j <= p
//   lse[b,h,i] = ln(sum over visible j of exp(t[h,i,j]))
//   y[b,i,h,:] = c_scale * sum over visible j of exp(t[h,i,j] - lse[b,h,i]) * c[j, 0 .. latent - 1]
//   c is elements as they are stored; without c_scale, 1.
//   A row that sees no key, and rows of q from len_q on, give y = 0 and lse = -inf.
// It is attention_gqa_paged with one key head whose values are columns of its keys.
//
// Shapes, any strides with the last dimension contiguous:
//   q [batch, len_q, heads, dim]      c_cache [pages, page_size, dim]      y [batch, len_q, heads, latent], latent <= dim
//   page_table [batch, max_pages], lens_kv, lens_q [batch], all i32; page_size from 1; requests may share pages
//   lse [batch, heads, len_q]
//   c_scale [1], f32: with a cache of f8e4m3, as kv_append wrote it
// Dtypes: q one of f32, bf16, f16; c_cache the dtype of q or f8e4m3; y one of f32, bf16, f16; lse f32. dim 1 to 576, latent 1 to 512.
//
// One c_scale, not one for the latent and one for the rotated part: a row is one key to all heads, and a scale leaves its inner
// product with a query as a factor only where all columns have it. kv_append writes both parts with it.
//
// scale has no default: it is 1 / sqrt(nope + rope) of the layer (times what YaRN asks for), which the shapes here do not tell.
//
// Values of lens and page_table out of range: as in attention_gqa_paged. Rows past a length, pages that no entry names and entries
// past a length are never read, whatever memory holds there.
//
// splits, batch_invariant, rounding points and tolerance: as in attention_gqa_paged.
//
// Work: 2 (dim + latent) FLOPs for each head and each pair of a row and a key it sees; bytes are q, y, lse and, once, the rows of
// every request. With bf16, 512 + 64 and h heads a decode step does 1.9 h FLOPs a byte: 16 heads run at the speed of a GPU's
// memory, 128 at the speed of its tensor cores; a CPU is bound by arithmetic from a few heads on. A token takes 1152 bytes of
// cache, where 128 heads of 192 / 128 would take 81,920 and 8 of 128 (GQA) 4096; of f8e4m3, each half of that.
//
// Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1; DeepSeek-V3 (arXiv 2412.19437).
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"

namespace kw {

struct AttentionMlaArgs {
  uint64_t size = sizeof(AttentionMlaArgs);
  ConstTensor q;
  ConstTensor c_cache;
  ConstTensor page_table;
  ConstTensor lens_kv;
  OptionalConstTensor lens_q;
  OptionalConstTensor c_scale;
  Tensor y;
  Tensor lse;
  float scale = 0;
  int64_t latent = 0;  // columns of y
  bool causal = true;
  int64_t splits = 0;
  bool batch_invariant = false;
};
KW_FIELDS(AttentionMlaArgs, q, c_cache, page_table, lens_kv, lens_q, c_scale, y, lse, scale, latent, causal, splits,
          batch_invariant)

namespace ref {
void attention_mla(const AttentionMlaArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& attention_mla();
}

}  // namespace kw
