// Few rows of x against a packed w (kInt4Panels), lanes being rows of w: sixteen rows are one run of memory, and their scales
// another, so that two streams come in order and a group's scales are applied to sixteen sums at once.
//
// Exact: of a word, nibble by nibble, kept in place under an exponent that makes it 2^(23 - s) + q; what is subtracted makes it
// q - zero, exactly. With AVX-512 three instructions and a load for 16 products of one row of x, 1.5 cycles on two ports; two
// instructions of them serve all rows of x that are taken at a time. NF4 is looked up.
// Int8: the low nibbles of a vector meet four bytes of x in every lane, the high nibbles the four after them. With vpdpbusd
// 5 instructions for 128 weights, 2.5 cycles, and 4 for a group's sums; 64 bytes take 6 to come.
#pragma once
#include "gemm_int4_cpu_parts.h"

namespace kw::cpu {
namespace {

constexpr int kV = kInt4Rows / kW;         // vectors of a panel's rows
constexpr int kPanelX = kW == 16 ? 8 : 2;  // rows of x at a time
constexpr int64_t kPanelAhead = 4 << 10;   // bytes of w asked for ahead
constexpr int64_t kPanelChain = 256;       // elements along k that a chain of additions covers, at most

// A vector of a panel's scales, and of the next panel's asked for: a run of a packed operand, otherwise in another line.
inline F panel_scales(const Int4Weight& w, int64_t group, int64_t row, int rows) {
  const int64_t next = w.scales_at.at(group, row + kInt4Rows) * bits(w.scale_dtype) / 8;
  __builtin_prefetch(static_cast<const char*>(w.scales) + next, 0, 2);
  return scales_of(w, group, row, rows);
}

// The bytes of a row of x that meet the even elements of a word of w; of other words in the unit, and of odd ones, at fixed
// distances.
inline const float* bytes_at(const float* x, int64_t p) {
  const auto at = static_cast<uint64_t>(p);  // whose divisions are shifts
  return x + at / kChunk * kChunkFloats + at % kChunk / 8;
}

// MX rows of x against a panel, of which `rows` rows exist.
template <int MX>
void int8_panel(const Int4Stream& s, int64_t row, int rows, int64_t x_row) {
  const Int4Weight& w = s.w;
  const float* const x = s.x + x_row * s.stride_x;
  const float* const starts = x + chunks_of(w.k) * kChunkFloats;
  const float* words = words_at(w, row, 0);
  const I mask = I{} + 0x0f0f0f0f;
  F total[MX][kV] = {}, scale[kV], zero[kV];
  int64_t group = 0;
  for (int64_t p = 0, block = 0, left = 0; p < w.k; ++block, left -= s.block) {
    if (left == 0) {
#pragma GCC unroll 4
      for (int v = 0; v < kV; ++v) {
        scale[v] = panel_scales(w, group, row + v * kW, rows - v * kW);
        if (w.zeros)
          zero[v] =
              (zeros_of(w, group, row + v * kW, rows - v * kW) - Simd::set(kSymmetric)) * Simd::set(1.0f / kSymmetric);
      }
      left = w.group, ++group;
    }
    I sums[MX][kV];
#pragma GCC unroll 8
    for (int i = 0; i < MX; ++i) {
      for (int v = 0; v < kV; ++v) sums[i][v] = (I)Simd::set(starts[i * s.stride_x + block]);
    }
    const float* const scale_x = bytes_at(x, p) + kChunk / 4;
    for (const int64_t end = p + s.block; p < end; p += kInt4Unit) {
      const float* const chunk = bytes_at(x, p);
      I part[MX][kV];
#pragma GCC unroll 8
      for (int i = 0; i < MX; ++i) {
        for (int v = 0; v < kV; ++v) part[i][v] = Nibbles::kWide ? sums[i][v] : I{};
      }
#pragma GCC unroll 4
      for (int j = 0; j < kInt4Unit / 8; ++j, words += kInt4Rows) {
        __builtin_prefetch(reinterpret_cast<const char*>(words) + kPanelAhead, 0, 2);
#pragma GCC unroll 4
        for (int v = 0; v < kV; ++v) {
          const I word = (I)Simd::load(words + v * kW), even = word & mask, odd = word >> 4 & mask;
#pragma GCC unroll 8
          for (int i = 0; i < MX; ++i) {
            const float* const bytes = chunk + i * s.stride_x + j;
            part[i][v] = Nibbles::quad(part[i][v], even, (I)Simd::set(bytes[0]));
            part[i][v] = Nibbles::quad(part[i][v], odd, (I)Simd::set(bytes[kW]));
          }
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < MX; ++i) {
        for (int v = 0; v < kV; ++v)
          sums[i][v] = Nibbles::kWide ? part[i][v] : sums[i][v] + Nibbles::widened(part[i][v]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MX; ++i) {
      const F d = Simd::set(scale_x[i * s.stride_x]);
      for (int v = 0; v < kV; ++v) {
        F dot = Nibbles::whole(sums[i][v]);
        if (w.zeros) dot = Simd::fma(zero[v], Nibbles::whole((I)Simd::set(starts[i * s.stride_x + block])), dot);
        total[i][v] = Simd::fma(dot * scale[v], d, total[i][v]);
      }
    }
  }
  for (int i = 0; i < MX; ++i) {
    for (int v = 0; v < kV && v * kW < rows; ++v) {
      Simd::store(s.sums + (x_row + i) * s.stride + row - s.row + v * kW, total[i][v], lesser(rows - v * kW, kW));
    }
  }
}

// The value of nibble `nibble` of every word, less its zero point.
struct WholeCodes {
  F bias[kV][4];
  void begin(const Int4Weight& w, int64_t group, int64_t row, int rows) {
    for (int v = 0; v < kV; ++v) {
      const F zero = zeros_of(w, group, row + v * kW, rows - v * kW);
      for (int j = 0; j < 4; ++j) bias[v][j] = zero + Simd::set(static_cast<float>(1 << (23 - 4 * j)));
    }
  }
  // The lower 16 bits of words hold nibble j, at most the fourth, where it is looked for.
  F at(I word, int v, int j) const {
    const I bits = word & (I{} + (15 << 4 * j)), exponent = I{} + ((127 + 23 - 4 * j) << 23);
    return (F)(bits | exponent) - bias[v][j];
  }
};
struct TableCodes {
  F table[kTables];
  void begin(const Int4Weight& w, int64_t, int64_t, int) {
    for (int t = 0; t < kTables; ++t) table[t] = Simd::load(codes_of(w) + offset_of(w, kSymmetric) + t * kW);
  }
  F at(I word, int, int j) const { return Nibbles::at(table, word >> 4 * j); }
};

// Rounded: ŵ itself is, so that scales cannot wait for a group's sum.
template <class Codes, bool Rounded>
struct ExactPanel {
  template <int MX>
  static void run(const Int4Stream& s, int64_t row, int rows, int64_t x_row) {
    constexpr int kAtATime = MX * kV, kChains = kAtATime >= 8   ? 1
                                                : kAtATime >= 4 ? 2
                                                                : 4;  // eight sums hide their latency
    const Int4Weight& w = s.w;
    const float* const x = s.x + x_row * s.stride_x;
    const float* words = words_at(w, row, 0);
    F total[MX][kV] = {}, scale[kV];
    Codes codes;
    for (int64_t start = 0, group = -1, end; start < w.k; start = end) {
      if (start / w.group != group) {
        group = start / w.group;
        codes.begin(w, group, row, rows);
        for (int v = 0; v < kV; ++v) scale[v] = panel_scales(w, group, row + v * kW, rows - v * kW);
      }
      end = lesser(start + kPanelChain, (group + 1) * w.group);
      F sums[kChains][MX][kV] = {};
      for (int64_t p = start; p < end; p += kInt4Unit) {
#pragma GCC unroll 4
        for (int j = 0; j < kInt4Unit / 8; ++j, words += kInt4Rows) {
          __builtin_prefetch(reinterpret_cast<const char*>(words) + kPanelAhead, 0, 2);
#pragma GCC unroll 4
          for (int v = 0; v < kV; ++v) {
            const I word = (I)Simd::load(words + v * kW), upper = word >> 16;
#pragma GCC unroll 8
            for (int c = 0; c < 8; ++c) {
              F value = codes.at(c < 4 ? word : upper, v, c % 4);
              if constexpr (Rounded) value = rounded_to(w.round, value * scale[v]);
#pragma GCC unroll 8
              for (int i = 0; i < MX; ++i) {
                F& sum = sums[c % kChains][i][v];
                sum = Simd::fma(value, Simd::set(x[i * s.stride_x + p + 4 * c + j]), sum);
              }
            }
          }
        }
      }
      for (int i = 0; i < MX; ++i) {
        for (int v = 0; v < kV; ++v) {
          F sum = sums[0][i][v];
          for (int c = 1; c < kChains; ++c) sum += sums[c][i][v];
          total[i][v] = Rounded ? total[i][v] + sum : Simd::fma(sum, scale[v], total[i][v]);
        }
      }
    }
    for (int i = 0; i < MX; ++i) {
      for (int v = 0; v < kV && v * kW < rows; ++v) {
        Simd::store(s.sums + (x_row + i) * s.stride + row - s.row + v * kW, total[i][v], lesser(rows - v * kW, kW));
      }
    }
  }
};
struct Int8Panel {
  template <int MX>
  static void run(const Int4Stream& s, int64_t row, int rows, int64_t x_row) {
    int8_panel<MX>(s, row, rows, x_row);
  }
};

// All rows of x from one on against a panel, MX at a time and then the rest.
template <class Panel, int MX>
void panel_rows(const Int4Stream& s, int64_t row, int rows, int64_t x_row) {
  for (; x_row + MX <= s.m; x_row += MX) Panel::template run<MX>(s, row, rows, x_row);
  if constexpr (MX > 1) {
    if (x_row < s.m) panel_rows<Panel, MX - 1>(s, row, rows, x_row);
  }
}

template <class Panel, int MX = kPanelX>
void stream_panels_of(const Int4Stream& s) {
  for (int64_t row = s.row; row < s.row + s.rows; row += kInt4Rows) {
    panel_rows<Panel, MX>(s, row, static_cast<int>(lesser<int64_t>(s.row + s.rows - row, kInt4Rows)), 0);
  }
}

inline void stream_panels_int8(const Int4Stream& s) { stream_panels_of<Int8Panel>(s); }

// mode dequant with few rows is there to be compared with: a row of x at a time.
inline void stream_panels(const Int4Stream& s) {
  const bool rounded = s.w.round != DType::f32;
  // One register of codes saves an instruction of the sixteen.
  if (s.w.normal_float || (kTables == 1 && !s.w.zeros)) {
    return rounded ? stream_panels_of<ExactPanel<TableCodes, true>, 1>(s)
                   : stream_panels_of<ExactPanel<TableCodes, false>>(s);
  }
  rounded ? stream_panels_of<ExactPanel<WholeCodes, true>, 1>(s) : stream_panels_of<ExactPanel<WholeCodes, false>>(s);
}

}  // namespace
}  // namespace kw::cpu
