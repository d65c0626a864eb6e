// Pieces of rows, of eight neighbouring elements or of one: what kernels that are bound by memory read at a time.
#pragma once
#include "elements.cuh"

namespace kw {

// Whether every row begins on 16 bytes, as pieces of eight need.
inline bool rows_aligned(const TensorView& t) {
  bool aligned = reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
  for (int i = 0; i + 1 < t.rank; ++i)
    aligned = aligned && (t.shape[i] <= 1 || t.stride[i] % (128 / bits(t.dtype)) == 0);
  return aligned;
}

template <int kV>
KW_DEVICE void load_piece(float (&v)[kV], const void* p, DType dtype, int64_t at) {
  if constexpr (kV == 8)
    load8(v, p, dtype, at);
  else
    v[0] = load1(p, dtype, at);
}

}  // namespace kw
