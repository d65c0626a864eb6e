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
#include <string.h>

#include "../core/cpu/simd_cells.h"
#ifdef __AVX512BF16__
#include "../core/cpu/simd_pairs.h"
#endif
#include "gemm_int4_cpu.h"

namespace kw::cpu {
namespace {

using I = Simd::I;
constexpr int kW = Simd::kWidth;
constexpr int kTables = 16 / kW;
constexpr int kVectors = kInt4Unit / kW;  // in a unit
constexpr int64_t kChunk = 8 * kW;        // elements of a row that one vector of w holds
constexpr int64_t kChain = 256 * kW;      // elements along k that a chain of 256 additions covers
constexpr int64_t kAhead =
    16 << 10;  // bytes of w asked for before they are needed, into L2, where more can be under way

// q - zero for every q is kWhole + kZero - zero.
constexpr int kZero = 15, kSymmetric = 8;
constexpr float kWhole[31] = {-15, -14, -13, -12, -11, -10, -9, -8, -7, -6, -5, -4, -3, -2, -1, 0,
                              1,   2,   3,   4,   5,   6,   7,  8,  9,  10, 11, 12, 13, 14, 15};

inline int64_t row_floats(int64_t k) { return k; }
// Chunks of kChunk int8, the even elements and then the odd ones, a scale for each lane, and -8 times the sum of its eight
// elements as i32, where sums of products with codes begin.
constexpr int64_t kChunkFloats = kChunk / 4 + 2 * kW;
inline int64_t chunks_of(int64_t k) { return (k + kChunk - 1) / kChunk; }
inline int64_t row_floats_int8(int64_t k) { return chunks_of(k) * kChunkFloats; }
inline int64_t units_of(int64_t k) { return chunks_of(k) * (kChunk / kInt4Unit); }
inline int64_t scratch_floats(int64_t k) { return 2 * kInt4Rows * units_of(k); }
template <bool Whole>
int64_t pieces_of(int64_t k) {
  return Whole ? chunks_of(k) : units_of(k);
}
template <bool Whole>
F spread(const float* p) {
  return Whole ? Simd::set(*p) : Nibbles::spread(p);
}

inline F rounded_to(DType dtype, F v) {
  if (dtype == DType::f32) return v;
  alignas(64) uint16_t half[kW];
  store_as(dtype, half, 0, v, kW);
  return load_as(dtype, half, 0, kW);
}

// To whole numbers of int8 in steps of d, in place; returns d, NaN where a number is not finite.
inline float round_block(float* x, int64_t block) {
  F top = Simd::set(0), sum = Simd::set(0);
  for (int64_t p = 0; p < block; p += kW) {
    const F v = Simd::load(x + p), a = v < Simd::set(0) ? -v : v;
    top = a > top ? a : top;
    sum += a * Simd::set(0);  // NaN with a number that is not finite
  }
  const float largest = Simd::top(top), d = largest / 127, c = d > 0 ? 1 / d : 0, finite = Simd::sum(sum);
  const F scale = Simd::set(c), most = Simd::set(127);
  for (int64_t p = 0; p < block; p += kW) {
    F v = Nibbles::nearest(Simd::load(x + p) * scale);
    v = v > most ? most : v < -most ? -most : v;
    Simd::store(x + p, finite == 0 ? v : Simd::set(0));
  }
  return finite == 0 ? d : finite;
}

inline void widen_plain(float* to, const Int4Row& row, int64_t first, int64_t count) {
  if (row.perm) {
    for (int64_t p = 0; p < count; ++p) to[p] = load_as(row.dtype, row.data, row.perm[first + p], 1)[0];
    return;
  }
  for (int64_t p = 0; p < count; p += kW) {
    Simd::store(to + p, load_as(row.dtype, row.data, first + p, static_cast<int>(lesser<int64_t>(count - p, kW))),
                static_cast<int>(lesser<int64_t>(count - p, kW)));
  }
}

inline void widen(float* to, const Int4Row& row, int64_t first, int64_t count) {
  widen_plain(to, row, first, count);
  if (row.block == 0) return;
  for (int64_t p = 0; p < count; p += row.block) {
    const F d = Simd::set(round_block(to + p, row.block));
    for (int64_t i = p; i < p + row.block; i += kW) Simd::store(to + i, Simd::load(to + i) * d);
  }
}

// Within a unit, element 8 i + c goes to 4 c + i, where Nibbles::unit shifted by 4 c has it.
inline void arrange(float* to, const Int4Row& row, int64_t k, float* work) {
  widen(work, row, 0, k);
  for (int64_t p = 0; p < k; p += kInt4Unit) {
    for (int i = 0; i < kInt4Unit; ++i) to[p + i] = work[p + i % 4 * 8 + i / 4];
  }
}

inline void arrange_int8(float* to, const Int4Row& row, int64_t k, float* work) {
  widen_plain(work, row, 0, k);
  memset(to, 0, row_floats_int8(k) * sizeof(float));
  for (int64_t start = 0; start < k; start += row.block) {
    const float d = round_block(work + start, row.block);
    for (int64_t p = start; p < start + row.block; p += kInt4Unit) {
      float* chunk = to + p / kChunk * kChunkFloats;
      const int64_t at = p % kChunk;
      auto* even = reinterpret_cast<int8_t*>(chunk) + at / 2;
      auto* odd = even + kChunk / 2;
      for (int i = 0; i < kInt4Unit / 2; ++i) {
        even[i] = static_cast<int8_t>(work[p + 2 * i]);
        odd[i] = static_cast<int8_t>(work[p + 2 * i + 1]);
      }
      float* scales = chunk + kChunk / 4 + at / 8;
      auto* starts = reinterpret_cast<int32_t*>(scales + kW);
      for (int i = 0; i < 4; ++i) {
        float sum = 0;
        for (int j = 0; j < 8; ++j) sum += work[p + 8 * i + j];
        scales[i] = d, starts[i] = -kSymmetric * static_cast<int32_t>(sum);
      }
    }
  }
}

inline int zero_of(const Int4Weight& w, int64_t group, int64_t row) {
  return w.zeros ? nibble(w.zeros, group * w.rows + row) : kSymmetric;
}
// Scales and zeros of kW rows from one on, lanes beyond `rows` and groups beyond the last being 0.
inline F scales_of(const Int4Weight& w, int64_t group, int64_t row, int rows) {
  if (rows <= 0 || group * w.group >= w.k) return Simd::set(0);
  return load_as(w.scale_dtype, w.scales, group * w.stride + row, rows);
}
inline F zeros_of(const Int4Weight& w, int64_t group, int64_t row, int rows) {
  if (!w.zeros) return Simd::set(kSymmetric);
  alignas(64) float zeros[kW] = {};
  for (int i = 0; i < kW && i < rows && group * w.group < w.k; ++i) {
    zeros[i] = static_cast<float>(zero_of(w, group, row + i));
  }
  return Simd::load(zeros);
}
// The sixteen values of a group are codes_of(w) from offset_of(its zero) on.
inline const float* codes_of(const Int4Weight& w) { return w.normal_float ? kNormalFloat4 : kWhole; }
inline int offset_of(const Int4Weight& w, int zero) { return w.normal_float ? 0 : kZero - zero; }

inline const uint8_t* bytes_of(const Int4Weight& w, int64_t row, int64_t p) { return w.data + (row * w.k + p) / 2; }

// How far ahead tiles of so many bytes, one after the other, ask for what comes: whole tiles, so that each line is asked for
// once.
inline int64_t ahead_of(int64_t bytes) { return bytes > 0 ? (kAhead + bytes - 1) / bytes * bytes : 0; }

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
      for (int i = 0; i < kW; ++i) {
        v[i] = Simd::set(0);
        if (i < present)
          v[i] = Simd::load(reinterpret_cast<const float*>(bytes_of(w, d.row + r + i, d.from + p)), words);
      }
      Simd::transpose(v);
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

// MX x NW: the tile of stream; M and M8: rows of x worth streaming, as they are and as int8.
template <int MX, int NW, int M, int M8>
constexpr Int4Kernels int4_kernels(const char* isa, const Int4TileKernels* tiles = nullptr) {
  static_assert(kInt4Rows % NW == 0);
  return {.isa = isa,
          .stream_m = M,
          .stream_int8_m = M8,
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
