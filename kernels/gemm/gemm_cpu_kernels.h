// The loops of gemm on the CPU, written once over core/cpu/simd_<isa>.h, which must be included before. Everything is
// in an unnamed namespace: each instruction set has its own copy.
//
// block:  outer products. A micro-tile of mr rows by two vectors of columns stays in registers over the cells of a block.
// stream: inner products along k. A tile of a few rows of x by a few of w, each accumulator a vector of partial sums.
#pragma once
#include "../core/cpu/simd_cells.h"
#include "../core/cpu/simd_math.h"
#include "gemm_cpu.h"
#include "gemm_cpu_ahead.h"

namespace kw::cpu {
namespace {

using I = Simd::I;
constexpr int kW = Simd::kWidth;
constexpr int kMaxStreamM = 48;
constexpr int kDepth = 256;  // cells of k in a block, the longest chain of f32 additions
constexpr int kLine = 16, kSoon = 512, kSoonBytes = 1024;

template <class Cells>
void pack(float* to, const void* from, int64_t row_stride, int64_t k_stride, int rows, int64_t k, int64_t cells,
          int panel) {
  constexpr int per = Cells::kPerCell;
  const auto* source = static_cast<const typename Cells::T*>(from);
  for (int r = 0; r < panel; r += kW) {
    const int lanes = lesser(panel - r, kW), present = lesser(rows - r, kW);
    if (k_stride != 1) {
      for (int64_t c = 0; c < cells; ++c) {
        F v = Simd::set(0);
        if (present > 0 && c * per < k) {
          v = Cells::across(source + c * per * k_stride + r, k_stride, c * per + 1 < k, present);
        }
        Simd::store(to + c * panel + r, v, lanes);
      }
      continue;
    }
    for (int64_t c = 0; c < cells; c += kW) {
      const int count = static_cast<int>(lesser<int64_t>(cells - c, kW));
      const int elements = static_cast<int>(lesser<int64_t>(k - c * per, kW * per));
      F v[kW];
      for (int i = 0; i < kW; ++i) {
        const auto* p = source + (r + i) * row_stride + c * per;
        const bool none = i >= present || elements <= 0;
        v[i] = none ? Simd::set(0) : elements == kW * per ? Cells::load(p) : Cells::load(p, elements);
      }
      Simd::transpose(v);
      for (int i = 0; i < count; ++i) Simd::store(to + (c + i) * panel + r, v[i], lanes);
    }
  }
}

template <class Cells>
void flatten(float* to, const void* from, int64_t k_stride, int64_t k) {
  constexpr int per = Cells::kPerCell;
  const auto* source = static_cast<const typename Cells::T*>(from);
  const int64_t cells = (k + per - 1) / per, padded = (cells + 15) / 16 * 16;
  int64_t c = 0;
  if (k_stride == 1) {
    for (; (c + kW) * per <= k; c += kW) Simd::store(to + c, Cells::load(source + c * per));
    if (c * per < k) Simd::store(to + c, Cells::load(source + c * per, static_cast<int>(k - c * per))), c += kW;
  } else {
    for (; c < cells; ++c)
      Simd::store(to + c, Cells::across(source + c * per * k_stride, k_stride, c * per + 1 < k, 1), 1);
  }
  for (; c < padded; ++c) to[c] = 0;
}

// Panels of w as a micro-tile reads them: kPerCell elements for each cell of x, of which kSteps are taken at a time. kStoredM:
// rows of x with which prepacked ones are streamed; f16 is 3 % faster in blocks, one panel after the other.
struct CellPanel {  // [cells][nr], as pack leaves them
  using T = float;
  static constexpr int kStoredM = 4;
  static constexpr int kSteps = 1, kPerCell = 2 * kW;
  static void load(const T* w, F (&v)[1][2]) { v[0][0] = Simd::load(w), v[0][1] = Simd::load(w + kW); }
};
struct F16Panel {  // [k][nr], prepacked
  using T = uint16_t;
  static constexpr int kStoredM = 0;
  static constexpr int kSteps = 1, kPerCell = 2 * kW;
  static void load(const T* w, F (&v)[1][2]) { v[0][0] = Simd::load_f16(w), v[0][1] = Simd::load_f16(w + kW); }
};
struct Bf16Panel {  // [k / 2][nr][2], prepacked
  using T = uint16_t;
  static constexpr int kStoredM = 0;
  static constexpr int kSteps = 2, kPerCell = 2 * kW;
  static void load(const T* w, F (&v)[2][2]) {
    for (int j = 0; j < 2; ++j) {
      const I pair = (I)Simd::load(reinterpret_cast<const float*>(w + 2 * j * kW));
      v[0][j] = (F)(pair << 16), v[1][j] = (F)(pair & static_cast<int32_t>(0xffff0000));
    }
  }
};

template <class Math, class Panel, int MR>
inline void step(const float* x, const typename Panel::T* w, F (&s)[MR][2]) {
  F v[Panel::kSteps][2];
  Panel::load(w, v);
#pragma GCC unroll 2
  for (int c = 0; c < Panel::kSteps; ++c) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const F xi = Simd::set(x[c * MR + i]);
      s[i][0] = Math::mul_add(xi, v[c][0], s[i][0]);
      s[i][1] = Math::mul_add(xi, v[c][1], s[i][1]);
    }
  }
}

