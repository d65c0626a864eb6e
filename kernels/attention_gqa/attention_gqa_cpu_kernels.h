// The loops of attention_gqa on the CPU, written once over core/cpu/simd_<isa>.h, which must be included before. Everything is in
// an unnamed namespace: each instruction set has its own copy.
//
// tile: scores are kept transposed, [keys][rows], so that a vector holds one key's scores of kW rows: maxima, sums and masks
//       need nothing across lanes, and neither q k nor p v needs its operands turned round.
// few:  inner products along dim, keys and values read once and in place.
#pragma once
#include "../core/cpu/simd_cells.h"
#include "../core/cpu/simd_math.h"
#include "attention_gqa_cpu.h"

namespace kw::cpu {
namespace {

constexpr int kW = Simd::kWidth;
constexpr int kRows = 2 * kW;  // of a panel
constexpr float kNone = -__builtin_inff();

inline I lanes(const int32_t* p) {
  I v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

inline F load_as(DType dtype, const void* p, int64_t at, int n) {
  if (dtype == DType::f32) return Simd::load(static_cast<const float*>(p) + at, n);
  const auto* half = static_cast<const uint16_t*>(p) + at;
  return dtype == DType::f16 ? Simd::load_f16(half, n) : Simd::load_bf16(half, n);
}

inline F capped(F t, float cap) { return Simd::set(cap) * tanh(t / Simd::set(cap)); }
inline F distance(F place, F key) {
  const F d = place - key;
  return d < Simd::set(0) ? -d : d;
}

// ---- packing ---------------------------------------------------------------------------------------------------------

template <class Cells>
void pack_q(float* to, const void* const* q, int64_t dim) {
  constexpr int per = Cells::kPerCell;
  const int64_t cells = (dim + per - 1) / per;
  for (int r = 0; r < kRows; r += kW) {
    for (int64_t c = 0; c < cells; c += kW) {
      const int count = static_cast<int>(lesser<int64_t>(cells - c, kW));
      const int elements = static_cast<int>(lesser<int64_t>(dim - c * per, kW * per));
      F v[kW];
      for (int i = 0; i < kW; ++i) {
        const auto* row = static_cast<const typename Cells::T*>(q[r + i]);
        v[i] = row ? Cells::load(row + c * per, elements) : Simd::set(0);
      }
      Simd::transpose(v);
      for (int i = 0; i < count; ++i) Simd::store(to + (c + i) * kRows + r, v[i]);
    }
  }
}

template <class Cells>
void copy_row(float* to, const typename Cells::T* from, int64_t dim, int64_t cells) {
  constexpr int per = Cells::kPerCell;
  int64_t c = 0;
  for (; (c + kW) * per <= dim; c += kW) Simd::store(to + c, Cells::load(from + c * per));
  if (c < cells) {
    const int rest = static_cast<int>(dim - c * per);
    Simd::store(to + c, rest > 0 ? Cells::load(from + c * per, rest) : Simd::set(0), static_cast<int>(cells - c));
  }
}

template <class Cells>
void pack_k(float* to, const void* k, int64_t stride, int64_t keys, int64_t dim) {
  const auto* from = static_cast<const typename Cells::T*>(k);
  const int64_t cells = (dim + Cells::kPerCell - 1) / Cells::kPerCell;
  for (int64_t j = 0; j < keys; ++j) copy_row<Cells>(to + j * cells, from + j * stride, dim, cells);
}

template <class Cells>
void pack_v(float* to, const void* v, int64_t stride, int64_t keys, int64_t dim_v, int64_t slab) {
  constexpr int per = Cells::kPerCell;
  const auto* from = static_cast<const typename Cells::T*>(v);
  for (int64_t j = 0; j < keys; j += per, from += per * stride, to += kRows) {
    float* cell = to;
    for (int64_t e = 0; e < dim_v; e += kRows, cell += slab * kRows) {
      for (int half = 0; half < kRows; half += kW) {
        const int n = static_cast<int>(lesser<int64_t>(dim_v - e - half, kW));
        F value = Simd::set(0);
        if (n == kW) {
          value = Cells::across(from + e + half, stride, j + 1 < keys, kW);
        } else if (n > 0) {
          value = Cells::across(from + e + half, stride, j + 1 < keys, n);
        }
        Simd::store(cell + half, value);
      }
    }
  }
}

template <class Cells>
void flatten(float* to, const void* q, int64_t dim) {
  const int64_t cells = (dim + Cells::kPerCell - 1) / Cells::kPerCell, padded = (cells + 15) / 16 * 16;
  for (int64_t c = cells / kW * kW; c < padded; c += kW) Simd::store(to + c, Simd::set(0));
  copy_row<Cells>(to, static_cast<const typename Cells::T*>(q), dim, cells);
}

// ---- a tile ----------------------------------------------------------------------------------------------------------

// s[i] += sum over cells of a[i * row + c * step] * b[c], two vectors each.
template <class Math, int M>
inline void outer(const float* a, int64_t row, int64_t step, const float* b, int64_t cells, F (&s)[M][2]) {
  for (int64_t c = 0; c < cells; ++c, a += step, b += kRows) {
    const F b0 = Simd::load(b), b1 = Simd::load(b + kW);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const F ai = Simd::set(a[i * row]);
      s[i][0] = Math::mul_add(ai, b0, s[i][0]);
      s[i][1] = Math::mul_add(ai, b1, s[i][1]);
    }
  }
}

// Products of all rows with M keys from j on.
template <class Math, int M>
void multiply_keys(const AttentionTile& t, int j) {
  F s[M][2] = {};
  outer<Math, M>(t.k + j * t.cells, t.cells, 1, t.q, t.cells, s);
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    Simd::store(t.scores + (j + i) * kRows, s[i][0]);
    Simd::store(t.scores + (j + i) * kRows + kW, s[i][1]);
  }
}

// The last keys of a tile, fewer than M.
template <class Math, int M>
void multiply_rest(const AttentionTile& t, int j) {
  if constexpr (M > 0) {
    if (t.end - j < M) return multiply_rest<Math, M - 1>(t, j);
    multiply_keys<Math, M>(t, j);
  }
}

// What the products need beyond a factor: softcap, alibi, bias, mask. Written for clarity: none of it is on the common path.
inline void adjust(const AttentionTile& t) {
  const AttentionScoring& how = *t.scoring;
  for (int j = t.begin; j < t.end; ++j) {
    for (int r = 0; r < kRows; r += kW) {
      F s = Simd::load(t.scores + j * kRows + r) * Simd::set(how.scale);
      if (how.softcap != 0) s = capped(s, how.softcap);
      if (how.alibi) {
        const F away = distance(Simd::load(t.rows->place + r), Simd::set(static_cast<float>(t.first + j)));
        s -= Simd::load(t.rows->slope + r) * away;
      }
      Simd::store(t.scores + j * kRows + r, s);
    }
  }
  for (int r = 0; how.bias && r < kRows; r += kW) {
    for (int j = t.begin; j < t.end; j += kW) {
      const int n = lesser(t.end - j, kW);
      F b[kW];
      for (int i = 0; i < kW; ++i) {
        b[i] = r + i < t.rows->count ? load_as(how.bias_dtype, t.rows->bias[r + i], t.first + j, n) : Simd::set(0);
      }
      Simd::transpose(b);
      for (int i = 0; i < n; ++i) {
        float* s = t.scores + (j + i) * kRows + r;
        Simd::store(s, Simd::load(s) + b[i]);
      }
    }
  }
  for (int r = 0; how.mask && r < t.rows->count; ++r) {
    for (int j = t.begin; j < t.end; ++j) {
      if (t.rows->mask[r][(t.first + j) / how.mask_block] == 0) t.scores[j * kRows + r] = kNone;
    }
  }
}

// Products to scores in kW rows from r on, and their maximum.
template <bool kAdjusted, bool kEdge>
F score(const AttentionTile& t, int r, F top) {
  const I begin = lanes(t.rows->begin + r), end = lanes(t.rows->end + r);
  const F scale = Simd::set(t.scoring->scale), none = Simd::set(kNone);
  for (int j = t.begin; j < t.end; ++j) {
    float* at = t.scores + j * kRows + r;
    F s = Simd::load(at);
    if (!kAdjusted) s *= scale;
    if (kEdge) {
      const I key = (I){} + (t.first + j);
      s = begin <= key ? s : none;
      s = key < end ? s : none;
    }
    top = larger(s, top);
    if (!kAdjusted || kEdge) Simd::store(at, s);
  }
  return top;
}

// Scores to weights, in place, as cells; returns their sum.
template <class Cells>
F weigh(const AttentionTile& t, int r, F top) {
  F sum = Simd::set(0);
  float* scores = t.scores + r;
  if constexpr (Cells::kPerCell == 1) {
    for (int j = t.begin; j < t.end; ++j) {
      const F w = exp_flushed(Simd::load(scores + j * kRows) - top);
      sum += w;
      Simd::store(scores + j * kRows, w);
    }
  } else {
    for (int j = t.begin; j < t.end; j += 2) {
      const F low = exp_flushed(Simd::load(scores + j * kRows) - top);
      F high = Simd::set(0);
      if (j + 1 < t.end) high = exp_flushed(Simd::load(scores + (j + 1) * kRows) - top);
      sum += low + high;
      Simd::store(scores + j / 2 * kRows, Cells::zip(low, high));
    }
  }
  return sum;
}

// o = o * factor + weights * values for M rows from r on, in one column.
template <class Cells, class Math, int M>
void add_values(const AttentionTile& t, int r, int column, const float* factor) {
  constexpr int per = Cells::kPerCell;
  const int from = t.begin / per, to = (t.end + per - 1) / per;
  float* o = t.o + r * t.stride_o + column * kRows;
  F s[M][2] = {};
  if (factor) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const F f = Simd::set(factor[r + i]);
      s[i][0] = f * Simd::load(o + i * t.stride_o);
      s[i][1] = f * Simd::load(o + i * t.stride_o + kW);
    }
  }
  outer<Math, M>(t.scores + from * kRows + r, 1, kRows, t.v + (column * t.slab + from) * kRows, to - from, s);
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    Simd::store(o + i * t.stride_o, s[i][0]);
    Simd::store(o + i * t.stride_o + kW, s[i][1]);
  }
}

