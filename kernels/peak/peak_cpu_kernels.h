// The loops of peak on the CPU, over core/cpu/simd_<isa>.h, which must be included before.
#pragma once
#include "../core/cpu/simd_cells.h"
#include "peak_cpu.h"

namespace kw::cpu {
namespace {

// Four streams, from the quarters of the row: the processor fetches ahead in each.
float sum_row(DType dtype, const void* x, int64_t count) {
  constexpr int kW = Simd::kWidth;
  F s[4][2] = {};
  int64_t done = 0;
  if (dtype == DType::f32) {
    const int64_t quarter = count / (8 * kW) * (2 * kW);
    const float* from = static_cast<const float*>(x);
    for (int64_t i = 0; i < quarter; i += 2 * kW) {
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        s[q][0] += Simd::load(from + q * quarter + i);
        s[q][1] += Simd::load(from + q * quarter + i + kW);
      }
    }
    done = 4 * quarter;
  }
  for (; done < count; done += kW)
    s[0][0] += load_as(dtype, x, done, static_cast<int>(lesser<int64_t>(kW, count - done)));
  return Simd::sum(((s[0][0] + s[0][1]) + (s[1][0] + s[1][1])) + ((s[2][0] + s[2][1]) + (s[3][0] + s[3][1])));
}

// Stores past the caches where the instruction set can and the addresses allow.
void copy_row(DType dtype, float* y, const void* x, int64_t count) {
  constexpr int kW = Simd::kWidth;
  int64_t done = 0;
  if (dtype == DType::f32 && reinterpret_cast<uintptr_t>(y) % 64 == 0) {
    const float* from = static_cast<const float*>(x);
    for (; done + 4 * kW <= count; done += 4 * kW) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) Simd::stream(y + done + i * kW, Simd::load(from + done + i * kW));
    }
    Simd::fence();
  }
  for (; done < count; done += kW) {
    const int n = static_cast<int>(lesser<int64_t>(kW, count - done));
    Simd::store(y + done, load_as(dtype, x, done, n), n);
  }
}

// Rows by Vectors independent sums. One column keeps every operand in a register; more come from the first-level cache.
template <int Rows, int Vectors, bool OneColumn>
void multiply_block(const PeakTile& t, int row, int column) {
  constexpr int kW = Simd::kWidth;
  const int depth = OneColumn ? 1 : t.depth;
  const float* x = t.x + row;
  const float* w = t.w + column;
  F s[Rows][Vectors] = {};
  const auto add = [&](auto mul_add) {
    for (int k = 0; k < depth; ++k) {
      F b[Vectors];
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) b[v] = Simd::load(w + k * kPeakWidth + v * kW);
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) {
        const F a = Simd::set(x[k * kPeakRows + i]);
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) s[i][v] = mul_add(a, b[v], s[i][v]);
      }
    }
  };
  for (int64_t r = 0; r < t.rounds / 2; ++r) {
    add([](F a, F b, F c) { return Simd::fma(a, b, c); });
    add([](F a, F b, F c) { return Simd::fnma(a, b, c); });
  }
  if (t.rounds % 2) add([](F a, F b, F c) { return Simd::fma(a, b, c); });
  for (int i = 0; i < Rows; ++i)
    for (int v = 0; v < Vectors; ++v) Simd::store(t.s + (row + i) * kPeakWidth + column + v * kW, s[i][v]);
}

template <int Rows, int Vectors>
void multiply_tile(const PeakTile& t) {
  static_assert(kPeakRows % Rows == 0 && kPeakWidth % (Vectors * Simd::kWidth) == 0);
  for (int row = 0; row < kPeakRows; row += Rows)
    for (int column = 0; column < kPeakWidth; column += Vectors * Simd::kWidth)
      t.depth == 1 ? multiply_block<Rows, Vectors, true>(t, row, column)
                   : multiply_block<Rows, Vectors, false>(t, row, column);
}

}  // namespace
}  // namespace kw::cpu
