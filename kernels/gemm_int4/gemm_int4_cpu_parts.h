// What the loops of gemm_int4 on the CPU share, over core/cpu/nibbles_<isa>.h, which must be included before: rows of x as they
// are multiplied, and words, scales and zero points of w. Everything is in an unnamed namespace: each instruction set has its
// own copy.
#pragma once
#include <string.h>

#include "../core/cpu/simd_cells.h"
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
// Behind the chunks, for a packed w, -8 times the sum of each block.
inline int64_t row_floats_int8(int64_t k) { return chunks_of(k) * kChunkFloats + k / kInt4Unit; }
inline float* chunk_of(float* row, int64_t p) { return row + p / kChunk * kChunkFloats; }
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
    for (int64_t p = start; p < start + row.block; p += kW) {
      float* const chunk = chunk_of(to, p);
      auto* const even = reinterpret_cast<int8_t*>(chunk) + p % kChunk / 2;
      Nibbles::apart(Simd::load(work + p), even, even + kChunk / 2);
    }
    for (int64_t p = start; p < start + row.block; p += 8) chunk_of(to, p)[kChunk / 4 + p % kChunk / 8] = d;
  }
  alignas(64) uint8_t ones[kChunk / 2];
  memset(ones, 0x11, sizeof(ones));
  const auto each = Nibbles::bytes(ones, sizeof(ones));
  for (int64_t p = 0; p < k; p += kChunk) {
    float* const chunk = chunk_of(to, p);
    const I sums = Nibbles::dot(each, reinterpret_cast<const int8_t*>(chunk), I{});
    Simd::store(chunk + kChunk / 4 + kW, (F)(sums * -kSymmetric));
  }
  int32_t* const blocks = reinterpret_cast<int32_t*>(to + chunks_of(k) * kChunkFloats);
  for (int64_t p = 0; p < k; p += 8) {
    const float* const start = chunk_of(to, p) + kChunk / 4 + kW + p % kChunk / 8;
    int32_t sum;
    memcpy(&sum, start, sizeof(sum));
    blocks[p / row.block] += sum;
  }
}

inline int zero_of(const Int4Weight& w, int64_t group, int64_t row) {
  return w.zeros ? nibble(w.zeros, w.zeros_at.at(group, row)) : kSymmetric;
}
// Scales and zeros of kW rows from one on, lanes beyond `rows` and groups beyond the last being 0.
inline F scales_of(const Int4Weight& w, int64_t group, int64_t row, int rows) {
  if (rows <= 0 || group * w.group >= w.k) return Simd::set(0);
  return load_as(w.scale_dtype, w.scales, w.scales_at.at(group, row), rows);
}
inline F zeros_of(const Int4Weight& w, int64_t group, int64_t row, int rows) {
  if (!w.zeros) return Simd::set(kSymmetric);
  const int64_t at = w.zeros_at.at(group, row);
  if (rows >= kW && at % 2 == 0 && group * w.group < w.k) {
    uint64_t codes = 0;
    memcpy(&codes, w.zeros + at / 2, kW / 2);
    I whole;
    for (int i = 0; i < kW; ++i) whole[i] = static_cast<int32_t>(codes >> 4 * i & 15);
    return Nibbles::whole(whole);
  }
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
// A packed w: the words of a row, and of those beside it, from element p of k on, kInt4Rows floats from word to word.
inline const float* words_at(const Int4Weight& w, int64_t row, int64_t p) {
  return reinterpret_cast<const float*>(w.data) + (row / kInt4Rows * (w.k / 8) + p / 8) * kInt4Rows + row % kInt4Rows;
}

// Words of kW rows from `row` on, one to a lane: v[i] are the eight elements from p + 8 i on, for i < words. Of rows, `rows` are
// present; those of others are 0, or rubbish without scales. Elements `ahead` further are asked for.
inline void words_of(F (&v)[kW], const Int4Weight& w, int64_t row, int rows, int64_t p, int words, int64_t ahead) {
  if (w.packed) {
    const float* const from = words_at(w, row, p);
    for (int i = 0; i < kW; ++i) {
      v[i] = Simd::set(0);
      if (rows <= 0 || i >= words) continue;
      v[i] = Simd::load(from + i * kInt4Rows);
      if (ahead > 0 && row % kInt4Rows == 0) __builtin_prefetch(from + (ahead / 8 + i) * kInt4Rows, 0, 2);
    }
    return;
  }
  for (int i = 0; i < kW; ++i) {
    v[i] = Simd::set(0);
    if (i >= rows) continue;
    v[i] = Simd::load(reinterpret_cast<const float*>(bytes_of(w, row + i, p)), words);
    if (ahead > 0) __builtin_prefetch(bytes_of(w, row + i, p + ahead), 0, 2);
  }
  Simd::transpose(v);
}

// How far ahead tiles of so many bytes, one after the other, ask for what comes: whole tiles, so that each line is asked for
// once.
inline int64_t ahead_of(int64_t bytes) { return bytes > 0 ? (kAhead + bytes - 1) / bytes * bytes : 0; }

}  // namespace
}  // namespace kw::cpu