// KeysAtOnce and RowsAtOnce: the micro-tiles of q k and of p v, each by two vectors.
template <class Cells, class Math, int KeysAtOnce, int RowsAtOnce>
void tile(const AttentionTile& t) {
  AttentionRows& rows = *t.rows;
  const AttentionScoring& how = *t.scoring;
  int j = t.begin;
  for (; j + KeysAtOnce <= t.end; j += KeysAtOnce) multiply_keys<Math, KeysAtOnce>(t, j);
  multiply_rest<Math, KeysAtOnce - 1>(t, j);

  const bool adjusted = how.softcap != 0 || how.alibi || how.bias || how.mask;
  if (adjusted) adjust(t);
  alignas(64) float factor[kRows];
  for (int r = 0; r < kRows; r += kW) {
    const F none = Simd::set(kNone), zero = Simd::set(0);
    const F before = rows.fresh ? none : Simd::load(rows.max + r), sum = rows.fresh ? zero : Simd::load(rows.sum + r);
    const F top = adjusted ? t.edge ? score<true, true>(t, r, before) : score<true, false>(t, r, before)
                  : t.edge ? score<false, true>(t, r, before)
                           : score<false, false>(t, r, before);
    const F finite = top == none ? zero : top;  // a row without a score above -inf so far
    const F f = exp_flushed(before - finite);
    Simd::store(rows.max + r, top);
    Simd::store(rows.sum + r, Simd::fma(sum, f, weigh<Cells>(t, r, finite)));
    Simd::store(factor + r, f);
  }

  const float* keep = rows.fresh ? nullptr : factor;
  for (int column = 0; column < t.columns; ++column) {
    for (int r = 0; r < rows.count; r += RowsAtOnce) add_values<Cells, Math, RowsAtOnce>(t, r, column, keep);
  }
  rows.fresh = false;
}

