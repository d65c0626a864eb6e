// attention_gqa of bf16 and f16 on tensor cores, compute capability 8.0 and up. See attention_gqa_cuda.cu.
#pragma once
#include "../core/cuda/lines.cuh"
#include "attention_gqa_walk.cuh"

namespace kw::attention_gqa_cuda {

// Rows of a tile: 16 kFragments per warp, or the same 16 for all four warps, each of which then takes every fourth tile of
// keys and merges with the others at the end. Keys arrive in a ring of slots, one for K or V of a tile in turn; warps that
// share rows have a ring each.
template <int Dim, int DimV, int Fragments, bool SplitWarps, int Slots, int Blocks>
struct TileShape {
  static constexpr int kDim = Dim, kDimV = DimV, kFragments = Fragments, kSlots = Slots, kBlocks = Blocks;
  static constexpr bool kSplitWarps = SplitWarps;
  static constexpr int kThreads = 128, kGroup = SplitWarps ? 32 : kThreads;  // kGroup: threads that share keys
  static constexpr int kM = 16 * Fragments * (SplitWarps ? 1 : 4), kN = SplitWarps ? 16 : 64;
  static constexpr int kQBytes = kM * Dim * 2, kSlotBytes = kN * (Dim > DimV ? Dim : DimV) * 2;
  static constexpr int kRingBytes = Slots * kSlotBytes, kRings = SplitWarps ? 4 : 1;
  static constexpr int kFrame = kQBytes + kRings * kRingBytes, kSmem = kFrame + sizeof(Frame);
  static_assert(!SplitWarps || (Fragments == 1 && 4 * kM * DimV * 4 <= kRings * kRingBytes),
                "merging reuses the rings");
};

// 16 kFragments rows by kN keys of scores, as this lane holds them: s[f][n][e] is row 16 f + lane / 4 + e / 2 * 8, key
// 8 n + lane % 4 * 2 + e % 2.
template <class Shape>
struct Scores {
  static constexpr int kF = Shape::kFragments, kK = Shape::kN / 8;
  float s[kF][kK][4];

  template <class Visit>
  KW_DEVICE void each(Visit visit) {
#pragma unroll
    for (int f = 0; f < kF; ++f)
#pragma unroll
      for (int n = 0; n < kK; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) visit(s[f][n][e]);
  }
  // This lane's rows, one after the other to save registers: visit(f, half) for row 16 f + 8 half + lane / 4.
  template <class Visit>
  KW_DEVICE void rows(Visit visit) {
#pragma unroll
    for (int f = 0; f < kF; ++f)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        visit(f, half);
        __syncwarp();
      }
  }
  // This lane's elements of a row: visit(column, s), counted from its first column.
  template <class Visit>
  KW_DEVICE void each(int f, int half, Visit visit) {
#pragma unroll
    for (int n = 0; n < kK; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) visit(8 * n + e, s[f][n][2 * half + e]);
  }
};

