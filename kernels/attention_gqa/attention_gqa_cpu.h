// What attention_gqa_cpu.cc asks of an instruction set: plain data and plain functions, so that nothing compiled for one
// processor is ever linked into code for another. Each attention_gqa_cpu_<isa>.cc fills AttentionKernels from the templates of
// attention_gqa_cpu_kernels.h.
//
// Operands are packed into 32-bit cells: one f32, or for the bf16 instruction two neighbouring bf16 (along dim in q and k, along
// the keys in v).
#pragma once
#include "attention_gqa.h"

namespace kw::cpu {

// Rows of q that read the same keys: (query, head of the group), at most kMost of them. Lanes past `count` see no key.
struct alignas(64) AttentionRows {
  static constexpr int kMost = 32;
  int32_t begin[kMost], end[kMost];  // the keys that a row may see
  float place[kMost];                // of its query among the keys
  float slope[kMost];                // alibi
  float max[kMost], sum[kMost];      // of the keys so far: highest score, and exp(score - max) summed
  float factor[kMost];               // by which what was summed before the latest keys has to be multiplied
  const void* bias[kMost];           // of key 0; unused without bias
  const uint8_t* mask[kMost];        // of key 0; unused without mask
  int count;
  bool fresh;  // no key so far: max, sum and the values are still to be set
};

// From products to scores.
struct AttentionScoring {
  float scale, softcap;  // softcap 0: none
  bool alibi, bias, mask;
  DType bias_dtype;
  int64_t mask_block;  // keys that share an entry of the mask
  bool adjusts() const { return softcap != 0 || alibi || bias || mask; }
};

// A panel of rows against a tile of packed keys.
struct AttentionTile {
  const AttentionScoring* scoring;
  AttentionRows* rows;
  const float* q;  // [cells][kernels.rows]
  const float* k;  // [keys][cells]
  int64_t cells;   // of a key
  const float* v;  // [columns][slab][kernels.rows], see pack_v
  int64_t slab;    // cells between columns of v
  int columns;     // of kernels.rows elements of v
  float* o;        // [kernels.rows][stride_o], the values summed so far
  int64_t stride_o;
  float* scores;   // [keys][kernels.rows], scratch
  int32_t first;   // number of the tile's first key
  int begin, end;  // the keys of the tile to look at; begin is even
  bool edge;       // not every row sees all of them
};

// A few rows against keys where they lie.
struct AttentionFew {
  static constexpr int kRows = 16, kKeys = 16;  // most rows, most keys
  const AttentionScoring* scoring;
  AttentionRows* rows;
  const float* q;  // [count][padded], see flatten
  int64_t padded;
  const void* k;
  const void* v;
  int64_t stride_k, stride_v;  // elements between keys
  int64_t dim, dim_v;
  float* o;  // [count][stride_o]
  int64_t stride_o;
  float* scores;  // [count][kKeys], scratch
  int32_t first;  // number of the first key
  int keys;
  bool edge;
  const void* ahead;  // the keys after these, at stride_k too; null when there are none or they lie elsewhere
  int keys_ahead;
};

struct AttentionKernels {
  const char* isa;
  int rows;      // of a panel
  int per_cell;  // elements in a cell
  // A panel of q, as [cells][rows]; a null row is zeros.
  void (*pack_q)(float* to, const void* const* q, int64_t dim);
  // Keys, as [keys][cells].
  void (*pack_k)(float* to, const void* k, int64_t stride, int64_t keys, int64_t dim);
  // Values, as [columns][slab][rows], of which the first ceil(keys / per_cell) cells are written.
  void (*pack_v)(float* to, const void* v, int64_t stride, int64_t keys, int64_t dim_v, int64_t slab);
  void (*tile)(const AttentionTile&);
  // One row of q as consecutive cells, zeros up to the next multiple of 16.
  void (*flatten)(float* to, const void* q, int64_t dim);
  // First scores become weights, in `scores`, while the values are brought into the cache; then the values are added, while the
  // next keys are. In between other key heads have their turn.
  void (*few_scores)(const AttentionFew&);
  void (*few_values)(const AttentionFew&);
  // n elements of f8e4m3 as those of q.
  void (*widen)(void* to, const uint8_t* from, int64_t n);
  // y = o * factor / divisor
  void (*finish)(void* y, DType dtype, const float* o, float factor, float divisor, int64_t n);
};

// Indexed by q's dtype: f32, f16, bf16.
extern const AttentionKernels kAttentionGeneric[3], kAttentionAvx2[3], kAttentionAvx512[3];
extern const AttentionKernels kAttentionAvx512Bf16;  // bf16 alone

}  // namespace kw::cpu
