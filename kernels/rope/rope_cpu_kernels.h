// The loops of rope on the CPU, over core/cpu/simd_<isa>.h, which must be included before.
#pragma once
#include <utility>

#include "../core/cpu/simd_cells.h"
#include "rope_cpu.h"
#include "rope_turns.h"

namespace kw::cpu {
namespace {

constexpr int kW = Simd::kWidth;
using I = Simd::I;
typedef uint32_t U __attribute__((vector_size(sizeof(I))));

// Cosine and sine of so many 2^-32 turns: the nearest quarter by symmetry, a polynomial for what is left of it.
void cos_sin(U turn, F& cos, F& sin) {
  const U quarter = (turn + 0x20000000u) >> 30;
  const F r = __builtin_convertvector((I)(turn - (quarter << 30)), F) * Simd::set(kRopeRadians), z = r * r;
  const F s =
      Simd::fma(Simd::fma(Simd::fma(Simd::set(kRopeSin2), z, Simd::set(kRopeSin1)), z, Simd::set(kRopeSin0)), z * r, r);
  const F tail = Simd::fma(Simd::fma(Simd::set(kRopeCos2), z, Simd::set(kRopeCos1)), z, Simd::set(kRopeCos0));
  const F c = Simd::fma(tail, z * z, Simd::fma(z, Simd::set(-0.5f), Simd::set(1)));
  const I swapped = (I)(quarter & 1u) != 0;
  const F a = swapped ? s : c, b = swapped ? c : s;
  cos = (F)((U)a ^ ((quarter + 1u) & 2u) << 30);
  sin = (F)((U)b ^ (quarter & 2u) << 30);
}

void rope_angles(const RopeAngles& a) {
  const auto position = static_cast<uint64_t>(a.position);
  for (int64_t j = 0; j < a.pairs; ++j) a.space[j] = static_cast<uint32_t>(position * a.turns[j] >> 32);
  const F factor = Simd::set(a.factor);
  for (int64_t j = 0; j < a.pairs; j += kW) {
    U turn;
    __builtin_memcpy(&turn, a.space + j, sizeof(turn));
    F cos, sin;
    cos_sin(turn, cos, sin);
    cos *= factor, sin *= factor;
    if (!a.interleaved) {
      Simd::store(a.cos + j, cos), Simd::store(a.sin + j, sin);
      continue;
    }
    float c[kW], s[kW];
    Simd::store(c, cos), Simd::store(s, sin);
    for (int i = 0; i < kW && j + i < a.pairs; ++i) {
      a.cos[2 * (j + i)] = a.cos[2 * (j + i) + 1] = c[i];
      a.sin[2 * (j + i)] = -s[i], a.sin[2 * (j + i) + 1] = s[i];
    }
  }
}

// Every even lane exchanged with the one after it.
template <size_t... kLane>
F exchanged(F v, std::index_sequence<kLane...>) {
  return __builtin_shufflevector(v, v, (kLane ^ 1)...);
}

template <bool kDivides>
void row_of(const RopeRow& r) {
  const F divisor = Simd::set(r.divisor);
  const auto put = [&](int64_t at, F v, int n) { store_any(r.y_dtype, r.y, at, kDivides ? v / divisor : v, n); };
  if (r.interleaved) {
    for (int64_t e = 0; e < 2 * r.pairs; e += kW) {
      const int n = static_cast<int>(lesser<int64_t>(kW, 2 * r.pairs - e));
      const F v = load_any(r.dtype, r.x, e, n), w = exchanged(v, std::make_index_sequence<kW>());
      put(e, Simd::fma(w, Simd::load(r.sin + e), v * Simd::load(r.cos + e)), n);
    }
  } else {
    for (int64_t j = 0; j < r.pairs; j += kW) {
      const int n = static_cast<int>(lesser<int64_t>(kW, r.pairs - j));
      const F u = load_any(r.dtype, r.x, j, n), v = load_any(r.dtype, r.x, r.pairs + j, n);
      const F cos = Simd::load(r.cos + j), sin = Simd::load(r.sin + j);
      put(j, Simd::fnma(v, sin, u * cos), n);
      put(r.pairs + j, Simd::fma(u, sin, v * cos), n);
    }
  }
  if (!kDivides && r.dtype == r.y_dtype) {  // as they are, to the bit
    const int64_t size = bits(r.dtype) / 8, at = 2 * r.pairs * size;
    if (r.x != r.y)
      __builtin_memcpy(static_cast<char*>(r.y) + at, static_cast<const char*>(r.x) + at, r.columns * size - at);
    return;
  }
  for (int64_t e = 2 * r.pairs; e < r.columns; e += kW) {
    const int n = static_cast<int>(lesser<int64_t>(kW, r.columns - e));
    put(e, load_any(r.dtype, r.x, e, n), n);
  }
}

void rope_row(const RopeRow& r) { r.divisor == 1 ? row_of<false>(r) : row_of<true>(r); }

constexpr RopeKernels kRopeHere{rope_angles, rope_row};

}  // namespace
}  // namespace kw::cpu
