// Weights to four bits and back, row by row, on the host: what quantizeInt4, quantizeNf4 and dequantize of src/quantize.ts run on all
// cores. A group's result depends on its own elements alone, so neither threads nor pieces show in it.
//
//   whole numbers, symmetric:   s = max(max w / 7, -min w / 8),   q = clamp(round(w / s) + 8, 0, 15)
//   with zeros:                 s = (hi - lo) / 15, lo = min(0, min w), hi = max(0, max w),
//                               z = clamp(round(-lo / s), 0, 15),  q = clamp(round(w / s) + z, 0, 15)
//   nf4:                        s = max |w|,                       q = the nearest of kNormalFloat4 to w / s, the lower at a tie
// s is rounded to its dtype before q is chosen; a group of zeros has s = 0 and stays zero. round is to nearest even.
// clipped: lo and hi, or their symmetric counterparts, times the ratio 1, 0.99 ... 0.5 that leaves the least sum of squared
// differences, the larger ratio at a tie.
//
// Source: Frantar et al. 2022 (GPTQ, arXiv 2210.17323); Lin et al. 2023 (AWQ, 2306.00978) for the search of a clip ratio;
// Dettmers et al. 2023 (QLoRA, 2305.14314).
#pragma once
#include <cstdint>

#include "../tensor.h"

namespace kw {

struct Quantized {
  TensorView w;       // f32, bf16 or f16 [rows, k], any strides: read by quantize_rows, written by dequantize_rows
  TensorView codes;   // u4 or nf4 [rows, k]
  TensorView scales;  // f32, bf16 or f16 [groups, rows]
  TensorView zeros;   // u4 [groups, rows], or absent
  bool clipped = false;
};

// Rows [begin, end) of codes and scales. Zero points, which share bytes with those of other rows, go to `zeros`, groups of them for each
// row. Throws ARGUMENT for an element that is not finite and a scale beyond its dtype.
void quantize_rows(const Quantized& to, int64_t begin, int64_t end, uint8_t* zeros);

void dequantize_rows(const Quantized& from, int64_t begin, int64_t end);

}  // namespace kw
