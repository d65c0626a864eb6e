// Loads that keep one part of a device busy, for measured ceilings and calibration: plans of it are timed and metered like
// any other, and what they compute is defined like anything else.
//
//   read      y[i,0] = sum_j x[i,j]                                          memory reads, each once
//   copy      y[i,j] = x[i,j]                                                memory reads and writes
//   multiply  y[i,r] = sum_t (-1)^t sum_j x[i,j] w[r,j], t = 0 .. rounds-1    multiply-adds out of registers
//   spin      the same in one chain of dependent multiply-adds for each row: awake, and hardly any work
//
// The signs alternate so that values stay bounded for any number of rounds: an odd number gives x wᵀ, an even one 0. Operands
// are whatever the caller likes, because power depends on data. With whole numbers of at most 255, columns up to 16 (multiply,
// spin) and columns below 2^16 (read) every sum is exact, whatever the order.
//
// Shapes, any strides with the last dimension contiguous: x [rows, columns], w [width, columns] (multiply and spin alone),
// y [rows, outputs]; outputs is 1 for read, columns for copy, width for multiply and spin. rounds is 1 for read and copy;
// columns is at most 16 for multiply and spin.
// Dtypes: x and w alike, one of f32, f16, bf16; y f32. It decides which unit multiplies: f32 the vector lanes, with 1 column
// out of registers; f16 and bf16 the tensor cores or dot product instructions, 16 columns at a time, where there are any.
//
// Rounding points: products and sums in f32. Every round of multiply and spin is one addition or more to the sum of the rounds
// before: none may be left out.
// Tolerance (core/reference.h): c = 16, K = columns * rounds (read: columns); bf16 denormals may count as 0 (vdpbf16ps,
// tdpbf16ps): with bf16 inputs K 2^-126 (1 + max|x| + max|w|) more. copy is exact.
//
// Work: 2 rows width columns rounds FLOPs (multiply, spin), rows columns (read), 0 (copy); bytes are every operand once.
//
// Source: loads of this kind calibrate the roofline of energy of Choi et al. 2013 (IPDPS).
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"

namespace kw {

enum class PeakLoad : int32_t { read, copy, multiply, spin };
KW_CHOICES(PeakLoad, read, copy, multiply, spin)

// Columns of multiply and spin at most: what one instruction of a tensor core takes.
inline constexpr int kPeakDepth = 16;

struct PeakArgs {
  uint64_t size = sizeof(PeakArgs);
  ConstTensor x;
  OptionalConstTensor w;
  Tensor y;
  PeakLoad load = PeakLoad::read;
  int64_t rounds = 1;
};
KW_FIELDS(PeakArgs, x, w, y, load, rounds)

namespace ref {
void peak(const PeakArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& peak();
}

}  // namespace kw
