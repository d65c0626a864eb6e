// AttentionMlaArgs as attention_gqa_paged has them: one key head, whose values are the first columns of its keys.
#pragma once
#include "../attention_gqa_paged/attention_gqa_paged.h"
#include "attention_mla.h"

namespace kw {

inline AttentionGqaPagedArgs paged_of(const AttentionMlaArgs& a) {
  AttentionGqaPagedArgs to;
  to.q = a.q;
  TensorView& keys = to.k_cache;
  keys = a.c_cache;
  keys.rank = 4;
  keys.shape[2] = 1, keys.shape[3] = a.c_cache.shape[2];
  keys.stride[2] = 0, keys.stride[3] = a.c_cache.stride[2];
  TensorView& values = to.v_cache;
  values = keys;
  values.shape[3] = a.latent;
  to.page_table = a.page_table;
  to.lens_kv = a.lens_kv;
  to.lens_q = a.lens_q;
  to.k_scale = to.v_scale = a.c_scale;
  to.y = a.y;
  to.lse = a.lse;
  to.scale = a.scale;
  to.causal = a.causal;
  to.splits = a.splits;
  to.batch_invariant = a.batch_invariant;
  return to;
}

}  // namespace kw