// ---- a few rows ------------------------------------------------------------------------------------------------------

template <class Cells>
void prefetch_row(const char* p, int64_t elements) {
  for (int64_t b = 0; b < elements * int64_t{sizeof(typename Cells::T)}; b += 64) __builtin_prefetch(p + b, 0, 2);
}

// Products of M rows from r on with N keys from j on, M N being a vector's width.
template <class Cells, class Math, int M, int N>
void few_products(const AttentionFew& f, int r, int j) {
  constexpr int kStep = kW * Cells::kPerCell;
  const auto* k = static_cast<const typename Cells::T*>(f.k) + j * f.stride_k;
  const float* q = f.q + r * f.padded;
  const int64_t whole = f.dim / kStep;
  const int rest = static_cast<int>(f.dim % kStep), keys = lesser(N, f.keys - j);
  if (r == 0 && f.ahead_k) {
    const char* ahead = f.ahead_k + j * f.stride_k * int64_t{sizeof(typename Cells::T)};
    for (int n = 0; n < keys; ++n) {
      prefetch_row<Cells>(ahead + n * f.stride_k * int64_t{sizeof(typename Cells::T)}, f.dim);
    }
  }
  F s[kW] = {};
  const auto add = [&](int64_t v, auto load) {
    F x[M];
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) x[i] = Simd::load(q + i * f.padded + v * kW);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const F key = load(k + (n < keys ? n : 0) * f.stride_k + v * kStep);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) s[i * N + n] = Math::mul_add(x[i], key, s[i * N + n]);
    }
  };
  for (int64_t v = 0; v < whole; ++v) add(v, [](const auto* p) { return Cells::load(p); });
  if (rest != 0) add(whole, [rest](const auto* p) { return Cells::load(p, rest); });
  alignas(64) float sums[kW];
  Simd::store(sums, Simd::sums(s));
  for (int i = 0; i < M; ++i) {
    for (int n = 0; n < keys; ++n) f.scores[(r + i) * AttentionFew::kKeys + j + n] = sums[i * N + n];
  }
}

