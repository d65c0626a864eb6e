// The loops of gemm_int4 over tiles, AMX's registers (core/cpu/amx.h) or what stands in for them, after nibbles_<isa>.h.
// Weights are multiplied as the whole numbers they are, which int8 and bf16 hold exactly; x as int8, or split into bf16 that
// add up to it: two for f16, three for f32. The sums of a segment, in i32 or f32, then meet both scales.
//
// Roofline, one core: 512 products a cycle in bf16, a third of them for f32, against 32 of f32 multiply-adds; 1024 in int8.
// A segment's 32 x 32 sums take some 130 cycles of vector instructions on their way to the scales: as many as the tiles for a
// block of 128 in int8, a sixth of those for 128 of f32.
#pragma once
#include "gemm_int4_cpu.h"

namespace kw::cpu {
namespace {

constexpr int kTileFloats = 16 * 16;
constexpr int kPanelRows = 32;  // of w
constexpr int64_t kFewRows = 32;

// bf16 of index - 16.
alignas(64) constexpr uint16_t kWholeBf16[32] = {0xc180, 0xc170, 0xc160, 0xc150, 0xc140, 0xc130, 0xc120, 0xc110,
                                                 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
                                                 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                                                 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};

// The order of 32 or 64 neighbours along k in a row of a tile is that in which words of w fall apart: eight elements to a
// word, for int8 the even ones and then the odd ones, for bf16 pairs of those four apart.
inline void put_bytes(float* to, const float* from, int64_t count) {
  auto* row = reinterpret_cast<int8_t*>(to);
  int8_t even[kW / 2], odd[kW / 2];
  for (int64_t i = 0; i < count; i += kW) {
    Nibbles::apart(Simd::load(from + i), even, odd);
    for (int j = 0; j < kW / 2; j += 4, row += 8) memcpy(row, even + j, 4), memcpy(row + 4, odd + j, 4);
  }
}

// The upper halves of 32 elements, and what is left of them.
inline void put_part(float* to, float* x) {
  alignas(64) int32_t high[kInt4Unit];
  const I upper = I{} + static_cast<int32_t>(0xffff0000), quiet = I{} + 0x400000, infinite = I{} + 0x7f800000;
  for (int i = 0; i < kInt4Unit; i += kW) {
    const F v = Simd::load(x + i);
    const I bits = (I)v, cut = bits & upper;
    // What is not finite has no rest, and NaN stays one when its lower half is cut off.
    const I special = (bits & infinite) == infinite, part = v == v ? cut : cut | quiet;
    Simd::store(x + i, (F)(~special & (I)(v - (F)cut)));
    Simd::store(reinterpret_cast<float*>(high) + i, (F)part);
  }
  auto* cells = reinterpret_cast<uint32_t*>(to);
  for (int i = 0; i < kInt4Unit / 2; ++i) {
    const int at = i / 4 * 8 + i % 4;
    cells[i] = static_cast<uint32_t>(high[at]) >> 16 | static_cast<uint32_t>(high[at + 4]);
  }
}

inline void arrange_tiles(float* to, const Int4TileShape& s, int lane, const Int4Row& source, float* row) {
  float* scales = to + s.segments * s.floats_of_x();
  float* sums = scales + s.segments * 16;
  widen_plain(row, source, 0, s.k);
  if (s.parts == 0) {
    for (int64_t g = 0; g < s.segments; ++g) {
      float* x = row + g * s.segment;
      scales[g * 16 + lane] = round_block(x, s.segment);
      F sum = Simd::set(0);
      for (int64_t p = 0; p < s.segment; p += kW) sum += Simd::load(x + p);
      sums[g * 16 + lane] = Simd::sum(sum);
      for (int64_t step = 0; step < s.steps; ++step) {
        put_bytes(to + (g * s.steps + step) * 16 * s.wide + lane * s.wide, x + step * 64, 4 * s.wide);
      }
    }
    return;
  }
  // A power of two brings the row's largest magnitude to 1 .. 2, so that neither sums overflow nor parts vanish.
  F top = Simd::set(0);
  for (int64_t p = 0; p < s.k; p += kW) {
    const F v = Simd::load(row + p), a = v < Simd::set(0) ? -v : v;
    top = a > top ? a : top;
  }
  const float largest = Simd::top(top);
  int32_t bits;
  memcpy(&bits, &largest, 4);
  int exponent = (bits >> 23) - 127;
  exponent = exponent == 128 ? 0 : exponent < -100 ? -100 : exponent;
  const F shrink = Simd::set(__builtin_ldexpf(1, -exponent));
  for (int64_t p = 0; p < s.k; p += kW) Simd::store(row + p, Simd::load(row + p) * shrink);
  const float scale = __builtin_ldexpf(1, exponent);
  for (int64_t g = 0; g < s.segments; ++g) scales[g * 16 + lane] = scale;
  for (int64_t t = 0; t < s.segments * s.steps; ++t) {
    for (int part = 0; part < s.parts; ++part) {
      put_part(to + (t * s.parts + part) * kTileFloats + lane * 16, row + t * kInt4Unit);
    }
  }
}

// Words of sixteen neighbours, `stride` floats from one to the next, as two rows of a tile each.
template <class Put>
inline void put_words(float* tile, const float* words, int64_t stride, int count, Put&& put) {
  if (count == 8) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) put(tile + 32 * i, (I)Simd::load(words + i * stride));
  } else {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) put(tile + 32 * i, (I)Simd::load(words + i * stride));
  }
}

