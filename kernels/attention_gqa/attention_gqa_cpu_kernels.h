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

inline F capped(F t, float cap) { return Simd::set(cap) * tanh(t / Simd::set(cap)); }
inline F distance(F place, F key) {
  const F d = place - key;
  return d < Simd::set(0) ? -d : d;
}

// 0 for each of n keys from `key` on that a row of the mask shows, -1 for those it hides; lanes past n are either.
inline F mask_of(const AttentionScoring& how, const uint8_t* mask, int64_t key, int n) {
  alignas(64) float hidden[kW] = {};
  if (how.mask_block == 1) {
    for (int i = 0; i < n; ++i) hidden[i] = mask[key + i] == 0 ? -1.0f : 0.0f;
  } else {
    int64_t block = key / how.mask_block, left = (block + 1) * how.mask_block - key;
    if (left >= n) return Simd::set(mask[block] == 0 ? -1.0f : 0.0f);
    for (int i = 0; i < n; ++i) {
      hidden[i] = mask[block] == 0 ? -1.0f : 0.0f;
      if (--left == 0) ++block, left = how.mask_block;
    }
  }
  return Simd::load(hidden);
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

template <class Cells>
void widen(void* to, const uint8_t* from, int64_t n) {
  Cells::widen(static_cast<typename Cells::T*>(to), from, n);
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

// Products of all rows with all keys of a tile.
template <class Math, int KeysAtOnce>
void multiply(const AttentionTile& t) {
  int j = t.begin;
  for (; j + KeysAtOnce <= t.end; j += KeysAtOnce) multiply_keys<Math, KeysAtOnce>(t, j);
  multiply_rest<Math, KeysAtOnce - 1>(t, j);
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
  for (int r = 0; how.mask && r < kRows; r += kW) {
    for (int j = t.begin; j < t.end; j += kW) {
      const int n = lesser(t.end - j, kW);
      F hidden[kW];
      for (int i = 0; i < kW; ++i) {
        hidden[i] = r + i < t.rows->count ? mask_of(how, t.rows->mask[r + i], t.first + j, n) : Simd::set(0);
      }
      Simd::transpose(hidden);
      for (int i = 0; i < n; ++i) {
        float* s = t.scores + (j + i) * kRows + r;
        Simd::store(s, hidden[i] < Simd::set(0) ? Simd::set(kNone) : Simd::load(s));
      }
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
  multiply<Math, KeysAtOnce>(t);

  const bool adjusted = how.adjusts();
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

// The first `elements` of each of `rows` rows.
template <class Cells>
void prefetch(const void* p, int64_t stride, int rows, int64_t elements) {
  constexpr int64_t size = sizeof(typename Cells::T);
  const auto* row = static_cast<const char*>(p);
  for (int r = 0; r < rows; ++r, row += stride * size) {
    for (int64_t b = 0; b < elements * size; b += 64) __builtin_prefetch(row + b, 0, 2);
  }
}

// s[i N + n] += x[i] . key n, over one vector of cells. step: between rows of x; stride: between keys; rest: elements, 0: all.
template <class Cells, class Math, int M, int N>
inline void few_step(const float* x, int64_t step, const typename Cells::T* key, int64_t stride, int keys, int rest,
                     F (&s)[kW]) {
  F xs[M];
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) xs[i] = Simd::load(x + i * step);
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) {
    const auto* p = key + (n < keys ? n : 0) * stride;
    const F k = rest == 0 ? Cells::load(p) : Cells::load(p, rest);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) s[i * N + n] = Math::mul_add(xs[i], k, s[i * N + n]);
  }
}

// Products of M rows from r on with N keys from j on, M N being a vector's width.
template <class Cells, class Math, int M, int N>
void few_products(const AttentionFew& f, int r, int j) {
  constexpr int kStep = kW * Cells::kPerCell;
  const auto* k = static_cast<const typename Cells::T*>(f.k) + j * f.stride_k;
  const float* q = f.q + r * f.padded;
  const int64_t whole = f.dim / kStep;
  const int rest = static_cast<int>(f.dim % kStep), keys = lesser(N, f.keys - j);
  if (r == 0 && f.v) {
    const auto* v = static_cast<const typename Cells::T*>(f.v) + j * f.stride_v;
    prefetch<Cells>(v, f.stride_v, keys, f.dim_v);
  }
  F s[kW];
#pragma GCC unroll 16
  for (int i = 0; i < kW; ++i) s[i] = Simd::set(0);
  for (int64_t v = 0; v < whole; ++v) {
    few_step<Cells, Math, M, N>(q + v * kW, f.padded, k + v * kStep, f.stride_k, keys, 0, s);
  }
  if (rest != 0) few_step<Cells, Math, M, N>(q + whole * kW, f.padded, k + whole * kStep, f.stride_k, keys, rest, s);
  alignas(64) float sums[kW];
  Simd::store(sums, Simd::sums(s));
  for (int i = 0; i < M; ++i) __builtin_memcpy(f.scores + (r + i) * AttentionFew::kKeys + j, sums + i * N, 4 * N);
}

template <class Cells, class Math, int M>
void few_rows(const AttentionFew& f, int r) {
  constexpr int N = kW / M;
  for (int j = 0; j < f.keys; j += N) few_products<Cells, Math, M, N>(f, r, j);
}

// Products to scores in row r; returns the highest.
inline float few_scale(const AttentionFew& f, int r) {
  const AttentionScoring& how = *f.scoring;
  const AttentionRows& rows = *f.rows;
  float* scores = f.scores + r * AttentionFew::kKeys;
  alignas(64) float ramp[kW];
  for (int i = 0; i < kW; ++i) ramp[i] = static_cast<float>(i);
  const F index = Simd::load(ramp), none = Simd::set(kNone);
  F top = none;
  for (int j = 0; j < f.keys; j += kW) {
    const int n = lesser(f.keys - j, kW);
    F s = Simd::load(scores + j) * Simd::set(how.scale);
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
    if (n < kW) s = index < Simd::set(static_cast<float>(n)) ? s : none;
    if (how.mask) s = mask_of(how, rows.mask[r], f.first + j, n) < Simd::set(0) ? none : s;
    Simd::store(scores + j, s);
    top = larger(s, top);
  }
  return Simd::top(top);
}

// Scores to weights in row r, as cells; returns their sum.
template <class Cells>
float few_weigh(const AttentionFew& f, int r, float top) {
  float* scores = f.scores + r * AttentionFew::kKeys;
  F sum = Simd::set(0);
  for (int j = 0; j < f.keys; j += kW * Cells::kPerCell) {
    const F first = exp_flushed(Simd::load(scores + j) - Simd::set(top));
    sum += first;
    if constexpr (Cells::kPerCell == 1) {
      Simd::store(scores + j, first);
    } else {
      F second = Simd::set(0);
      if (j + kW < f.keys) second = exp_flushed(Simd::load(scores + j + kW) - Simd::set(top));
      sum += second;
      Simd::store(scores + j / 2, Cells::along(first, second));
    }
  }
  return Simd::sum(sum);
}

// Calls four, two and one with the first of as many rows.
template <class Four, class Two, class One>
void in_fours(int count, Four four, Two two, One one) {
  int r = 0;
  for (; r + 4 <= count; r += 4) four(r);
  for (; r + 2 <= count; r += 2) two(r);
  for (; r < count; ++r) one(r);
}

template <class Cells, class Math>
void few_scores(const AttentionFew& f) {
  AttentionRows& rows = *f.rows;
  in_fours(
      rows.count, [&](int r) { few_rows<Cells, Math, 4>(f, r); }, [&](int r) { few_rows<Cells, Math, 2>(f, r); },
      [&](int r) { few_rows<Cells, Math, 1>(f, r); });
  alignas(64) float before[AttentionFew::kRows] = {}, top[AttentionFew::kRows] = {};
  for (int r = 0; r < rows.count; ++r) {
    const float highest = few_scale(f, r);
    before[r] = rows.fresh ? kNone : rows.max[r];
    rows.max[r] = highest > before[r] ? highest : before[r];
    top[r] = rows.max[r] == kNone ? 0 : rows.max[r];  // a row without a score above -inf so far
  }
  for (int r = 0; r < rows.count; r += kW) {
    Simd::store(rows.factor + r, exp_flushed(Simd::load(before + r) - Simd::load(top + r)));
  }
  for (int r = 0; r < rows.count; ++r) {
    rows.sum[r] = (rows.fresh ? 0 : rows.sum[r] * rows.factor[r]) + few_weigh<Cells>(f, r, top[r]);
  }
}

// s[i][n] += weight of row i * the n-th vector of a value, from element e on; kWhole: there are N whole vectors.
template <class Cells, class Math, int M, int N, bool kWhole>
inline void few_add(const AttentionFew& f, int64_t e, const float* weights, F (&s)[M][N]) {
  constexpr int per = Cells::kPerCell;
  const auto* v = static_cast<const typename Cells::T*>(f.v) + e;
  const int rest = static_cast<int>(lesser<int64_t>(f.dim_v - e, N * kW));
  for (int j = 0; j < f.keys; j += per, v += per * f.stride_v, ++weights) {
    F x[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const int lanes = kWhole ? kW : lesser(rest - n * kW, kW);
      x[n] = lanes > 0 ? Cells::across(v + n * kW, f.stride_v, j + 1 < f.keys, lanes) : Simd::set(0);
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      const F w = Simd::set(weights[i * AttentionFew::kKeys]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) s[i][n] = Math::mul_add(w, x[n], s[i][n]);
    }
  }
}

// o = o * factor + weights * values for M rows from r on, in up to N vectors from element e on.
template <class Cells, class Math, int M, int N>
void few_block(const AttentionFew& f, int r, int64_t e) {
  const float* weights = f.scores + r * AttentionFew::kKeys;
  float* o = f.o + r * f.stride_o + e;
  F s[M][N];
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) {
    const F factor = Simd::set(f.rows->factor[r + i]);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      s[i][n] = f.rows->fresh ? Simd::set(0) : factor * Simd::load(o + i * f.stride_o + n * kW);
  }
  if (f.dim_v - e >= N * kW) {
    few_add<Cells, Math, M, N, true>(f, e, weights, s);
  } else {
    few_add<Cells, Math, M, N, false>(f, e, weights, s);
  }
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) Simd::store(o + i * f.stride_o + n * kW, s[i][n]);
  }
}