template <class Cells, class Math, int M>
void few_rows(const AttentionFew& f, int r) {
  constexpr int N = kW / M;
  for (int j = 0; j < f.keys; j += N) few_products<Cells, Math, M, N>(f, r, j);
}

// Products to weights in row r, as cells; returns the factor for what was summed before.
template <class Cells>
float few_weights(const AttentionFew& f, int r) {
  const AttentionScoring& how = *f.scoring;
  AttentionRows& rows = *f.rows;
  float* scores = f.scores + r * AttentionFew::kKeys;
  alignas(64) float ramp[kW];
  for (int i = 0; i < kW; ++i) ramp[i] = static_cast<float>(i);
  const F zero = Simd::set(0), none = Simd::set(kNone);
  F top = none;
  for (int j = 0; j < f.keys; j += kW) {
    const int n = lesser(f.keys - j, kW);
    const F index = Simd::load(ramp);
    F s = Simd::load(scores + j, n) * Simd::set(how.scale);
    if (how.softcap != 0) s = capped(s, how.softcap);
    if (how.bias) s += load_as(how.bias_dtype, rows.bias[r], f.first + j, n);
    if (how.alibi) {
      const F key = Simd::set(static_cast<float>(f.first + j)) + index;
      s -= Simd::set(rows.slope[r]) * distance(Simd::set(rows.place[r]), key);
    }
    if (f.edge) {
      s = index < Simd::set(static_cast<float>(rows.begin[r] - f.first - j)) ? none : s;
      s = index < Simd::set(static_cast<float>(rows.end[r] - f.first - j)) ? s : none;
    }
    s = index < Simd::set(static_cast<float>(n)) ? s : none;
    Simd::store(scores + j, s, kW);
    if (how.mask) {
      for (int i = 0; i < n; ++i) {
        if (rows.mask[r][(f.first + j + i) / how.mask_block] == 0) scores[j + i] = kNone;
      }
      s = Simd::load(scores + j);
    }
    top = larger(s, top);
  }
  alignas(64) float tops[kW];
  Simd::store(tops, top);
  const float before = rows.fresh ? kNone : rows.max[r];
  float highest = before;
  for (int i = 0; i < kW; ++i) highest = tops[i] > highest ? tops[i] : highest;
  const float finite = highest == kNone ? 0 : highest;
  F sum = zero;
  for (int j = 0; j < f.keys; j += kW * Cells::kPerCell) {
    const F first = exp_flushed(Simd::load(scores + j) - Simd::set(finite));
    sum += first;
    if constexpr (Cells::kPerCell == 1) {
      Simd::store(scores + j, first);
    } else {
      F second = zero;
      if (j + kW < f.keys) second = exp_flushed(Simd::load(scores + j + kW) - Simd::set(finite));
      sum += second;
      Simd::store(scores + j / 2, Cells::along(first, second));
    }
  }
  alignas(64) float factor[kW];
  Simd::store(factor, exp_flushed(Simd::set(before - finite)));
  rows.sum[r] = (rows.fresh ? 0 : rows.sum[r]) * factor[0] + Simd::sum(sum);
  rows.max[r] = highest;
  return factor[0];
}

