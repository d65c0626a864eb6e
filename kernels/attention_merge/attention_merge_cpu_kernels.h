// The loop of attention_merge on the CPU, over core/cpu/simd_<isa>.h, which must be included before.
#pragma once
#include "../core/cpu/simd_cells.h"
#include "attention_merge_cpu.h"

namespace kw::cpu {
namespace {

void merge_row(const MergeRow& r) {
  constexpr int kW = Simd::kWidth, kVectors = 4;
  for (int64_t e = 0; e < r.columns; e += kVectors * kW) {
    F sum[kVectors] = {};
    const int rest = static_cast<int>(lesser<int64_t>(r.columns - e, kVectors * kW)), vectors = (rest + kW - 1) / kW;
    for (int64_t n = 0; n < r.count; ++n) {
      if (r.weights[n] == 0) continue;
      const F weight = Simd::set(r.weights[n]);
      for (int i = 0; i < vectors; ++i) {
        const F part = load_as(r.dtype, r.parts + n * r.step, e + i * kW, lesser(kW, rest - i * kW));
        sum[i] = Simd::fma(weight, part, sum[i]);
      }
    }
    for (int i = 0; i < vectors; ++i) {
      store_as(r.y_dtype, r.y, e + i * kW, sum[i] / Simd::set(r.divisor), lesser(kW, rest - i * kW));
    }
  }
}

}  // namespace
}  // namespace kw::cpu
