// What gemm_int4_cpu.cc asks of an instruction set, beside the micro-kernels of gemm (gemm_cpu.h): plain data and plain
// functions, so that nothing compiled for one processor is ever linked into code for another. Each
// gemm_int4_cpu_<isa>.cc fills Int4Kernels from the templates of gemm_int4_cpu_kernels.h.
#pragma once
#include "../gemm/gemm_cpu.h"
#include "gemm_int4_shape.h"

namespace kw::cpu {

constexpr int kInt4Unit = 32;  // elements along k, 16 bytes of a row of w: no group or block ends inside

// w with its scales and zeros.
struct Int4Weight {
  const uint8_t* data = nullptr;
  bool packed = false;  // kInt4Panels; rows are then asked for in whole vectors' multiples
  int64_t rows = 0, k = 0, group = 0;
  const void* scales = nullptr;
  DType scale_dtype = DType::f32;
  Int4Sides scales_at, zeros_at;
  const uint8_t* zeros = nullptr;  // null: 8
  bool normal_float = false;
  DType round = DType::f32;  // what ŵ is rounded to; f32: stays as it is
};

// x as it will be multiplied: a row in f32, with perm applied and, where asked for, rounded to int8 in blocks.
struct Int4Row {
  const void* data;  // contiguous elements
  DType dtype;
  const int32_t* perm;
  int64_t block;  // 0: not rounded
};

// Rows of w, plain or packed, against a few rows of x: sums[i][r] = x[i] . ŵ[r].
struct Int4Stream {
  const float* x;    // [m][stride_x], see arrange and arrange_int8
  int64_t stride_x;  // floats
  int m;
  Int4Weight w;
  int64_t row, rows;  // of w, from one on; packed: row is a multiple of kInt4Rows
  int64_t block;      // neighbours of x that share a scale, with stream_int8
  float* sums;        // [m][stride]
  int64_t stride;
  float* scratch;  // scratch_floats(k) of them
};

// A panel of ŵ as gemm's micro-tiles take it: `rows` of `panel` rows from `row` on, the others zeros; elements [from, from +
// count) of k, multiples of 8, as cells [..][panel].
struct Int4Panel {
  Int4Weight w;
  int64_t row;
  int rows, panel;
  int64_t from, count;
  float* to;
};

// Products on tiles: x in parts that a tile multiplies exactly with the whole numbers of w, sums of a segment of k
// in a tile, and then both scales. Rows of x come in sixteens, of w in thirty-twos.
struct Int4TileShape {
  int64_t k = 0, segment = 0;  // neighbours along k whose sum one scale of x and one of w apply to
  int parts = 0;               // bf16 that add up to an element of x, or 0: int8
  int64_t steps = 0;           // tiles along k in a segment
  int64_t segments = 0;
  int64_t wide = 16;  // floats in a tile's row of x, and rows in a tile of w: 8 where a segment fills no more
  // Sixteen rows of x: [segment][step][part][16][wide], then [segment] of 16 scales and, for int8, of 16 sums.
  int64_t floats_x = 0;
  // A panel of 32 rows of w for one segment: [step][2][wide][16], then 32 scales and, for int8, 32 zeros.
  int64_t floats_w = 0;
  int64_t floats_of_x() const { return steps * (parts ? parts : 1) * 16 * wide; }  // of a segment
};

// `rows` rows of x, arranged, against `rows_w` rows of w from `row` on.
struct Int4TileTask {
  Int4TileShape shape;
  const float* x;
  int64_t rows;
  Int4Weight w;
  int64_t row, rows_w;
  int64_t piece;  // segments that are decoded at a time
  float* work;    // of a panel, piece * floats_w
  float* sums;    // [16 ceil(rows / 16)][stride]
  int64_t stride;
};

struct Int4TileKernels {
  bool splits;  // x into bf16 as well; otherwise int8 alone
  // Row `lane` of sixteen; row: k floats to work in. Rows that are absent are left out and give rubbish that no one reads.
  void (*arrange)(float* to, const Int4TileShape&, int lane, const Int4Row&, float* row);
  void (*multiply)(const Int4TileTask&);
};

struct Int4Kernels {
  const char* isa;
  int stream_m;                           // rows of x up to which streaming w beats decoding it into panels
  int stream_int8_m;                      // and into tiles of int8, where there are some
  int packed_m, packed_int8_m;            // the same where w is packed
  int stream_mx;                          // of them at a time
  int64_t (*row_floats)(int64_t k);       // of x arranged for stream
  int64_t (*row_floats_int8)(int64_t k);  // for stream_int8
  int64_t (*scratch_floats)(int64_t k);
  // `count` elements of a row from `first` on as f32; both multiples of the block where there is one.
  void (*widen)(float* to, const Int4Row&, int64_t first, int64_t count);
  void (*arrange)(float* to, const Int4Row&, int64_t k, float* row);  // row: k floats to work in
  void (*arrange_int8)(float* to, const Int4Row&, int64_t k, float* row);
  void (*stream)(const Int4Stream&);
  void (*stream_int8)(const Int4Stream&);  // w is u4
  void (*panel)(const Int4Panel&);         // cells of one f32
  void (*panel_pairs)(const Int4Panel&);   // cells of two bf16, or null
  const Int4TileKernels* tiles;            // or null
};

extern const Int4Kernels kInt4Generic, kInt4Avx2, kInt4Avx512, kInt4Avx512Bf16, kInt4Amx;

}  // namespace kw::cpu