template <bool kBf16, class Shape, class P = Params>
static __global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) attention_mma(const __grid_constant__ P p) {
  using QueryTile = LineTile<Shape::kDim>;
  using KeyTile = LineTile<Shape::kDim>;
  using ValueTile = LineTile<Shape::kDimV>;
  constexpr int kF = Shape::kFragments, kN = Shape::kN, kM = Shape::kM, kSlots = Shape::kSlots;
  constexpr int kValues = Shape::kDimV / 8;

  unsigned char* smem = dyn_smem();
  Frame& frame = *reinterpret_cast<Frame*>(smem + Shape::kFrame);
  if (!open_frame<uint16_t>(p, kM, kN, frame)) return;
  const Place& place = frame.place;
  const Walk& walk = frame.walk;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = ptx::lane_id();
  const int warp_row = Shape::kSplitWarps ? 0 : 16 * kF * warp;
  unsigned char* ring = smem + Shape::kQBytes + (Shape::kSplitWarps ? warp * Shape::kRingBytes : 0);
  const int thread = Shape::kSplitWarps ? lane : static_cast<int>(threadIdx.x);
  const auto sync = [] {
    if constexpr (Shape::kSplitWarps) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  };

  // ---- copies
  const uint16_t* q = static_cast<const uint16_t*>(p.q.data) + place.batch * p.q.batch + place.first_q * p.q.row;
  copy_lines<QueryTile, kM, Shape::kThreads>(smem, static_cast<int>(threadIdx.x), p.dim, p.q_wide, q, [&](int line) {
    const RowPlace row(p, place, line);
    return row.there ? q + row.query * p.q.row + row.head * p.q.head : nullptr;
  });
  ptx::cp_async_commit();

  constexpr int kStep = Shape::kSplitWarps ? 4 : 1;
  const auto seek = [&](int tile) {  // the first tile of keys from `tile` on in which something is visible
    Stop stop{tile, Visible::all};
    if (!p.mask.data) return stop;
#pragma unroll 1
    for (; stop.tile < walk.end; stop.tile += kStep) {
      stop.mask = mask_of_tile(p, place, walk, stop.tile * kN, kN);
      if (stop.mask != Visible::none) break;
    }
    return stop;
  };
  const Stop start = seek(walk.begin + (Shape::kSplitWarps ? (warp - walk.begin) & 3 : 0));

  Stop ahead = start;  // the tile that is being filled
  int filling = 0, reading = 0;
  const auto fill_key = [&] {
    if (ahead.tile < walk.end) {
      copy_lines<KeyTile, kN, Shape::kGroup>(ring + filling * Shape::kSlotBytes, thread, p.dim, p.k_wide, frame.k,
                                             keys_from<uint16_t>(p, frame, ahead.tile * kN));
    }
    ptx::cp_async_commit();
    filling = filling + 1 == kSlots ? 0 : filling + 1;
  };
  const auto fill_value = [&] {
    if (ahead.tile < walk.end) {
      copy_lines<ValueTile, kN, Shape::kGroup>(ring + filling * Shape::kSlotBytes, thread, p.dim_v, p.v_wide, frame.v,
                                               values_from<uint16_t>(p, frame, ahead.tile * kN));
      ahead = seek(ahead.tile + kStep);
    }
    ptx::cp_async_commit();
    filling = filling + 1 == kSlots ? 0 : filling + 1;
  };
  // Slot `reading` is ready, and the one read before it is free: fill that.
  const auto advance = [&](bool value) {
    ptx::cp_async_wait<kSlots - 2>();
    sync();
    if (value == (kSlots % 2 == 0)) {
      fill_key();
    } else {
      fill_value();
    }
    const uint32_t slot = ptx::smem_u32(ring) + reading * Shape::kSlotBytes;
    reading = reading + 1 == kSlots ? 0 : reading + 1;
    return slot;
  };
#pragma unroll
  for (int i = 0; i < kSlots - 1; ++i) {
    if (i % 2 == 0) {
      fill_key();
    } else {
      fill_value();
    }
  }
  ptx::cp_async_wait<kSlots - 1>();
  __syncthreads();

  // ---- state of this lane's rows
  const auto row_of = [&](int f, int half) { return place.row0 + warp_row + 16 * f + lane / 4 + 8 * half; };
  float values[kF][kValues][4];
  float maximum[kF][2], sum[kF][2];
#pragma unroll
  for (int f = 0; f < kF; ++f)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      maximum[f][half] = negative_infinity();
      sum[f][half] = 0;
#pragma unroll
      for (int n = 0; n < kValues; ++n) values[f][n][2 * half] = values[f][n][2 * half + 1] = 0;
    }
  const uint32_t q_tile = ptx::smem_u32(smem);
  const uint32_t q_lane = QueryTile::lane_offset(lane), k_lane = q_lane, v_lane = ValueTile::lane_offset(lane);
  const float to_log2 = p.plain ? p.scale * kLog2E : 1.0f;  // what turns s into a power of two

