// The loop of nsa_compress on the CPU, over core/cpu/simd_<isa>.h, which must be included before.
#pragma once
#include "../core/cpu/simd_cells.h"
#include "nsa_compress_cpu.h"

namespace kw::cpu {
namespace {

void compress_window(const CompressWindow& w) {
  constexpr int kW = Simd::kWidth, kVectors = 4;
  for (int64_t e = 0; e < w.columns; e += kVectors * kW) {
    F sum[kVectors] = {};
    const int rest = static_cast<int>(lesser<int64_t>(w.columns - e, kVectors * kW)), vectors = (rest + kW - 1) / kW;
    for (int64_t j = 0; j < w.rows; ++j) {
      for (int i = 0; i < vectors; ++i) {
        const int64_t at = e + i * kW;
        const int n = lesser(kW, rest - i * kW);
        F u = load_as(w.dtype, w.x + j * w.step, at, n);
        if (w.position) u += load_as(w.position_dtype, w.position + j * w.position_step, at, n);
        sum[i] += u;
      }
    }
    for (int i = 0; i < vectors; ++i)
      store_as(w.y_dtype, w.y, e + i * kW, sum[i] * Simd::set(w.factor), lesser(kW, rest - i * kW));
  }
}

}  // namespace
}  // namespace kw::cpu
