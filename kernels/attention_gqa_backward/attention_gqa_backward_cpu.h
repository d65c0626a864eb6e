// What attention_gqa_backward_cpu.cc asks of an instruction set: plain data and plain functions, as attention_gqa_cpu.h does for the
// forward, whose panels, cells and packing these are.
#pragma once
#include "../attention_gqa/attention_gqa_cpu.h"
#include "attention_gqa_backward.h"

namespace kw::cpu {

// A panel of rows and what is known of them. Rows that saw nothing, and lanes past the count, have lse = inf and so no weight.
struct alignas(64) BackwardRows {
  AttentionRows rows;
  float lse[AttentionRows::kMost], delta[AttentionRows::kMost];  // delta: D of the contract
  void* dbias[AttentionRows::kMost];                             // of key 0; unused without bias
  int begin,
      end;    // the keys of the tile that the panel looks at, multiples of kKeyStep but for the last key of the tile
  bool edge;  // not every row sees all of them
};

// A block of panels against a tile of packed keys.
struct BackwardTile {
  static constexpr int kKeyStep = 8;
  const AttentionScoring* scoring;
  BackwardRows* panels;
  int count;  // of panels
  // Rows along dim, panels of [cells][kernels.rows], and along the rows, [columns][slab_rows][kernels.rows].
  const float *q, *dy, *q_columns, *dy_columns;
  // Keys along dim, [keys][cells], and along the keys, [columns][slab_keys][kernels.rows].
  const float *k, *v, *k_columns;
  int64_t cells, cells_v, slab_rows, slab_keys;
  int columns, columns_v;  // of kernels.rows elements
  float *dq, *dk, *dv;     // rows of the block, and keys of the tile: sums so far
  int64_t stride, stride_v;
  float *p, *ds;  // scratch, for each panel [keys of a tile][kernels.rows]
  float *p_along,
      *ds_along;     // scratch where a cell has two elements, for each panel [keys of a tile][kernels.rows / 2]
  float* products;   // scratch of one panel
  int64_t keys;      // of a tile's scratch
  int32_t first;     // number of the tile's first key
  int begin, end;    // the keys of the tile to look at
  bool shared_bias;  // dbias is f32 and added to; else it has bias_out and is written
  DType bias_out;
};

struct BackwardKernels {
  const char* isa;
  int rows, per_cell;  // of a panel; elements in a cell
  void (*pack_q)(float* to, const void* const* q, int64_t dim);
  void (*pack_k)(float* to, const void* k, int64_t stride, int64_t keys, int64_t dim);
  void (*pack_v)(float* to, const void* v, int64_t stride, int64_t keys, int64_t dim_v, int64_t slab);
  // A panel of rows, as [columns][slab][rows]; a null row is zeros.
  void (*pack_rows)(float* to, const void* const* rows, int64_t dim, int64_t slab);
  void (*tile)(const BackwardTile&);
  float (*dot)(const void* a, DType a_dtype, const void* b, DType b_dtype, int64_t n);
  // to = factor * (parts in order, `step` floats apart, summed)
  void (*store)(void* to, DType dtype, const float* parts, int64_t step, int64_t count, float factor, int64_t n);
};

// Indexed by q's dtype: f32, f16, bf16.
extern const BackwardKernels kBackwardGeneric[3], kBackwardAvx2[3], kBackwardAvx512[3];
extern const BackwardKernels kBackwardAvx512Bf16;  // bf16 alone

}  // namespace kw::cpu
