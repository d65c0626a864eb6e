// What peak_cpu.cc asks of an instruction set: plain data and plain functions, so that nothing compiled for one processor is
// ever linked into code for another. peak_cpu_kernels.h has them, once for every peak_cpu_<isa>.cc.
#pragma once
#include "peak.h"

namespace kw::cpu {

// multiply works on tiles of this many rows and columns of y. Whole registers of every instruction set (6 rows of vectors,
// 32 of AMX tiles), and enough of them in independent sums to hide the latency of a multiply-add.
inline constexpr int kPeakRows = 96, kPeakWidth = 192;

// One tile of multiply: s = sum over rounds of (-1)^t x wᵀ.
struct PeakTile {
  const float* x;  // [depth][kPeakRows], the same negated after it
  const float* w;  // [depth][kPeakWidth]; both zero where there is nothing, 64-byte aligned
  float* s;        // [kPeakRows][kPeakWidth]
  int depth;       // f32: columns; pairs of bf16: half of them, rounded up
  int64_t rounds;
};

struct PeakKernels {
  const char* name;
  float (*sum)(DType dtype, const void* x, int64_t count);
  void (*copy)(DType dtype, float* y, const void* x, int64_t count);
  void (*multiply)(const PeakTile&);  // f32
  void (*pairs)(const PeakTile&);     // an element of x and w is a pair of bf16; null: no such instruction
};
extern const PeakKernels kPeakGeneric, kPeakAvx2, kPeakAvx512, kPeakAvx512Bf16, kPeakAmxBf16;

}  // namespace kw::cpu
