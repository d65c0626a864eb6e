// Writing the keys and values of new tokens into the pages of a cache, turned by rope on the way where asked for.
//
//   request b has lens_kv[b] tokens in the cache, those of this step included; lens_q[b] of the rows of k and v count (all without
//   lens_q). Row i stands at place t = i + lens_kv[b] - lens_q[b]; rows at places below 0 and from lens_q[b] on are not there.
//   page = page_table[b, t / page_size], slot = t % page_size
//   k_cache[page, slot, h, :] = turned(k[b,i,h,:], t) / k_scale[h]      v_cache[page, slot, h, :] = v[b,i,h,:] / v_scale[h]
//   turned: rope (kernels/rope/rope.h) at position t with the parameters given, where `rope`; else k as it is. Without scales, 1.
// Everything else in the caches stays as it is, to the bit. No two rows may stand at one place: tokens that requests share are in
// the cache already.
//
// Shapes, any strides with the last dimension contiguous, page_size from 1:
//   k [batch, len, heads_kv, dim]      v [batch, len, heads_kv, dim_v]
//   k_cache [pages, page_size, heads_kv, dim]      v_cache [pages, page_size, heads_kv, dim_v]
//   page_table [batch, max_pages], lens_kv, lens_q [batch], i32; entries of the table that no row stands in are not read
//   k_scale, v_scale [heads_kv], f32: with caches of f8e4m3, and then both
// Dtypes: k and v alike, one of f32, bf16, f16; k_cache and v_cache alike, one of these or f8e4m3.
//
// lens_q beyond 0 to len, lens_kv beyond 0 to max_pages * page_size (nothing of that request is written) and pages beyond 0 to
// pages - 1 (nothing of that row) are INDEX once all else is written; the definition writes nothing then.
//
// Rounding points: those of rope, then the quotient in f32, then one rounding to the dtype of the caches, which for f8e4m3 is to nearest
// even, saturating at 448, NaN kept. An element of f8e4m3 stands for itself times the scale.
// Tolerance (core/reference.h): that of rope, divided by the scale; without rope, none beyond the rounding.
//
// Work: 6 FLOPs for each pair that turns; bytes are k and v once and as many elements of the caches. It runs at the speed of memory;
// a decode step is small: 64 requests of 8 heads of 128 in bf16 are 0.5 MB.
//
// Source: Kwon et al. 2023 (arXiv 2309.06180); rope: Su et al. 2021 (arXiv 2104.09864); f8e4m3: Micikevicius et al. 2022 (arXiv
// 2209.05433).
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"
#include "../rope/rope.h"

namespace kw {

struct KvAppendArgs {
  uint64_t size = sizeof(KvAppendArgs);
  ConstTensor k;
  ConstTensor v;
  ConstTensor page_table;
  ConstTensor lens_kv;
  OptionalConstTensor lens_q;
  OptionalConstTensor k_scale;
  OptionalConstTensor v_scale;
  InOutTensor k_cache;
  InOutTensor v_cache;
  bool rope = false;
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
KW_FIELDS(KvAppendArgs, k, v, page_table, lens_kv, lens_q, k_scale, v_scale, k_cache, v_cache, rope, interleaved,
          dim_rotary, theta, scaling, factor, low_freq_factor, high_freq_factor, original_context, beta_fast, beta_slow,
          attention_factor)

namespace ref {
void kv_append(const KvAppendArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& kv_append();
}

}  // namespace kw
