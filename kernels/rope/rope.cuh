// Turning rows on CUDA, for rope and for kv_append: a thread makes one piece of a row, kV pairs or kV columns that are only copied,
// and keeps its angles for as many heads as its caller gives it.
#pragma once
#include "../core/cuda/pieces.cuh"
#include "rope_turns.h"

namespace kw {

constexpr int kRopePairs = 256;  // 2 KB of the 4 KB of a kernel's arguments

struct RopeAnglesCuda {
  uint64_t turns[kRopePairs];  // rope_turns.h
  int pairs, columns;
  float factor;
  bool interleaved;
};

// columns: of a head.
inline RopeAnglesCuda rope_angles_cuda(const RopeTurns& turns, int64_t columns, bool interleaved) {
  RopeAnglesCuda a{};
  std::copy(turns.turns.begin(), turns.turns.end(), a.turns);
  a.pairs = static_cast<int>(turns.turns.size());
  a.columns = static_cast<int>(columns);
  a.factor = turns.factor;
  a.interleaved = interleaved;
  return a;
}

// Pieces of a row: those that turn come first.
inline int64_t rope_pieces(int64_t pairs, int64_t columns, int width) { return (columns - pairs) / width; }

// Cosine and sine of so many 2^-32 turns: the nearest quarter by symmetry, a polynomial for what is left of it.
KW_DEVICE void rope_cos_sin(uint32_t turn, float& cos, float& sin) {
  const uint32_t quarter = (turn + 0x20000000u) >> 30;
  const float r = static_cast<float>(static_cast<int32_t>(turn - (quarter << 30))) * kRopeRadians, z = r * r;
  const float s = fmaf(fmaf(fmaf(kRopeSin2, z, kRopeSin1), z, kRopeSin0), z * r, r);
  const float c = fmaf(fmaf(fmaf(kRopeCos2, z, kRopeCos1), z, kRopeCos0), z * z, fmaf(z, -0.5f, 1.0f));
  const float a = quarter & 1 ? s : c, b = quarter & 1 ? c : s;
  cos = (quarter + 1) & 2 ? -a : a;
  sin = quarter & 2 ? -b : b;
}

// Angles of a piece at a position; of one that is copied, none.
template <int kV>
KW_DEVICE void rope_piece_angles(const RopeAnglesCuda& a, int64_t position, int piece, float (&cos)[kV],
                                 float (&sin)[kV]) {
  if (piece >= a.pairs / kV) return;
#pragma unroll
  for (int i = 0; i < kV; ++i) {
    const uint64_t turn = static_cast<uint64_t>(position) * a.turns[piece * kV + i];
    rope_cos_sin(static_cast<uint32_t>(turn >> 32), cos[i], sin[i]);
    cos[i] *= a.factor, sin[i] *= a.factor;
  }
}

template <int kV>
KW_DEVICE void store_piece(void* p, DType dtype, int64_t at, float (&v)[kV], float divisor) {
  if (divisor != 1) {
#pragma unroll
    for (int i = 0; i < kV; ++i) v[i] /= divisor;
  }
  if constexpr (kV == 8)
    store8(p, dtype, at, v);
  else
    store1(p, dtype, at, v[0]);
}

// The piece of the row at x[from], turned or copied, divided, to y[to]. Reads all of it before it writes.
template <int kV>
KW_DEVICE void rope_piece(const RopeAnglesCuda& a, int piece, const float (&cos)[kV], const float (&sin)[kV],
                          const void* x, DType dtype, int64_t from, void* y, DType y_dtype, int64_t to, float divisor) {
  const int turning = a.pairs / kV;
  float u[kV], v[kV];
  if (piece >= turning) {
    const int column = 2 * a.pairs + (piece - turning) * kV;
    load_piece(u, x, dtype, from + column);
    store_piece(y, y_dtype, to + column, u, divisor);
    return;
  }
  const int first = a.interleaved ? 2 * piece * kV : piece * kV, second = first + (a.interleaved ? kV : a.pairs);
  load_piece(u, x, dtype, from + first);
  load_piece(v, x, dtype, from + second);
  const auto turn = [&](float& even, float& odd, float c, float s) {
    const float kept = even;
    even = fmaf(-odd, s, kept * c);
    odd = fmaf(kept, s, odd * c);
  };
  if (!a.interleaved) {
#pragma unroll
    for (int i = 0; i < kV; ++i) turn(u[i], v[i], cos[i], sin[i]);
  } else if constexpr (kV == 1) {
    turn(u[0], v[0], cos[0], sin[0]);
  } else {
#pragma unroll
    for (int i = 0; i < kV / 2; ++i) {
      turn(u[2 * i], u[2 * i + 1], cos[i], sin[i]);
      turn(v[2 * i], v[2 * i + 1], cos[kV / 2 + i], sin[kV / 2 + i]);
    }
  }
  store_piece(y, y_dtype, to + first, u, divisor);
  store_piece(y, y_dtype, to + second, v, divisor);
}

}  // namespace kw