// Rows of a panel from `lane` on, a vector of them. Scales of rows beyond the last are 0. Signed: int8 are codes less their zero
// points, sixteen times those where all zero points are 8, which saves two instructions of five; otherwise codes.
template <bool Signed>
void panel_lanes(float* to, const Int4TileShape& s, const Int4Weight& w, int64_t row, int rows, int64_t first,
                 int64_t segments, int lane) {
  typedef int8_t Byte __attribute__((vector_size(sizeof(I))));
  const I low = I{} + 0x0f0f0f0f, high = low << 4, sign = I{} + static_cast<int32_t>(0x80808080);
  const bool sixteen = Signed && s.parts == 0 && !w.zeros;
  const int64_t from = first * s.segment, count = segments * s.segment, groups = w.group / s.segment;
  const int64_t unit = s.segment / s.steps, tile_floats = 16 * s.wide, sides_at = s.steps * 2 * tile_floats;
  const int half = lane / 16, words = static_cast<int>(unit / 8);
  const float* packed = words_at(w, row, from);
  alignas(64) float plain[kW * kW];
  F scale = Simd::set(0), zero = Simd::set(0);
  Byte bias{};
#ifdef __AVX512BF16__
  const __m512i nibble = _mm512_set1_epi16(15), table = _mm512_load_si512(kWholeBf16);
  __m512i shift = _mm512_setzero_si512();
#endif
  int64_t left = 0;  // segments of the group
  for (int64_t g = 0, p = 0; g < segments; ++g, to += s.floats_w) {
    if (left == 0) {
      const int64_t group = (first + g) / groups;
      left = (group + 1) * groups - first - g;
      scale = scales_of(w, group, row, rows), zero = zeros_of(w, group, row, rows);
      if (sixteen) scale *= Simd::set(1.0f / 16);
      if (w.zeros || !Signed || s.parts > 0) {
        alignas(64) float zeros[kW];
        Simd::store(zeros, zero);
        for (int i = 0; i < 4 * kW; ++i) bias[i] = static_cast<int8_t>(zeros[i / 4]);
#ifdef __AVX512BF16__
        const __m512i z = _mm512_sub_epi32(_mm512_set1_epi32(16), _mm512_cvttps_epi32(zero));
        shift = _mm512_or_si512(z, _mm512_slli_epi32(z, 16));
#endif
      }
    }
    --left;
    Simd::store(to + sides_at + lane, scale);
    if (!Signed) Simd::store(to + sides_at + kPanelRows + lane, zero);
    for (int64_t step = 0; step < s.steps; ++step, p += unit, packed += words * kInt4Rows) {
      if (!w.packed && p % kChunk == 0) {
        F v[kW];  // and asks for the segments that come next
        words_of(v, w, row, rows, from + p, static_cast<int>(lesser(count - p, kChunk) / 8), count);
        for (int i = 0; i < kW; ++i) Simd::store(plain + i * kW, v[i]);
      }
      const float* const at = w.packed ? packed : plain + p % kChunk / 8 * kW;
      const int64_t stride = w.packed ? kInt4Rows : kW;
      float* const tile = to + (step * 2 + half) * tile_floats + lane % 16;
      if (sixteen) {
        put_words(tile, at, stride, words, [&](float* pair, I word) {
          Simd::store(pair, (F)((word << 4 & high) ^ sign)), Simd::store(pair + 16, (F)((word & high) ^ sign));
        });
      } else if (s.parts == 0) {
        put_words(tile, at, stride, words, [&](float* pair, I word) {
          I even = word & low, odd = word >> 4 & low;
          if constexpr (Signed) even = (I)((Byte)even - bias), odd = (I)((Byte)odd - bias);
          Simd::store(pair, (F)even), Simd::store(pair + 16, (F)odd);
        });
      }
#ifdef __AVX512BF16__
      for (int i = 0; s.parts > 0 && i < words; ++i) {
        const __m512 word = Simd::load(at + i * stride);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          const __m512i q = _mm512_and_si512(_mm512_srli_epi16(_mm512_castps_si512(word), 4 * j), nibble);
          _mm512_storeu_si512(tile + i * 64 + 16 * j, _mm512_permutexvar_epi16(_mm512_add_epi16(q, shift), table));
        }
      }
#endif
    }
  }
}

