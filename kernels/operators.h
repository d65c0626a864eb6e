// The list of operators: one line each, and the contract that it names. Everything that handles operators alike, the addon's
// table and programs that need no Node, is made from it.
#pragma once
#include "attention_gqa/attention_gqa.h"
#include "attention_gqa_backward/attention_gqa_backward.h"
#include "attention_gqa_paged/attention_gqa_paged.h"
#include "attention_merge/attention_merge.h"
#include "attention_mla/attention_mla.h"
#include "gemm/gemm.h"
#include "gemm_int4/gemm_int4.h"
#include "kv_append/kv_append.h"
#include "nsa_attend/nsa_attend.h"
#include "nsa_compress/nsa_compress.h"
#include "peak/peak.h"
#include "rope/rope.h"

#define KW_OPERATORS(X)                               \
  X(attention_gqa, AttentionGqaArgs)                  \
  X(attention_gqa_backward, AttentionGqaBackwardArgs) \
  X(attention_gqa_paged, AttentionGqaPagedArgs)       \
  X(attention_merge, AttentionMergeArgs)              \
  X(attention_mla, AttentionMlaArgs)                  \
  X(gemm, GemmArgs)                                   \
  X(gemm_int4, GemmInt4Args)                          \
  X(kv_append, KvAppendArgs)                          \
  X(nsa_attend, NsaAttendArgs)                        \
  X(nsa_compress, NsaCompressArgs)                    \
  X(peak, PeakArgs)                                   \
  X(rope, RopeArgs)
