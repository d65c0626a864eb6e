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

// bf16 of index - 16.
alignas(64) constexpr uint16_t kWholeBf16[32] = {0xc180, 0xc170, 0xc160, 0xc150, 0xc140, 0xc130, 0xc120, 0xc110,
                                                 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
                                                 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                                                 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};

// The order of 32 or 64 neighbours along k in a row of a tile is that in which words of w fall apart: eight elements to a
// word, for int8 the even ones and then the odd ones, for bf16 pairs of those four apart.
inline void put_bytes(float* to, const float* from, int64_t count) {
  auto* row = reinterpret_cast<int8_t*>(to);
  for (int64_t i = 0; i < count; i += 8) {
    for (int j = 0; j < 4; ++j) {
      row[i + j] = static_cast<int8_t>(from[i + 2 * j]);
      row[i + 4 + j] = static_cast<int8_t>(from[i + 2 * j + 1]);
    }
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
  float* scales = to + s.segments * s.steps * (s.parts ? s.parts : 1) * kTileFloats;
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
        float* place = to + (g * s.steps + step) * kTileFloats + lane * 16;
        const int64_t count = lesser<int64_t>(s.segment - step * 64, 64);
        if (count < 64) memset(place, 0, 64);
        put_bytes(place, x + step * 64, count);
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

// Rows of a panel from `lane` on, a vector of them. Scales of rows beyond the last are 0. Signed: int8 are codes less their zero
// points, otherwise codes.
template <bool Signed>
void panel_lanes(float* to, const Int4TileShape& s, const Int4Weight& w, int64_t row, int rows, int64_t first,
                 int64_t segments, int lane) {
  typedef int8_t Byte __attribute__((vector_size(sizeof(I))));
  const I mask = I{} + 0x0f0f0f0f;
  const int64_t from = first * s.segment, count = segments * s.segment;
  const int64_t words_each = s.segment / 8;  // of a segment
  const int half = lane / 16, in_tile = lane % 16;
  int64_t group = -1;
  F scale = Simd::set(0), zero = Simd::set(0);
  Byte bias{};
#ifdef __AVX512BF16__
  const __m512i low = _mm512_set1_epi16(15), table = _mm512_load_si512(kWholeBf16);
  __m512i shift = _mm512_setzero_si512();
#endif
  for (int64_t p = 0; p < count; p += kChunk) {
    const int words = static_cast<int>(lesser(count - p, kChunk) / 8);
    F v[kW];
    words_of(v, w, row, rows, from + p, words, count);  // and asks for the segments that come next
    for (int word = 0; word < words; ++word) {
      const int64_t at = p / 8 + word, segment = at / words_each, within = at % words_each;
      float* const place = to + segment * s.floats_w;
      if (within == 0) {
        const int64_t now = (first + segment) * s.segment / w.group;
        if (now != group) {
          group = now;
          scale = scales_of(w, group, row, rows), zero = zeros_of(w, group, row, rows);
          alignas(64) float zeros[kW];
          Simd::store(zeros, zero);
          for (int i = 0; i < 4 * kW; ++i) bias[i] = static_cast<int8_t>(zeros[i / 4]);
#ifdef __AVX512BF16__
          const __m512i z = _mm512_sub_epi32(_mm512_set1_epi32(16), _mm512_cvttps_epi32(zero));
          shift = _mm512_or_si512(z, _mm512_slli_epi32(z, 16));
#endif
        }
        float* const sides = place + s.steps * 2 * kTileFloats;
        Simd::store(sides + lane, scale);
        if (s.parts == 0) Simd::store(sides + kPanelRows + lane, zero);
      }
      if (s.parts == 0) {
        float* tile = place + (within / 8 * 2 + half) * kTileFloats + within % 8 * 32 + in_tile;
        I even = (I)v[word] & mask, odd = (I)v[word] >> 4 & mask;
        if constexpr (Signed) even = (I)((Byte)even - bias), odd = (I)((Byte)odd - bias);
        Simd::store(tile, (F)even), Simd::store(tile + 16, (F)odd);
        continue;
      }
#ifdef __AVX512BF16__
      float* tile = place + (within / 4 * 2 + half) * kTileFloats + within % 4 * 64;
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const __m512i q = _mm512_and_si512(_mm512_srli_epi16(_mm512_castps_si512(v[word]), 4 * j), low);
        _mm512_storeu_si512(tile + 16 * j, _mm512_permutexvar_epi16(_mm512_add_epi16(q, shift), table));
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

// Sums of a segment, 16 x 16, times both scales, those of w at `sides` and its zeros kPanelRows further. Zeros: sums of int8 are
// of codes, and lack the zero points' share.
template <bool Bytes, bool Zeros>
inline void apply_scales(const float* tile, const float* scales_x, const float* sums_x, const float* sides, float* sums,
                         int64_t stride, bool add) {
  for (int lane = 0; lane < 16; lane += kW) {
    const F scale = Simd::load(sides + lane), zero = Zeros ? Simd::load(sides + kPanelRows + lane) : scale;
    float* to = sums + lane;
#pragma GCC unroll 4
    for (int i = 0; i < 16; ++i, to += stride) {
      F v = Simd::load(tile + i * 16 + lane);
      if constexpr (Bytes) v = Nibbles::whole((I)v);
      if constexpr (Zeros) v = Simd::fnma(zero, Simd::set(sums_x[i]), v);
      const F before = add ? Simd::load(to) : Simd::set(0);
      Simd::store(to, Simd::fma(v * scale, Simd::set(scales_x[i]), before));
    }
  }
}

// Rows tiles of x against a panel of w, segment by segment. Of int8, whose products take no longer than their sums to be scaled,
// those are scaled while the tiles work on the next segment.
template <class Tiles, int Rows, bool Bytes>
void multiply_segments(Tiles& t, const Int4TileBlock& b, int64_t tile_x, int panel) {
  constexpr bool kZeros = Bytes && !Tiles::kSigned;
  const Int4TileShape& s = b.shape;
  const int parts = Bytes ? 1 : s.parts;
  const int64_t tiles = s.segments * s.steps * parts;
  constexpr int kBuffers = Bytes ? 2 : 1;
  alignas(64) float buffers[kBuffers][4][kTileFloats];
  const auto scaled = [&](int64_t g) {
    const float* const sides = b.w + (panel * b.segments + g) * s.floats_w + s.steps * 2 * kTileFloats;
    for (int r = 0; r < Rows; ++r) {
      const float* const scales_x = b.x + (tile_x + r) * s.floats_x + tiles * kTileFloats + (b.first + g) * 16;
      for (int j = 0; j < 2; ++j) {
        apply_scales<Bytes, kZeros>(buffers[g % kBuffers][2 * r + j], scales_x, scales_x + s.segments * 16,
                                    sides + j * 16, b.sums + (tile_x + r) * 16 * b.stride + panel * kPanelRows + j * 16,
                                    b.stride, b.first + g > 0);
      }
    }
  };
  for (int64_t g = 0; g < b.segments; ++g) {
    const float* w = b.w + (panel * b.segments + g) * s.floats_w;
    const float* x = b.x + tile_x * s.floats_x + (b.first + g) * s.steps * parts * kTileFloats;
    t.template zero<0>(), t.template zero<1>();
    if constexpr (Rows == 2) t.template zero<2>(), t.template zero<3>();
    for (int64_t step = 0; step < s.steps; ++step, w += 2 * kTileFloats) {
      t.template load<6>(w, 64), t.template load<7>(w + kTileFloats, 64);
      for (int part = 0; part < parts; ++part, x += kTileFloats) {
        t.template load<4>(x, 64);
        if constexpr (Rows == 2) t.template load<5>(x + s.floats_x, 64);
        if constexpr (Bytes) {
          t.template dot_bytes<0, 4, 6>(), t.template dot_bytes<1, 4, 7>();
          if constexpr (Rows == 2) t.template dot_bytes<2, 5, 6>(), t.template dot_bytes<3, 5, 7>();
        } else {
          t.template dot<0, 4, 6>(), t.template dot<1, 4, 7>();
          if constexpr (Rows == 2) t.template dot<2, 5, 6>(), t.template dot<3, 5, 7>();
        }
      }
    }
    auto& buffer = buffers[g % kBuffers];
    t.template store<0>(buffer[0], 64), t.template store<1>(buffer[1], 64);
    if constexpr (Rows == 2) t.template store<2>(buffer[2], 64), t.template store<3>(buffer[3], 64);
    if (!Bytes) scaled(g);
    if (Bytes && g > 0) scaled(g - 1);
  }
  if (Bytes && b.segments > 0) scaled(b.segments - 1);
}

template <class Tiles, bool Bytes>
void multiply_tiles(const Int4TileBlock& b) {
  Tiles tiles;
  if constexpr (requires { tiles.take(0); }) tiles.take(static_cast<int>(lesser<int64_t>(b.shape.segment, 64) / 4));
  for (int panel = 0; panel < b.panels; ++panel) {
    int64_t i = 0;
    for (; i + 2 <= b.tiles_x; i += 2) multiply_segments<Tiles, 2, Bytes>(tiles, b, i, panel);
    if (i < b.tiles_x) multiply_segments<Tiles, 1, Bytes>(tiles, b, i, panel);
  }
}

template <class Tiles>
void block_of_tiles(const Int4TileBlock& b) {
  b.shape.parts ? multiply_tiles<Tiles, false>(b) : multiply_tiles<Tiles, true>(b);
}

}  // namespace
}  // namespace kw::cpu