#pragma unroll 1
  for (Stop stop = start; stop.tile < walk.end;) {
    const int key0 = stop.tile * kN;
    Scores<Shape> scores;
    scores.each([](float& s) { s = 0; });
    const uint32_t keys = advance(false);
#pragma unroll
    for (int step = 0; step < Shape::kDim / 16; ++step) {
      uint32_t a[kF][4];
#pragma unroll
      for (int f = 0; f < kF; ++f) QueryTile::fragment(a[f], q_tile, q_lane, warp_row + 16 * f, step);
#pragma unroll
      for (int n = 0; n < kN / 16; ++n) {
        uint32_t b[4];
        KeyTile::fragment(b, keys, k_lane, 16 * n, step);
        const uint32_t low[2] = {b[0], b[2]}, high[2] = {b[1], b[3]};
#pragma unroll
        for (int f = 0; f < kF; ++f) {
          mma_m16n8k16<kBf16>(scores.s[f][2 * n], a[f], low);
          mma_m16n8k16<kBf16>(scores.s[f][2 * n + 1], a[f], high);
        }
      }
    }
    const uint32_t keyed_values = advance(true);

    // ---- scores
    const int key = key0 + lane % 4 * 2;  // of this lane's first column
    if (!p.plain) {
      if (p.softcap != 0) {
        const float scale = p.scale / p.softcap;
        scores.each([&](float& s) { s = p.softcap * tanhf(s * scale); });
      } else {
        scores.each([&](float& s) { s *= p.scale; });
      }
      if (p.bias.data) {
        scores.rows([&](int f, int half) {
          const RowPlace row(p, place, row_of(f, half) - place.row0);
          if (!row.there) return;
          const int64_t at = place.batch * p.bias.batch + row.head * p.bias.head + row.query * p.bias.row + key;
          scores.each(f, half, [&](int column, float& s) {
            if (key + column < place.len_kv) s += load1(p.bias.data, p.bias.dtype, at + column);
          });
        });
      }
      if (p.alibi) {
        scores.rows([&](int f, int half) {
          const int distance = row_of(f, half) / p.pack + walk.shift - key;
          const float slope = p.alibi[place.head + row_of(f, half) % p.pack];
          scores.each(f, half,
                      [&](int column, float& s) { s = fmaf(-slope, fabsf(static_cast<float>(distance - column)), s); });
        });
      }
      scores.each([&](float& s) { s *= kLog2E; });
    }
    if (stop.mask == Visible::some) {
      scores.rows([&](int f, int half) {
        const RowPlace row(p, place, row_of(f, half) - place.row0);
        if (!row.there) return;
        const MaskedKeys mask(p, place, row.head, row.query, key);
        const int columns = min(kN, place.len_kv - key);
        uint32_t hidden = 0;  // gathered first, so that loads and scores do not compete for registers
#pragma unroll 1
        for (int column = 0, bit = 1; column < columns; column += 8, bit <<= 2)
          hidden |=
              (mask.hidden(p, column) ? bit : 0) | (column + 1 < columns && mask.hidden(p, column + 1) ? 2 * bit : 0);
        scores.each(f, half, [&](int column, float& s) {
          if (hidden >> (column / 8 * 2 + column % 2) & 1) s = negative_infinity();
        });
      });
    }
    if (walk.edge(p, place, key0, kN)) {
      scores.rows([&](int f, int half) {
        const int position = row_of(f, half) / p.pack + walk.shift;
        const int from = position - p.left - key, to = min(place.len_kv, position + p.right + 1) - key;
        scores.each(f, half, [&](int column, float& s) {
          if (column < from || column >= to) s = negative_infinity();
        });
      });
    }

    // ---- running maximum and sum; s becomes exp(s - maximum)
    bool rescale = false;
    float decay[kF][2];
#pragma unroll
    for (int f = 0; f < kF; ++f)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = maximum[f][half];
#pragma unroll
        for (int n = 0; n < kN / 8; ++n)
          top = fmaxf(top, fmaxf(scores.s[f][n][2 * half], scores.s[f][n][2 * half + 1]));
        top = lanes_max<4>(top);
        const float base = finite_or_zero(top), shift = base * to_log2;
        decay[f][half] = ptx::ex2((maximum[f][half] - base) * to_log2);  // exactly 1 where the maximum stays
        rescale |= top != maximum[f][half];
        maximum[f][half] = top;
        float added = 0;
#pragma unroll
        for (int n = 0; n < kN / 8; ++n)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e)
            added += scores.s[f][n][e] = ptx::ex2(fmaf(scores.s[f][n][e], to_log2, -shift));
        sum[f][half] = fmaf(sum[f][half], decay[f][half], added);
      }
    if (__any_sync(0xffffffffu, rescale)) {
#pragma unroll
      for (int f = 0; f < kF; ++f)
#pragma unroll
        for (int n = 0; n < kValues; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) values[f][n][e] *= decay[f][e / 2];
    }

    // ---- values: the accumulators of s, two by two, are operand A
