// The loops of gemm_int4 on the CPU, written once over core/cpu/nibbles_<isa>.h, which must be included before.
// Everything is in an unnamed namespace: each instruction set has its own copy.
//
// stream:      inner products along k. 16 bytes of a row of w go to every four lanes, a shift by a count of each lane and a
//              lookup give 16 products' ŵ in f32: the table holds the sixteen (q - zero) * scale of the row's group. With
//              AVX-512 that is a shift, a permutation and a multiply-add for 16 weights, 1.5 cycles on two ports.
// stream_int8: the same with x̂: even and odd elements apart, vpdpbusd where there is, exact sums of eight products in a lane,
//              that begin with -8 times the sum of x̂; then zero points other than 8, still exact in f32, and both scales.
//              8 instructions for 128 weights with groups of whole chunks and no zero points, 4 cycles; 64 bytes take 6 to come.
// panel:       ŵ as gemm's micro-kernels want it, lanes being rows of w, which a transposition of whole 32-bit words brings.
#pragma once
#ifdef __AVX512BF16__
#include "../core/cpu/simd_pairs.h"
#endif
#include "gemm_int4_cpu_panels.h"

namespace kw::cpu {
namespace {

// NW rows of w from `row` on, `first` being their place among those of scales and zeros [groups][kInt4Rows], against MX
// rows of x.
template <int MX, int NW>
void exact_tile(const Int4Stream& s, int64_t row, int first, int64_t x_row, const float* scales,
                const int32_t* offsets) {
  const Int4Weight& w = s.w;
  const float* x = s.x + x_row * s.stride_x;
  F sums[MX][NW] = {}, total[MX][NW] = {};
  const uint8_t* from[NW];
  for (int r = 0; r < NW; ++r) from[r] = bytes_of(w, row + r, 0);
  const int64_t ahead = ahead_of(NW * w.k / 2);
  I shifts[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    for (int l = 0; l < kW; ++l) shifts[v][l] = (v * kW + l) / 4 * 4;
  }
  const float* const codes = codes_of(w);
  int64_t group_end = w.group, chain_end = kChain;
  for (int64_t start = 0, end; start < w.k; start = end) {
    end = lesser(lesser(group_end, chain_end), w.k);
    F table[NW][kTables];
#pragma GCC unroll 8
    for (int r = 0; r < NW; ++r) {
      const F scale = Simd::set(scales[first + r]);
      for (int t = 0; t < kTables; ++t) table[r][t] = Simd::load(codes + offsets[first + r] + t * kW) * scale;
    }
    if (w.round != DType::f32) {
      for (int r = 0; r < NW; ++r) {
        for (int t = 0; t < kTables; ++t) table[r][t] = rounded_to(w.round, table[r][t]);
      }
    }
    if (end == group_end) group_end += w.group, scales += kInt4Rows, offsets += kInt4Rows;
    for (int64_t p = start; p < end; p += kInt4Unit) {
      // A line of one of the rows that come later: four units fill a line.
      __builtin_prefetch(from[p / kInt4Unit % NW] + ahead + p / 2, 0, 2);
      I unit[NW];
#pragma GCC unroll 8
      for (int r = 0; r < NW; ++r) unit[r] = Nibbles::unit(from[r] + p / 2);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        F xv[MX];
#pragma GCC unroll 8
        for (int i = 0; i < MX; ++i) xv[i] = Simd::load(x + i * s.stride_x + p + v * kW);
#pragma GCC unroll 8
        for (int r = 0; r < NW; ++r) {
          const F wv = Nibbles::at(table[r], unit[r] >> shifts[v]);
#pragma GCC unroll 8
          for (int i = 0; i < MX; ++i) sums[i][r] = Simd::fma(xv[i], wv, sums[i][r]);
        }
      }
    }
    if (end < w.k && end != chain_end) continue;
    chain_end += kChain;
    for (int i = 0; i < MX; ++i) {
      for (int r = 0; r < NW; ++r) total[i][r] += sums[i][r], sums[i][r] = Simd::set(0);
    }
  }
  for (int i = 0; i < MX; ++i) {
    for (int r = 0; r < NW; ++r) s.sums[(x_row + i) * s.stride + row - s.row + r] = Simd::sum(total[i][r]);
  }
}

// scales and zeros [kInt4Rows][pieces of k]: one for each chunk where groups are Whole chunks, for each unit otherwise. A zero
// is (zero point - 8) / 8, to be multiplied by where sums begin; Zeros: some may not be 0.
template <int MX, int NW, bool Whole, bool Zeros>
void int8_tile(const Int4Stream& s, int64_t row, int first, int64_t x_row, const float* scales, const float* zeros) {
  const Int4Weight& w = s.w;
  const float* x = s.x + x_row * s.stride_x;
  const int64_t pieces = pieces_of<Whole>(w.k), each = Whole ? 1 : kChunk / kInt4Unit;
  F total[MX][NW] = {};
  const uint8_t* from[NW];
  for (int r = 0; r < NW; ++r) from[r] = bytes_of(w, row + r, 0);
  scales += first * pieces, zeros += first * pieces;
  const int64_t ahead = ahead_of(NW * w.k / 2);
  for (int64_t p = 0; p < w.k; p += kChunk, x += kChunkFloats, scales += each, zeros += each) {
    const int present = static_cast<int>(lesser(w.k - p, kChunk) / 2);
#pragma GCC unroll 8
    for (int r = 0; r < NW; ++r) {
      __builtin_prefetch(from[r] + ahead + p / 2, 0, 2);
      const auto bytes = Nibbles::bytes(from[r] + p / 2, present);
      const F scale = spread<Whole>(scales + r * pieces);
#pragma GCC unroll 8
      for (int i = 0; i < MX; ++i) {
        const float* chunk = x + i * s.stride_x;
        const I start = (I)Simd::load(chunk + kChunk / 4 + kW);
        F dot = Nibbles::whole(Nibbles::dot(bytes, reinterpret_cast<const int8_t*>(chunk), start));
        if constexpr (Zeros) dot = Simd::fma(spread<Whole>(zeros + r * pieces), Nibbles::whole(start), dot);
        total[i][r] = Simd::fma(dot, scale * Simd::load(chunk + kChunk / 4), total[i][r]);
      }
    }
  }
  for (int i = 0; i < MX; ++i) {
    for (int r = 0; r < NW; ++r) s.sums[(x_row + i) * s.stride + row - s.row + r] = Simd::sum(total[i][r]);
  }
}

template <int MX, int NW>
struct ExactTile {
  using Zero = int32_t;
  static void run(const Int4Stream& s, int64_t row, int first, int64_t x_row, const float* scales,
                  const int32_t* zeros) {
    exact_tile<MX, NW>(s, row, first, x_row, scales, zeros);
  }
};
template <bool Whole, bool Zeros>
struct Int8 {
  template <int MX, int NW>
  struct Tile {
    using Zero = float;
    static void run(const Int4Stream& s, int64_t row, int first, int64_t x_row, const float* scales,
                    const float* zeros) {
      int8_tile<MX, NW, Whole, Zeros>(s, row, first, x_row, scales, zeros);
    }
  };
};

// All rows of x against `rows` rows of w (1 to NW), MX at a time and then the rest.
template <template <int, int> class Tile, int MX, int NW>
void tiles(const Int4Stream& s, int64_t row, int first, int rows, int64_t x_row, const float* scales,
           const typename Tile<1, 1>::Zero* zeros) {
  if constexpr (NW > 1) {
    if (rows < NW) {
      for (int r = 0; r < rows; ++r) tiles<Tile, MX, 1>(s, row + r, first + r, 1, x_row, scales, zeros);
      return;
    }
  }
  for (; x_row + MX <= s.m; x_row += MX) Tile<MX, NW>::run(s, row, first, x_row, scales, zeros);
  if constexpr (MX > 1) {
    if (x_row < s.m) tiles<Tile, MX - 1, NW>(s, row, first, rows, x_row, scales, zeros);
  }
}

template <int MX, int NW>
void stream(const Int4Stream& s) {
  if (s.w.packed) return stream_panels(s);
  const Int4Weight& w = s.w;
  const int64_t groups = w.k / w.group;
  auto* offsets = reinterpret_cast<int32_t*>(s.scratch + groups * kInt4Rows);
  if (!w.zeros) {
    for (int64_t i = 0; i < groups * kInt4Rows; ++i) offsets[i] = offset_of(w, kSymmetric);
  }
  for (int64_t row = s.row; row < s.row + s.rows; row += kInt4Rows) {
    const int rows = static_cast<int>(lesser<int64_t>(s.row + s.rows - row, kInt4Rows));
    for (int64_t g = 0; g < groups; ++g) {
      for (int r = 0; r < kInt4Rows; r += kW) {
        Simd::store(s.scratch + g * kInt4Rows + r, scales_of(w, g, row + r, rows - r));
      }
      for (int r = 0; w.zeros && r < rows; ++r) offsets[g * kInt4Rows + r] = offset_of(w, zero_of(w, g, row + r));
    }
    for (int r = 0; r < rows; r += NW)
      tiles<ExactTile, MX, NW>(s, row + r, r, lesser(rows - r, NW), 0, s.scratch, offsets);
  }
}

// Of kW rows from one on, those of pieces [0, pieces) of k, `each` to a group: to[lane][pieces] is from(group)'s lane.
template <class From>
void by_rows(float* to, int64_t pieces, int64_t each, From&& from) {
  F now = Simd::set(0);
  for (int64_t u = 0, group = 0, left = 0; u < pieces; u += kW) {
    F v[kW];
    for (int j = 0; j < kW; ++j, --left) {
      if (left == 0) now = from(group++), left = each;
      v[j] = now;
    }
    Simd::transpose(v);
    const int n = static_cast<int>(lesser<int64_t>(pieces - u, kW));
    for (int i = 0; i < kW; ++i) Simd::store(to + i * pieces + u, v[i], n);
  }
}

template <int MX, int NW, bool Whole, bool Zeros>
void stream_int8_of(const Int4Stream& s) {
  const Int4Weight& w = s.w;
  const int64_t pieces = pieces_of<Whole>(w.k), each = w.group / (Whole ? kChunk : kInt4Unit);
  float* zeros = s.scratch + kInt4Rows * pieces;
  for (int64_t row = s.row; row < s.row + s.rows; row += kInt4Rows) {
    const int rows = static_cast<int>(lesser<int64_t>(s.row + s.rows - row, kInt4Rows));
    for (int r = 0; r < kInt4Rows; r += kW) {
      by_rows(s.scratch + r * pieces, pieces, each, [&](int64_t g) { return scales_of(w, g, row + r, rows - r); });
      if constexpr (!Zeros) continue;
      by_rows(zeros + r * pieces, pieces, each, [&](int64_t g) {
        return (zeros_of(w, g, row + r, rows - r) - Simd::set(kSymmetric)) * Simd::set(1.0f / kSymmetric);
      });
    }
    for (int r = 0; r < rows; r += NW)
      tiles<Int8<Whole, Zeros>::template Tile, MX, NW>(s, row + r, r, lesser(rows - r, NW), 0, s.scratch, zeros);
  }
}

template <int MX, int NW>
void stream_int8(const Int4Stream& s) {
  if (s.w.packed) return stream_panels_int8(s);
  const bool whole = s.w.group % kChunk == 0;
  if (s.w.zeros) return whole ? stream_int8_of<MX, NW, true, true>(s) : stream_int8_of<MX, NW, false, true>(s);
  whole ? stream_int8_of<MX, NW, true, false>(s) : stream_int8_of<MX, NW, false, false>(s);
}

// Where two neighbours along k of kW rows go.
struct F32Cell {
  static void put(float* to, int panel, F even, F odd, int lanes) {
    Simd::store(to, even, lanes), Simd::store(to + panel, odd, lanes);
  }
  static constexpr int kFloats = 2;  // for two neighbours
};

template <class Cell>
void panel(const Int4Panel& d) {
  const Int4Weight& w = d.w;
  const float* codes = codes_of(w) + offset_of(w, w.zeros ? 0 : kSymmetric);
  F table[kTables];
  for (int t = 0; t < kTables; ++t) table[t] = Simd::load(codes + t * kW);
  for (int r = 0; r < d.panel; r += kW) {
    const int lanes = lesser(d.panel - r, kW), present = lesser(d.rows - r, kW);
    int64_t group = -1;
    F scale = Simd::set(0), zero = Simd::set(0);
    for (int64_t p = 0; p < d.count; p += kChunk) {
      const int words = static_cast<int>(lesser(d.count - p, kChunk) / 8);
      F v[kW];
      words_of(v, w, d.row + r, present, d.from + p, words, 0);
      for (int word = 0; word < words; ++word) {
        const int64_t at = p + 8 * word;
        if ((d.from + at) / w.group != group) {
          group = (d.from + at) / w.group;
          scale = scales_of(w, group, d.row + r, present);
          if (w.zeros) zero = zeros_of(w, group, d.row + r, present);
        }
        const I index = (I)v[word];
        float* to = d.to + at / 2 * Cell::kFloats * d.panel + r;
#pragma GCC unroll 4
        for (int j = 0; j < 8; j += 2, to += Cell::kFloats * d.panel) {
          const F even = (Nibbles::at(table, index >> 4 * j) - zero) * scale;
          const F odd = (Nibbles::at(table, index >> (4 * j + 4)) - zero) * scale;
          Cell::put(to, d.panel, rounded_to(w.round, even), rounded_to(w.round, odd), lanes);
        }
      }
    }
  }
}

#ifdef __AVX512BF16__
// Rounds to bf16 itself, denormals to 0.
struct PairCell {
  static void put(float* to, int, F even, F odd, int lanes) { Simd::store(to, Bf16Pairs::zip(even, odd), lanes); }
  static constexpr int kFloats = 1;
};
#endif

// MX x NW: the tile of stream; M and M8: rows of x worth streaming, as they are and as int8; P and P8: where w is packed.
template <int MX, int NW, int M, int M8, int P, int P8>
constexpr Int4Kernels int4_kernels(const char* isa, const Int4TileKernels* tiles = nullptr) {
  static_assert(kInt4Rows % NW == 0);
  return {.isa = isa,
          .stream_m = M,
          .stream_int8_m = M8,
          .packed_m = P,
          .packed_int8_m = P8,
          .stream_mx = MX,
          .row_floats = row_floats,
          .row_floats_int8 = row_floats_int8,
          .scratch_floats = scratch_floats,
          .widen = widen,
          .arrange = arrange,
          .arrange_int8 = arrange_int8,
          .stream = stream<MX, NW>,
          .stream_int8 = stream_int8<MX, NW>,
          .panel = panel<F32Cell>,
#ifdef __AVX512BF16__
          .panel_pairs = panel<PairCell>,
#else
          .panel_pairs = nullptr,
#endif
          .tiles = tiles};
}

}  // namespace
}  // namespace kw::cpu
