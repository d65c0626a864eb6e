// The loops of attention_gqa_backward on the CPU, over those of attention_gqa (attention_gqa_cpu_kernels.h), and like them in an unnamed
// namespace: each instruction set has its own copy.
//
// Weights and gradients of scores are kept transposed as scores are, [keys][rows]. dq takes them as the forward takes weights: a
// cell for each row, summed over keys. dk and dv are summed over rows instead, keys taking the place of rows: the same matrix read
// along its rows, and where a cell holds two elements, cells of two neighbouring rows.
#pragma once
#include "../attention_gqa/attention_gqa_cpu_kernels.h"
#include "attention_gqa_backward_cpu.h"

namespace kw::cpu {
namespace {

template <class Cells>
void pack_rows(float* to, const void* const* rows, int64_t dim, int64_t slab) {
  constexpr int per = Cells::kPerCell;
  for (int c = 0; c < kRows / per; ++c, to += kRows) {
    const auto* row = static_cast<const typename Cells::T*>(rows[c * per]);
    const auto* next = static_cast<const typename Cells::T*>(rows[c * per + per - 1]);
    float* cell = to;
    for (int64_t e = 0; e < dim; e += kRows, cell += slab * kRows) {
      for (int half = 0; half < kRows; half += kW) {
        const int n = static_cast<int>(lesser<int64_t>(dim - e - half, kW));
        const bool some = row && n > 0;
        Simd::store(cell + half,
                    some ? Cells::across(row + e + half, next ? next - row : 0, next != nullptr, n) : Simd::set(0));
      }
    }
  }
}

// Scores in p to weights, and the gradients of weights in ds to those of scores.
template <bool kAdjusted, bool kEdge>
void differentiate(const BackwardTile& t, const BackwardRows& panel, float* p, float* ds) {
  const F scale = Simd::set(t.scoring->scale), zero = Simd::set(0);
  for (int r = 0; r < kRows; r += kW) {
    const I begin = lanes(panel.rows.begin + r), end = lanes(panel.rows.end + r);
    const F lse = Simd::load(panel.lse + r), delta = Simd::load(panel.delta + r);
    for (int j = panel.begin; j < panel.end; ++j) {
      const int at = j * kRows + r;
      F s = Simd::load(p + at);
      if (!kAdjusted) s *= scale;
      const F away = s - lse;
      F w = exp_flushed(away > zero ? zero : away);
      F d = w * (Simd::load(ds + at) - delta);
      if (kEdge) {
        const I key = (I){} + (t.first + j);
        w = begin <= key ? w : zero, d = begin <= key ? d : zero;
        w = key < end ? w : zero, d = key < end ? d : zero;
      }
      Simd::store(p + at, w);
      Simd::store(ds + at, d);
    }
  }
}

// Gradients of the scores of a panel to where those of the bias are.
inline void store_bias(const BackwardTile& t, const BackwardRows& panel, const float* ds) {
  for (int r = 0; r < panel.rows.count; r += kW) {
    for (int j = panel.begin; j < panel.end; j += kW) {
      const int n = lesser(panel.end - j, kW), count = lesser(panel.rows.count - r, kW);
      F d[kW];
      for (int i = 0; i < kW; ++i) d[i] = i < n ? Simd::load(ds + (j + i) * kRows + r) : Simd::set(0);
      Simd::transpose(d);
      for (int i = 0; i < count; ++i) {
        void* to = panel.dbias[r + i];
        if (t.shared_bias) d[i] += load_as(DType::f32, to, t.first + j, n);
        store_as(t.shared_bias ? DType::f32 : t.bias_out, to, t.first + j, d[i], n);
      }
    }
  }
}

// Through the softcap: times 1 - tanh^2 of the products.
inline void uncap(const BackwardTile& t, const BackwardRows& panel, float* ds) {
  const F factor = Simd::set(t.scoring->scale), cap = Simd::set(t.scoring->softcap), one = Simd::set(1);
  for (int at = panel.begin * kRows; at < panel.end * kRows; at += kW) {
    const F share = tanh(Simd::load(t.products + at) * factor / cap);
    Simd::store(ds + at, Simd::load(ds + at) * (one - share * share));
  }
}

// A panel of f32 as cells of two neighbouring rows.
template <class Cells>
void along_rows(const BackwardRows& panel, const float* from, float* to) {
  for (int j = panel.begin; j < panel.end; ++j)
    Simd::store(to + j * kW, Cells::along(Simd::load(from + j * kRows), Simd::load(from + j * kRows + kW)));
}

// The same as cells of two neighbouring keys, in place.
template <class Cells>
void along_keys(const BackwardRows& panel, float* p) {
  for (int r = 0; r < kRows; r += kW) {
    for (int j = panel.begin; j < panel.end; j += 2) {
      const F high = j + 1 < panel.end ? Simd::load(p + (j + 1) * kRows + r) : Simd::set(0);
      Simd::store(p + j / 2 * kRows + r, Cells::zip(Simd::load(p + j * kRows + r), high));
    }
  }
}

// sums += weights * rows, for M keys from j on, in one column.
template <class Cells, class Math, int M>
void add_keys(const BackwardTile& t, int j, const float* weights, const float* rows, float* sums, int64_t stride,
              int column) {
  constexpr int cells = kRows / Cells::kPerCell;
  float* to = sums + j * stride + column * kRows;
  F s[M][2];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) s[i][0] = Simd::load(to + i * stride), s[i][1] = Simd::load(to + i * stride + kW);
  for (int n = 0; n < t.count; ++n) {
    if (j < t.panels[n].begin || j >= t.panels[n].end) continue;
    outer<Math, M>(weights + (n * t.keys + j) * cells, cells, 1, rows + (column * t.slab_rows + n * cells) * kRows,
                   cells, s);
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) Simd::store(to + i * stride, s[i][0]), Simd::store(to + i * stride + kW, s[i][1]);
}

// dk and dv for M keys from j on, or as many as there are up to `end`.
template <class Cells, class Math, int M>
void add_all(const BackwardTile& t, int j, int end, const float* p, const float* ds) {
  if constexpr (M > 0) {
    if (end - j < M) return add_all<Cells, Math, M - 1>(t, j, end, p, ds);
    for (int c = 0; c < t.columns_v; ++c) add_keys<Cells, Math, M>(t, j, p, t.dy_columns, t.dv, t.stride_v, c);
    for (int c = 0; c < t.columns; ++c) add_keys<Cells, Math, M>(t, j, ds, t.q_columns, t.dk, t.stride, c);
  }
}

template <class Cells, class Math, int KeysAtOnce, int RowsAtOnce>
void backward_tile(const BackwardTile& t) {
  static_assert(BackwardTile::kKeyStep % RowsAtOnce == 0);
  constexpr bool pairs = Cells::kPerCell == 2;
  alignas(64) float ones[kRows];
  for (int r = 0; r < kRows; r += kW) Simd::store(ones + r, Simd::set(1));
  for (int n = 0; n < t.count; ++n) {
    BackwardRows& panel = t.panels[n];
    if (panel.begin >= panel.end) continue;
    float *p = t.p + n * t.keys * kRows, *ds = t.ds + n * t.keys * kRows;
    AttentionTile scores{.scoring = t.scoring,
                         .rows = &panel.rows,
                         .q = t.q + n * t.cells * kRows,
                         .k = t.k,
                         .cells = t.cells,
                         .v = t.k_columns,
                         .slab = t.slab_keys,
                         .columns = t.columns,
                         .o = t.dq + n * kRows * t.stride,
                         .stride_o = t.stride,
                         .scores = p,
                         .first = t.first,
                         .begin = panel.begin,
                         .end = panel.end,
                         .edge = panel.edge};
    AttentionTile weights = scores;
    weights.q = t.dy + n * t.cells_v * kRows, weights.k = t.v, weights.cells = t.cells_v, weights.scores = ds;
    multiply<Math, KeysAtOnce>(scores);
    multiply<Math, KeysAtOnce>(weights);

    const bool adjusted = t.scoring->adjusts(), capped = t.scoring->softcap != 0;
    if (capped) {
      for (int at = panel.begin * kRows; at < panel.end * kRows; at += kW)
        Simd::store(t.products + at, Simd::load(p + at));
    }
    if (adjusted) adjust(scores);
    const auto step = adjusted     ? panel.edge ? differentiate<true, true> : differentiate<true, false>
                          : panel.edge ? differentiate<false, true>
                                   : differentiate<false, false>;
    step(t, panel, p, ds);
    if (t.scoring->bias) store_bias(t, panel, ds);
    if (capped) uncap(t, panel, ds);
    if constexpr (pairs) {
      along_rows<Cells>(panel, p, t.p_along + n * t.keys * kW);
      along_rows<Cells>(panel, ds, t.ds_along + n * t.keys * kW);
      along_keys<Cells>(panel, ds);
    }
  }
  for (int j = t.begin; j < t.end; j += RowsAtOnce)
    add_all<Cells, Math, RowsAtOnce>(t, j, t.end, pairs ? t.p_along : t.p, pairs ? t.ds_along : t.ds);
  for (int n = 0; n < t.count; ++n) {
    BackwardRows& panel = t.panels[n];
    if (panel.begin >= panel.end) continue;
    const AttentionTile keys{.scoring = t.scoring,
                             .rows = &panel.rows,
                             .q = nullptr,
                             .k = nullptr,
                             .cells = 0,
                             .v = t.k_columns,
                             .slab = t.slab_keys,
                             .columns = t.columns,
                             .o = t.dq + n * kRows * t.stride,
                             .stride_o = t.stride,
                             .scores = t.ds + n * t.keys * kRows,
                             .first = t.first,
                             .begin = panel.begin,
                             .end = panel.end,
                             .edge = panel.edge};
    for (int column = 0; column < t.columns; ++column) {
      for (int r = 0; r < panel.rows.count; r += RowsAtOnce) add_values<Cells, Math, RowsAtOnce>(keys, r, column, ones);
    }
  }
}

inline float dot(const void* a, DType a_dtype, const void* b, DType b_dtype, int64_t n) {
  F sum = Simd::set(0);
  for (int64_t e = 0; e < n; e += kW) {
    const int count = static_cast<int>(lesser<int64_t>(n - e, kW));
    sum = Simd::fma(load_as(a_dtype, a, e, count), load_as(b_dtype, b, e, count), sum);
  }
  return Simd::sum(sum);
}

inline void store_sum(void* to, DType dtype, const float* parts, int64_t step, int64_t count, float factor, int64_t n) {
  for (int64_t e = 0; e < n; e += kW) {
    const int width = static_cast<int>(lesser<int64_t>(n - e, kW));
    F sum = Simd::set(0);
    for (int64_t i = 0; i < count; ++i) sum += Simd::load(parts + i * step + e, width);
    store_as(dtype, to, e, sum * Simd::set(factor), width);
  }
}

// One table entry.
template <class Cells, class Math, int KeysAtOnce, int RowsAtOnce>
constexpr BackwardKernels backward_kernels(const char* isa) {
  static_assert(kRows <= AttentionRows::kMost && kRows % RowsAtOnce == 0);
  return {.isa = isa,
          .rows = kRows,
          .per_cell = Cells::kPerCell,
          .pack_q = pack_q<Cells>,
          .pack_k = pack_k<Cells>,
          .pack_v = pack_v<Cells>,
          .pack_rows = pack_rows<Cells>,
          .tile = backward_tile<Cells, Math, KeysAtOnce, RowsAtOnce>,
          .dot = dot,
          .store = store_sum};
}

}  // namespace
}  // namespace kw::cpu