// One micro-tile: a panel of x [cells][MR] against a panel of w. x is asked for kSoon floats before it is used, from the
// panel behind this one in the end; further ahead it would push w out of L1.
template <class Math, class Panel, int MR>
void tile(const float* x, const void* panel, int64_t cells, float* sums, int64_t stride, bool add,
          const GemmAhead& ahead) {
  F s[MR][2] = {};
  for (int i = 0; i < MR; ++i) {
    for (int j = 0; j < 2 * kW; j += 16) __builtin_prefetch(sums + i * stride + j, 1);
  }
  const auto* w = static_cast<const typename Panel::T*>(panel);
  for (int64_t from = 0; from < cells; from += kLine, x += kLine * MR, w += kLine * Panel::kPerCell) {
    fetch(ahead, from / kLine);
    for (int i = 0; i < MR; ++i) __builtin_prefetch(x + kSoon + i * kLine);
    if (from + kLine <= cells) {
#pragma GCC unroll 4
      for (int c = 0; c < kLine; c += Panel::kSteps) step<Math, Panel, MR>(x + c * MR, w + c * Panel::kPerCell, s);
    } else {
      for (int c = 0; from + c < cells; c += Panel::kSteps) {
        step<Math, Panel, MR>(x + c * MR, w + c * Panel::kPerCell, s);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i, sums += stride) {
    if (add) {
      s[i][0] += Simd::load(sums);
      s[i][1] += Simd::load(sums + kW);
    }
    Simd::store(sums, s[i][0]);
    Simd::store(sums + kW, s[i][1]);
  }
}

template <class Math, class Panel, int MR>
void block_of(const GemmBlock& b) {
  each_tile(b, 2 * kW, [&](const float* x, const void* w, float* sums, const GemmAhead& ahead) {
    tile<Math, Panel, MR>(x, w, b.cells, sums, b.stride, b.add, ahead);
  });
}

// Picks the instance for b.mr rows, 1 to MR.
template <class Math, class Panel, int MR>
void block(const GemmBlock& b) {
  if constexpr (MR > 1) {
    if (b.mr < MR) return block<Math, Panel, MR - 1>(b);
  }
  block_of<Math, Panel, MR>(b);
}

// NW rows of w from some k on: `vectors` whole vectors and then `rest` elements. ahead: rows of the chunk that will be
// needed next, brought into L2 along the way; null with a single pass over w, whose rows are asked for kSoonBytes before
// they are used (4 to 15 % faster than the processor's own prefetching alone).
template <class Cells>
struct Chunk {
  const typename Cells::T* w;
  int64_t stride, vectors;
  int rest;
  const typename Cells::T* ahead[3];
};

// x rows [MX][cells] against a chunk; adds each product's vector of partial sums to partial [MX][NW].
template <class Cells, class Math, int MX, int NW, bool Prefetch>
void inner(const float* x, int64_t cells_x, const Chunk<Cells>& chunk, F* partial) {
  F s[MX][NW] = {};
  constexpr int kStep = kW * Cells::kPerCell;
  for (int64_t v = 0; v < chunk.vectors; ++v) {
    if constexpr (Prefetch) {
      for (int i = 0; i < 3; ++i) __builtin_prefetch(chunk.ahead[i] + v * kStep, 0, 2);
    }
    F xv[MX];
#pragma GCC unroll 8
    for (int i = 0; i < MX; ++i) xv[i] = Simd::load(x + i * cells_x + v * kW);
#pragma GCC unroll 8
    for (int r = 0; r < NW; ++r) {
      const auto* w = chunk.w + r * chunk.stride + v * kStep;
      if constexpr (!Prefetch) __builtin_prefetch(w + kSoonBytes / sizeof(*w));
      const F wv = Cells::load(w);
#pragma GCC unroll 8
      for (int i = 0; i < MX; ++i) s[i][r] = Math::mul_add(xv[i], wv, s[i][r]);
    }
  }
  for (int r = 0; r < NW; ++r) {
    const auto* w = chunk.w + r * chunk.stride + chunk.vectors * kStep;
    const F wv = chunk.rest ? Cells::load(w, chunk.rest) : Simd::set(0);
    for (int i = 0; i < MX; ++i) {
      if (chunk.rest) s[i][r] = Math::mul_add(Simd::load(x + i * cells_x + chunk.vectors * kW), wv, s[i][r]);
      partial[i * NW + r] += s[i][r];
    }
  }
}

// The instance for mx rows of x, 1 to MX.
template <class Cells, class Math, int MX, int NW, bool Prefetch>
void inner_rows(int mx, const float* x, int64_t cells_x, const Chunk<Cells>& chunk, F* partial) {
  if constexpr (MX > 1) {
    if (mx < MX) return inner_rows<Cells, Math, MX - 1, NW, Prefetch>(mx, x, cells_x, chunk, partial);
  }
  inner<Cells, Math, MX, NW, Prefetch>(x, cells_x, chunk, partial);
}

// NW rows of w, `apart` rows between them, all of k, against all of x. A chunk of k is at most 256 additions in a row; where x takes several
// passes it is also short enough for the rows of w to stay in L1 between them, of which they fill half.
template <class Cells, class Math, int MX, int NW>
void stream_rows(const GemmStream& g, int64_t row, int64_t apart) {
  constexpr int kStep = kW * Cells::kPerCell;
  const auto* w = static_cast<const typename Cells::T*>(g.w) + row * g.stride_w;
  const int64_t stride = apart * g.stride_w;
  const bool once = g.m <= MX;
  const int64_t vectors = g.k / kStep, length = once ? 256 : lesser<int64_t>(g.l1_bytes / 2 / (NW * kW * 4), 256);
  const int passes = (g.m + MX - 1) / MX;
  F partial[kMaxStreamM * NW];
  for (int i = 0; i < g.m * NW; ++i) partial[i] = Simd::set(0);
  for (int64_t v = 0; v == 0 || v < vectors; v += length) {
    const bool last = v + length >= vectors;
    Chunk<Cells> chunk{
        w + v * kStep, stride, lesser(length, vectors - v), last ? static_cast<int>(g.k % kStep) : 0, {}};
    const auto* next = last ? w + g.stride_w : chunk.w + length * kStep;  // may be past the end: only prefetched
    for (int pass = 0; pass < passes; ++pass) {
      const int mx = lesser(MX, g.m - pass * MX);
      const float* x = g.x + pass * MX * g.cells_x + v * kW;
      F* sums = partial + pass * MX * NW;
      if (once) {
        inner_rows<Cells, Math, MX, NW, false>(mx, x, g.cells_x, chunk, sums);
      } else {
        for (int i = 0; i < 3; ++i) chunk.ahead[i] = next + (pass + i * passes) % NW * stride;
        inner_rows<Cells, Math, MX, NW, true>(mx, x, g.cells_x, chunk, sums);
      }
    }
  }
  for (int i = 0; i < g.m; ++i) {
    for (int r = 0; r < NW; ++r) g.sums[i * g.stride + row + r * apart] = Simd::sum(partial[i * NW + r]);
  }
}

// Of the rows that are read at the same time each is followed by its neighbour in memory, so that the processor's own
// prefetching goes on from row to row (m 1: 5 % faster in f32, 11 % in f16 and bf16; bf16 with m 4: 30 %).
template <class Cells, class Math, int MX, int NW>
void stream(const GemmStream& g) {
  const int64_t apart = g.rows / NW;
  for (int64_t row = 0; row < apart; ++row) stream_rows<Cells, Math, MX, NW>(g, row, apart);
  for (int64_t row = NW * apart; row < g.rows; ++row) stream_rows<Cells, Math, MX, 1>(g, row, 1);
}

// Cells of k, all of them, of NP panels against MX rows of x; a chain of additions is at most kDepth long. Panels that are
// read at the same time: one alone comes from memory at 29 GB/s where four come at 32.
template <class Cells, class Math, class Panel, int MX, int NP>
void stream_panels(const GemmStream& g, int64_t panel) {
  using T = typename Panel::T;
  const char* w = static_cast<const char*>(g.w) + panel * g.panel_w;
  const int64_t cells = (g.k + Cells::kPerCell - 1) / Cells::kPerCell;
  F sums[NP][MX][2] = {};
  for (int64_t from = 0; from < cells; from += kDepth) {
    const int64_t end = lesser<int64_t>(from + kDepth, cells);
    F s[NP][MX][2] = {};
    for (int64_t c = from; c < end; c += Panel::kSteps) {
#pragma GCC unroll 4
      for (int j = 0; j < NP; ++j) {
        const T* at = reinterpret_cast<const T*>(w + j * g.panel_w) + c * Panel::kPerCell;
        constexpr int kBytes = Panel::kSteps * Panel::kPerCell * sizeof(T);
        for (int b = 0; b < kBytes; b += kFetched) {
          __builtin_prefetch(reinterpret_cast<const char*>(at) + kSoonBytes + b);
        }
        F v[Panel::kSteps][2];
        Panel::load(at, v);
#pragma GCC unroll 2
        for (int t = 0; t < Panel::kSteps; ++t) {
#pragma GCC unroll 4
          for (int i = 0; i < MX; ++i) {
            const F xi = Simd::set(g.x[i * g.cells_x + c + t]);
            s[j][i][0] = Math::mul_add(xi, v[t][0], s[j][i][0]);
            s[j][i][1] = Math::mul_add(xi, v[t][1], s[j][i][1]);
          }
        }
      }
    }
    for (int j = 0; j < NP; ++j)
      for (int i = 0; i < MX; ++i) sums[j][i][0] += s[j][i][0], sums[j][i][1] += s[j][i][1];
  }
  for (int j = 0; j < NP; ++j) {
    for (int i = 0; i < MX; ++i) {
      float* to = g.sums + i * g.stride + (panel + j) * 2 * kW;
      Simd::store(to, sums[j][i][0]);
      Simd::store(to + kW, sums[j][i][1]);
    }
  }
}

// As many panels at a time as leave registers for their sums, at most 4; the instance for g.m rows of x, 1 to MX.
template <class Cells, class Math, class Panel, int MX>
void stream_stored(const GemmStream& g) {
  if constexpr (MX > 1) {
    if (g.m < MX) return stream_stored<Cells, Math, Panel, MX - 1>(g);
  }
  constexpr int kFit = (kW == 16 ? 24 : 10) / (2 * MX), kPanels = kFit < 1 ? 1 : kFit < 4 ? kFit : 4;
  const int64_t panels = (g.rows + 2 * kW - 1) / (2 * kW);
  int64_t panel = 0;
  for (; panel + kPanels <= panels; panel += kPanels) stream_panels<Cells, Math, Panel, MX, kPanels>(g, panel);
  for (; panel < panels; ++panel) stream_panels<Cells, Math, Panel, MX, 1>(g, panel);
}

template <class Cells, class Math, class Panel>
constexpr auto streams_stored() -> void (*)(const GemmStream&) {
  if constexpr (Panel::kStoredM == 0) {
    return nullptr;
  } else {
    return stream_stored<Cells, Math, Panel, Panel::kStoredM>;
  }
}

inline F load_side(const GemmFinish::Side& side, int64_t at, int n) { return load_as(side.dtype, side.data, at, n); }

inline F activate(Activation a, F s) {
  switch (a) {
    case Activation::none:
      return s;
    case Activation::relu:
      return relu(s);
    case Activation::gelu_erf:
    case Activation::geglu_erf:
      return gelu_erf(s);
    case Activation::gelu_tanh:
    case Activation::geglu_tanh:
      return gelu_tanh(s);
    case Activation::silu:
    case Activation::swiglu:
      return silu(s);
  }
  return s;
}

// alpha * sum + beta * c + bias for n columns from j.
inline F shifted(const GemmFinish& f, const GemmFinish::Side& c, const GemmFinish::Side& bias, const float* sums,
                 int64_t row, int64_t j, int n) {
  F s = Simd::set(f.alpha) * Simd::load(sums + j, n);
  if (c.data) s = Simd::fma(Simd::set(f.beta), load_side(c, row * c.stride + j, n), s);
  if (bias.data) s += load_side(bias, j, n);
  return s;
}

// y = alpha * sums.
template <DType Y>
void finish_plain(const GemmFinish& f) {
  for (int64_t i = 0; i < f.rows; ++i) {
    for (int64_t j = 0; j < f.columns; j += kW) {
      const int n = static_cast<int>(lesser<int64_t>(f.columns - j, kW));
      store_as(Y, f.y.data, i * f.y.stride + j, Simd::set(f.alpha) * Simd::load(f.sums + i * f.stride + j, n), n);
    }
  }
}

inline void finish(const GemmFinish& f) {
  // Most often the sums alone, rounded: without asking for each vector what is there (m 512 on tiles: 5 % of the whole).
  if (f.activation == Activation::none && !f.c.data && !f.bias.data && !f.residual.data) {
    switch (f.y.dtype) {
      case DType::f16:
        return finish_plain<DType::f16>(f);
      case DType::bf16:
        return finish_plain<DType::bf16>(f);
      default:
        return finish_plain<DType::f32>(f);
    }
  }
  for (int64_t i = 0; i < f.rows; ++i) {
    const float* sums = f.sums + i * f.stride;
    for (int64_t j = 0; j < f.columns; j += kW) {
      const int n = static_cast<int>(lesser<int64_t>(f.columns - j, kW));
      F y = activate(f.activation, shifted(f, f.c, f.bias, sums, i, j, n));
      if (f.up) y *= shifted(f, f.c_up, f.bias_up, sums + f.up, i, j, n);
      if (f.residual.data) y += load_side(f.residual, i * f.residual.stride + j, n);
      store_as(f.y.dtype, f.y.data, i * f.y.stride + j, y, n);
    }
  }
}

// One table entry. MR: rows of the largest micro-tile; MX x NW: the tile of stream; M: rows of x worth streaming; Stored:
// prepacked panels of w.
template <class Cells, class Math, class Stored, int MR, int MX, int NW, int M>
constexpr GemmKernels kernels(const char* isa) {
  static_assert(M <= kMaxStreamM);
  return {.isa = isa,
          .mr = MR,
          .mr_step = 1,
          .nr = 2 * kW,
          .per_cell = Cells::kPerCell,
          .cell_step = 2,
          .depth = kDepth,
          .stream_m = M,
          .stored_m = Stored::kStoredM,
          .pack = pack<Cells>,
          .pack_x = pack<Cells>,
          .pack_piece = nullptr,
          .flatten = flatten<Cells>,
          .block = block<Math, CellPanel, MR>,
          .block_stored = block<Math, Stored, MR>,
          .stream = stream<Cells, Math, MX, NW>,
          .stream_stored = streams_stored<Cells, Math, Stored>(),
          .finish = finish};
}

}  // namespace
}  // namespace kw::cpu
