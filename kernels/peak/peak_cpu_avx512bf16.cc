// peak with AVX-512 BF16.
#include "../core/cpu/simd_avx512.h"
#include "peak_cpu_kernels.h"

namespace kw::cpu {
namespace {

// 6 x 4 sums; pairs of x are broadcast from memory, by the instruction itself.
void pairs_block(const PeakTile& t, int row, int column) {
  constexpr int kRows = 6, kVectors = 4, kW = Simd::kWidth;
  F s[kRows][kVectors] = {};
  const auto add = [&](const float* x) {
    for (int k = 0; k < t.depth; ++k) {
      const float* w = t.w + k * kPeakWidth + column;
      __m512bh b[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) b[v] = (__m512bh)Simd::load(w + v * kW);
#pragma GCC unroll 6
      for (int i = 0; i < kRows; ++i) {
        const auto a = (__m512bh)Simd::set(x[k * kPeakRows + i]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) s[i][v] = _mm512_dpbf16_ps(s[i][v], a, b[v]);
      }
    }
  };
  const float *x = t.x + row, *negative = x + t.depth * kPeakRows;
  for (int64_t r = 0; r < t.rounds / 2; ++r) add(x), add(negative);
  if (t.rounds % 2) add(x);
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v) Simd::store(t.s + (row + i) * kPeakWidth + column + v * kW, s[i][v]);
}

void pairs_tile(const PeakTile& t) {
  for (int row = 0; row < kPeakRows; row += 6)
    for (int column = 0; column < kPeakWidth; column += 64) pairs_block(t, row, column);
}

}  // namespace

const PeakKernels kPeakAvx512Bf16 = {"avx512_bf16", sum_row, copy_row, multiply_tile<6, 3>, pairs_tile};

}  // namespace kw::cpu