template <class Cells, class Math, int M>
void few_columns(const AttentionFew& f, int r) {
  constexpr int N = kW == 16 ? 4 : 2;  // as many vectors as leave room for four rows
  for (int64_t e = 0; e < f.dim_v; e += N * kW) few_block<Cells, Math, M, N>(f, r, e);
}

template <class Cells, class Math>
void few_values(const AttentionFew& f) {
  if (f.ahead) prefetch<Cells>(f.ahead, f.stride_k, f.keys_ahead, f.dim);
  in_fours(
      f.rows->count, [&](int r) { few_columns<Cells, Math, 4>(f, r); },
      [&](int r) { few_columns<Cells, Math, 2>(f, r); }, [&](int r) { few_columns<Cells, Math, 1>(f, r); });
  f.rows->fresh = false;
}

// ---- the end ---------------------------------------------------------------------------------------------------------

inline void finish(void* y, DType dtype, const float* o, float factor, float divisor, int64_t n) {
  for (int64_t e = 0; e < n; e += kW) {
    const int count = static_cast<int>(lesser<int64_t>(n - e, kW));
    const F value = Simd::load(o + e, count) * Simd::set(factor) / Simd::set(divisor);
    store_as(dtype, y, e, value, count);
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
          .few_scores = few_scores<Cells, Math>,
          .few_values = few_values<Cells, Math>,
          .widen = widen<Cells>,
          .finish = finish};
}

}  // namespace
}  // namespace kw::cpu