template <bool Signed>
void tile_panel(float* to, const Int4TileShape& s, const Int4Weight& w, int64_t row, int rows, int64_t first,
                int64_t segments) {
  for (int lane = 0; lane < kPanelRows; lane += kW) {
    panel_lanes<Signed>(to, s, w, row + lane, rows < lane ? 0 : lesser(rows - lane, kW), first, segments, lane);
  }
}

// Segments [first, first + segments) of a panel, decoded at `w`, against all rows of x; sums are added to, or from segment 0 on
// set.
struct TilePiece {
  const Int4TileTask& task;
  const float* w;
  int64_t first, segments;
  float* sums;
  const char* next[2];  // of a packed w, for each tile of the panel, what is decoded after this
};

// Rows of a tile of x (all sixteen, or fewer that are there) times half a panel of int8. The products of a segment take no
// longer than its sums, 16 of each lane, on their way to the scales; those wait for the tiles to work on the next segment, and
// end in registers.
template <class Tiles, int Rows>
void multiply_bytes(Tiles& t, const TilePiece& b, int64_t tile_x, int half) {
  constexpr bool kZeros = !Tiles::kSigned;
  const Int4TileTask& d = b.task;
  const Int4TileShape& s = d.shape;
  const int64_t tile_floats = 16 * s.wide, scales_at = s.steps * 2 * tile_floats + half * 16;
  const float* const all = d.x + tile_x * s.floats_x;
  const float* x = all + b.first * s.floats_of_x();
  const float* scales_x = all + s.segments * s.floats_of_x() + b.first * 16;
  const float* w = b.w;
  float* const to = b.sums + tile_x * 16 * d.stride + half * 16;
  alignas(64) float buffers[2][kTileFloats];
  F sums[Rows][16 / kW];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < 16 / kW; ++v) sums[i][v] = b.first > 0 ? Simd::load(to + i * d.stride + v * kW) : Simd::set(0);
  }
  const auto scaled = [&](const float* buffer, const float* sides) __attribute__((always_inline)) {
    for (int v = 0; v < 16 / kW; ++v) {
      const F scale = Simd::load(sides + v * kW), zero = kZeros ? Simd::load(sides + kPanelRows + v * kW) : scale;
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
        F dot = Nibbles::whole((I)Simd::load(buffer + i * 16 + v * kW));
        if constexpr (kZeros) dot = Simd::fnma(zero, Simd::set(scales_x[s.segments * 16 + i]), dot);
        sums[i][v] = Simd::fma(dot * scale, Simd::set(scales_x[i]), sums[i][v]);
      }
    }
    scales_x += 16;
  };
  const char* next = tile_x == 0 ? b.next[half] : nullptr;
  const int64_t lines = s.segment / 8;
  for (int64_t g = 0; g < b.segments; ++g, w += s.floats_w) {
    t.template zero<0>();
    for (int64_t step = 0; step < s.steps; ++step, x += tile_floats) {
      t.template load<4>(x, 4 * s.wide);
      t.template load<6>(w + (2 * step + half) * tile_floats, 64);
      t.template dot_bytes<0, 4, 6>();
    }
    if (next) {
      for (int64_t i = 0; i < lines; ++i, next += 64) __builtin_prefetch(next, 0, 2);
    }
    t.template store<0>(buffers[g % 2], 64);
    if (g > 0) scaled(buffers[(g - 1) % 2], w - s.floats_w + scales_at);
  }
  if (b.segments > 0) scaled(buffers[(b.segments - 1) % 2], w - s.floats_w + scales_at);
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < 16 / kW; ++v) Simd::store(to + i * d.stride + v * kW, sums[i][v]);
  }
}

