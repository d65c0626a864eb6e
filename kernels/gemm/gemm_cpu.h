// What gemm_cpu.cc asks of an instruction set: plain data and plain functions, so that nothing compiled for one
// processor is ever linked into code for another. Each gemm_cpu_<isa>.cc fills GemmKernels from the templates of
// gemm_cpu_kernels.h.
//
// Operands are packed into 32-bit cells: one f32, or for the bf16 instruction two neighbouring bf16 along k.
#pragma once
#include "../core/cpu/features.h"
#include "gemm.h"

namespace kw::cpu {

// Memory that will be needed soon, in bytes: `rows` rows of `bytes`, `stride` apart. A stride of kFetched: the rows lie end to
// end and are asked for in the order of their addresses.
constexpr int64_t kFetched = 64;  // a cache line
struct GemmAhead {
  const char* at = nullptr;
  int64_t stride = 0, rows = 0, bytes = 0;
};

// A piece of an operand to pack, as pack or pack_x does panel by panel: `panels` of mr rows, of which `rows` exist, and of
// `cells` the first k elements; the rest are zeros. Nothing when `to` is null.
struct GemmPiece {
  float* to = nullptr;
  const void* from = nullptr;
  int64_t row_stride = 0, k_stride = 0;
  int64_t rows = 0, k = 0, cells = 0;
  int panels = 0, mr = 0;
};

// packed x [panels_x][cells][mr] times packed w [panels_w][cells][nr], added to or stored in sums [rows][stride].
struct GemmBlock {
  const float* x;
  int panels_x, mr;
  const void* w;
  int64_t panel_w;  // bytes between panels of w
  int panels_w;
  int64_t cells;  // a multiple of cell_step, zeros at the end
  float* sums;
  int64_t stride;
  bool add;
  GemmAhead ahead;  // w of the next block, to bring into L2 meanwhile
  bool in_place;    // w is no copy in L2: before the next block comes the next panel
  // On tiles alone: w itself, to be packed panel by panel just before each is multiplied, with ahead what follows the last
  // of them; and x of the next block, to pack between micro-tiles.
  GemmPiece plain = {}, next = {};
};

// Rows of w as they lie in memory, or its prepacked panels, against a few flattened rows of x: sums[i][r] = x[i] . w[r]. Of
// panels whole ones are written.
struct GemmStream {
  const float* x;  // [m][cells_x], see flatten
  int64_t cells_x;
  int m;
  const void* w;
  int64_t stride_w;  // elements between rows
  int64_t panel_w;   // or bytes between panels
  int64_t rows, k;
  float* sums;  // [m][stride]
  int64_t stride;
  int64_t l1_bytes;
};

// The epilogue of a block: sums [rows][stride], with a gated activation the up sums `up` columns to the right.
struct GemmFinish {
  const float* sums;
  int64_t stride, up;
  int64_t rows, columns;
  float alpha, beta;
  Activation activation;
  struct Side {  // the block's first element, its rows `stride` elements apart; data is null when absent
    void* data = nullptr;
    int64_t stride = 0;
    DType dtype = DType::f32;
  } y, c, c_up, residual, bias, bias_up;  // bias has one row
};

struct GemmKernels {
  const char* isa;
  int mr, mr_step;  // rows of the largest micro-tile; of any, a multiple of mr_step
  int nr;           // columns of every micro-tile
  int per_cell;     // elements along k in a cell
  int cell_step;    // a block's cells are a multiple of this
  int depth;        // and at most this many
  int stream_m;     // rows of x up to which streaming w beats packing it
  int stored_m;     // and up to which streaming prepacked panels beats multiplying them in blocks
  // One panel: rows (at most `panel`, the rest are zeros) by k elements, as [cells][panel], zeros beyond k. One of the
  // strides, in elements, is 1. pack_x: the order of x may be another.
  using Pack = void (*)(float* to, const void* from, int64_t row_stride, int64_t k_stride, int rows, int64_t k,
                        int64_t cells, int panel);
  Pack pack, pack_x;
  void (*pack_piece)(const GemmPiece&);  // on tiles alone; null: x is packed for all threads before a block
  // One row of x as consecutive cells, zeros up to the next multiple of 16 cells.
  void (*flatten)(float* to, const void* from, int64_t k_stride, int64_t k);
  void (*block)(const GemmBlock&);
  void (*block_stored)(const GemmBlock&);  // with prepacked panels of w as they are
  void (*stream)(const GemmStream&);
  void (*stream_stored)(const GemmStream&);
  void (*finish)(const GemmFinish&);
};

// The ones that are fastest for x and w of a dtype.
const GemmKernels& gemm_kernels(Isa isa, DType dtype);

// Indexed by x's dtype: f32, f16, bf16.
extern const GemmKernels kGemmGeneric[3], kGemmAvx2[3], kGemmAvx512[3];
extern const GemmKernels kGemmAvx512Bf16, kGemmAmxBf16;  // bf16 alone

}  // namespace kw::cpu