// o = o * factor + weights * values for M rows from r on, in up to N vectors from element e on.
template <class Cells, class Math, int M, int N>
void few_values(const AttentionFew& f, int r, int64_t e, const float* factor) {
  constexpr int per = Cells::kPerCell;
  const auto* v = static_cast<const typename Cells::T*>(f.v) + e;
  const float* weights = f.scores + r * AttentionFew::kKeys;
  float* o = f.o + r * f.stride_o + e;
  const int rest = static_cast<int>(lesser<int64_t>(f.dim_v - e, N * kW));
  const bool ahead = r == 0 && e == 0 && f.ahead_v;
  F s[M][N] = {};
  if (factor) {
    for (int i = 0; i < M; ++i) {
      for (int n = 0; n < N; ++n) s[i][n] = Simd::set(factor[r + i]) * Simd::load(o + i * f.stride_o + n * kW);
    }
  }
  const auto add = [&](auto load) {
    for (int j = 0; j < f.keys; j += per) {
      if (ahead) {
        for (int p = j; p < lesser(j + per, f.keys); ++p) {
          prefetch_row<Cells>(f.ahead_v + p * f.stride_v * int64_t{sizeof(typename Cells::T)}, f.dim_v);
        }
      }
      F x[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) x[n] = load(v + j * f.stride_v, n, j + 1 < f.keys);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        const F w = Simd::set(weights[i * AttentionFew::kKeys + j / per]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) s[i][n] = Math::mul_add(w, x[n], s[i][n]);
      }
    }
  };
  if (rest == N * kW) {
    add([&](const auto* p, int n, bool second) { return Cells::across(p + n * kW, f.stride_v, second, kW); });
  } else {
    add([&](const auto* p, int n, bool second) {
      const int lanes = lesser(rest - n * kW, kW);
      return lanes > 0 ? Cells::across(p + n * kW, f.stride_v, second, lanes) : Simd::set(0);
    });
  }
  for (int i = 0; i < M; ++i) {
    for (int n = 0; n < N; ++n) Simd::store(o + i * f.stride_o + n * kW, s[i][n]);
  }
}

template <class Cells, class Math, int M, int N>
void few_block(const AttentionFew& f, int r, const float* factor) {
  for (int64_t e = 0; e < f.dim_v; e += N * kW) few_values<Cells, Math, M, N>(f, r, e, factor);
}

template <class Cells, class Math>
void few(const AttentionFew& f) {
  const int count = f.rows->count;
  const auto blocks = [count](auto four, auto two, auto one) {
    int r = 0;
    for (; r + 4 <= count; r += 4) four(r);
    for (; r + 2 <= count; r += 2) two(r);
    for (; r < count; ++r) one(r);
  };
  blocks([&](int r) { few_rows<Cells, Math, 4>(f, r); }, [&](int r) { few_rows<Cells, Math, 2>(f, r); },
         [&](int r) { few_rows<Cells, Math, 1>(f, r); });
  float factor[AttentionFew::kRows];
  for (int r = 0; r < count; ++r) factor[r] = few_weights<Cells>(f, r);
  const float* keep = f.rows->fresh ? nullptr : factor;
  constexpr int N = kW == 16 ? 4 : 2;  // as many vectors as leave room for four rows
  blocks([&](int r) { few_block<Cells, Math, 4, N>(f, r, keep); },
         [&](int r) { few_block<Cells, Math, 2, N>(f, r, keep); },
         [&](int r) { few_block<Cells, Math, 1, N>(f, r, keep); });
  f.rows->fresh = false;
}

// ---- the end ---------------------------------------------------------------------------------------------------------

inline void finish(void* y, DType dtype, const float* o, float divisor, int64_t n) {
  for (int64_t e = 0; e < n; e += kW) {
    const int count = static_cast<int>(lesser<int64_t>(n - e, kW));
    const F value = Simd::load(o + e, count) / Simd::set(divisor);
    if (dtype == DType::f32) {
      Simd::store(static_cast<float*>(y) + e, value, count);
    } else {
      auto* half = static_cast<uint16_t*>(y) + e;
      dtype == DType::f16 ? Simd::store_f16(half, value, count) : Simd::store_bf16(half, value, count);
    }
  }
}

// One table entry.
template <class Cells, class Math, int KeysAtOnce, int RowsAtOnce>
constexpr AttentionKernels attention_kernels(const char* isa) {
  static_assert(kRows <= AttentionRows::kMost && kRows % RowsAtOnce == 0);
  return {.isa = isa,
          .rows = kRows,
          .per_cell = Cells::kPerCell,
          .pack_q = pack_q<Cells>,
          .pack_k = pack_k<Cells>,
          .pack_v = pack_v<Cells>,
          .tile = tile<Cells, Math, KeysAtOnce, RowsAtOnce>,
          .flatten = flatten<Cells>,
          .few = few<Cells, Math>,
          .finish = finish};
}

}  // namespace
}  // namespace kw::cpu