// Rows tiles of x times a panel of bf16.
template <class Tiles, int Rows>
void multiply_parts(Tiles& t, const TilePiece& b, int64_t tile_x) {
  const Int4TileTask& d = b.task;
  const Int4TileShape& s = d.shape;
  alignas(64) float buffers[4][kTileFloats];
  for (int64_t g = 0; g < b.segments; ++g) {
    const float* w = b.w + g * s.floats_w;
    const float* x = d.x + tile_x * s.floats_x + (b.first + g) * s.floats_of_x();
    t.template zero<0>(), t.template zero<1>();
    if constexpr (Rows == 2) t.template zero<2>(), t.template zero<3>();
    for (int64_t step = 0; step < s.steps; ++step, w += 2 * kTileFloats) {
      t.template load<6>(w, 64), t.template load<7>(w + kTileFloats, 64);
      for (int part = 0; part < s.parts; ++part, x += kTileFloats) {
        t.template load<4>(x, 64);
        if constexpr (Rows == 2) t.template load<5>(x + s.floats_x, 64);
        t.template dot<0, 4, 6>(), t.template dot<1, 4, 7>();
        if constexpr (Rows == 2) t.template dot<2, 5, 6>(), t.template dot<3, 5, 7>();
      }
    }
    t.template store<0>(buffers[0], 64), t.template store<1>(buffers[1], 64);
    if constexpr (Rows == 2) t.template store<2>(buffers[2], 64), t.template store<3>(buffers[3], 64);
    for (int r = 0; r < Rows; ++r) {
      const float* const scales_x = d.x + (tile_x + r) * s.floats_x + s.segments * s.floats_of_x() + (b.first + g) * 16;
      for (int j = 0; j < 2; ++j) {
        float* to = b.sums + (tile_x + r) * 16 * d.stride + j * 16;
        for (int lane = 0; lane < 16; lane += kW) {
          const F scale = Simd::load(w + j * 16 + lane);
#pragma GCC unroll 4
          for (int i = 0; i < 16; ++i) {
            const F before = b.first + g > 0 ? Simd::load(to + i * d.stride + lane) : Simd::set(0);
            const F dot = Simd::load(buffers[2 * r + j] + i * 16 + lane);
            Simd::store(to + i * d.stride + lane, Simd::fma(dot * scale, Simd::set(scales_x[i]), before));
          }
        }
      }
    }
  }
}

template <class Tiles, bool Bytes>
void multiply_tiles(const Int4TileTask& d) {
  const Int4TileShape& s = d.shape;
  if (s.segments == 0) return;
  const int64_t tiles_x = (d.rows + 15) / 16;
  Tiles tiles(static_cast<int>(lesser<int64_t>(d.rows, 16)), static_cast<int>(4 * s.wide));
  const int64_t panels = (d.rows_w + kPanelRows - 1) / kPanelRows, pieces = (s.segments + d.piece - 1) / d.piece;
  // Few rows of x stay in the cache, and panels come as they lie in memory; otherwise a piece of x is kept for all panels.
  const bool few = d.rows <= kFewRows;
  const auto row_of = [&](int64_t turn) { return d.row + (few ? turn / pieces : turn % panels) * kPanelRows; };
  const auto first_of = [&](int64_t turn) { return (few ? turn % pieces : turn / panels) * d.piece; };
  for (int64_t turn = 0; turn < panels * pieces; ++turn) {
    const int64_t row = row_of(turn), first = first_of(turn), segments = lesser(d.piece, s.segments - first);
    const int rows = static_cast<int>(lesser<int64_t>(kPanelRows, d.row + d.rows_w - row));
    tile_panel<Tiles::kSigned>(d.work, s, d.w, row, rows, first, segments);
    TilePiece b{d, d.work, first, segments, d.sums + (row - d.row), {}};
    for (int j = 0; d.w.packed && j < 2; ++j) {
      b.next[j] =
          reinterpret_cast<const char*>(words_at(d.w, row_of(turn + 1) + 16 * j, first_of(turn + 1) * s.segment));
    }
    if constexpr (Bytes) {
      for (int64_t i = 0; i < tiles_x; ++i) {
        const int64_t present = d.rows - 16 * i;
        for (int half = 0; half < 2; ++half) {
          if (present > 8)
            multiply_bytes<Tiles, 16>(tiles, b, i, half);
          else if (present > 4)
            multiply_bytes<Tiles, 8>(tiles, b, i, half);
          else
            multiply_bytes<Tiles, 4>(tiles, b, i, half);
        }
      }
    } else {
      int64_t i = 0;
      for (; i + 2 <= tiles_x; i += 2) multiply_parts<Tiles, 2>(tiles, b, i);
      if (i < tiles_x) multiply_parts<Tiles, 1>(tiles, b, i);
    }
  }
}

template <class Tiles>
void task_of_tiles(const Int4TileTask& d) {
  d.shape.parts ? multiply_tiles<Tiles, false>(d) : multiply_tiles<Tiles, true>(d);
}

}  // namespace
}  // namespace kw::cpu