#pragma unroll
    for (int step = 0; step < kN / 16; ++step) {
      uint32_t a[kF][4];
#pragma unroll
      for (int f = 0; f < kF; ++f)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float(&s)[4] = scores.s[f][2 * step + e / 2];
          a[f][e] = pack2<kBf16>(s[e % 2 * 2], s[e % 2 * 2 + 1]);
        }
#pragma unroll
      for (int n = 0; n < kValues / 2; ++n) {
        uint32_t b[4];
        ValueTile::fragment_trans(b, keyed_values, v_lane, 16 * step, n);
        const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
        for (int f = 0; f < kF; ++f) {
          mma_m16n8k16<kBf16>(values[f][2 * n], a[f], low);
          mma_m16n8k16<kBf16>(values[f][2 * n + 1], a[f], high);
        }
      }
    }
    if constexpr (kSlots == 2) {
      stop = ahead;
    } else {
      stop = seek(stop.tile + kStep);
    }
  }
  ptx::cp_async_wait<0>();

  // ---- finished rows
  const float to_natural = p.plain ? p.scale : kLn2;
#pragma unroll
  for (int f = 0; f < kF; ++f)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[f][half] = lanes_sum<4>(sum[f][half]);
      maximum[f][half] *= to_natural;
    }
  int first_value = 0;
  if constexpr (Shape::kSplitWarps) {  // every warp gets the merged sums of a quarter of the columns
    constexpr int kMine = kValues / 4;
    __syncthreads();
    float4* parts = reinterpret_cast<float4*>(smem + Shape::kQBytes);  // [warp][n][lane]
    float2* stats = reinterpret_cast<float2*>(smem);                   // [warp][row]
#pragma unroll
    for (int n = 0; n < kValues; ++n)
      parts[(warp * kValues + n) * 32 + lane] =
          make_float4(values[0][n][0], values[0][n][1], values[0][n][2], values[0][n][3]);
    if (lane % 4 == 0)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        stats[warp * kM + lane / 4 + 8 * half] = make_float2(maximum[0][half], sum[0][half]);
    __syncthreads();
    float weight[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float2 part[4];
      float top = negative_infinity(), total = 0;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        part[w] = stats[w * kM + lane / 4 + 8 * half];
        top = fmaxf(top, part[w].x);
      }
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        weight[half][w] = expf(part[w].x - finite_or_zero(top));
        total = fmaf(part[w].y, weight[half][w], total);
      }
      maximum[0][half] = top;
      sum[0][half] = total;
    }
    first_value = warp * kMine;
#pragma unroll
    for (int n = 0; n < kMine; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) values[0][n][e] = 0;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const float4 part = parts[(w * kValues + first_value + n) * 32 + lane];
        values[0][n][0] = fmaf(part.x, weight[0][w], values[0][n][0]);
        values[0][n][1] = fmaf(part.y, weight[0][w], values[0][n][1]);
        values[0][n][2] = fmaf(part.z, weight[1][w], values[0][n][2]);
        values[0][n][3] = fmaf(part.w, weight[1][w], values[0][n][3]);
      }
    }
  }
#pragma unroll
  for (int f = 0; f < kF; ++f)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const RowPlace row(p, place, warp_row + 16 * f + lane / 4 + 8 * half);
      if (!row.inside) continue;
      const RowEnd end(p, row, maximum[f][half], sum[f][half]);
      if (first_value == 0 && lane % 4 == 0) store_lse(p, place, row, end.lse);
      if (!row.whole && end.factor == 0) continue;
      const RowTarget target(p, place, row);
#pragma unroll
      for (int n = 0; n < (Shape::kSplitWarps ? kValues / 4 : kValues); ++n)
        target.store(p, 8 * (first_value + n) + lane % 4 * 2, end.scaled(values[f][n][2 * half]),
                     end.scaled(values[f][n][2 * half + 1]));
    }
}

}  // namespace kw::attention_gqa_cuda
