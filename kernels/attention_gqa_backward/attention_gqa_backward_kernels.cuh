// The kernels of attention_gqa_backward on CUDA over the tiles of attention_gqa_backward_tile.cuh; attention_gqa_backward_cuda.cu says
// which runs when. Every sum has one order: no atomics.
#pragma once
#include "attention_gqa_backward_tile.cuh"

namespace kw::attention_gqa_backward_cuda {

using attention_gqa_cuda::clamped;
using attention_gqa_cuda::Operand;
using attention_gqa_cuda::Params;
using attention_gqa_cuda::Place;

struct BackwardParams {
  Params rows;  // of the forward; pack is 1
  Params keys;  // the same with rows and keys, and all about them that find_rows() reads, in each other's place
  Operand y, dy, dlse, dq, dk, dv, dbias;
  int bias_batch, bias_heads;  // sizes of dbias
  bool dy_wide, dq_pairs, dk_pairs, dv_pairs;
  float *lse,
      *delta;    // [batch][heads_q][len_q]; lse is inf where there is no row or it saw nothing, delta then 0 or unused
  float* dsink;  // null: not asked for
  int64_t dsink_step;
};

KW_DEVICE int64_t row_index(const Params& p, int batch, int head, int row) {
  return (int64_t{batch} * p.heads_q + head) * p.len_q + row;
}

// ---- one pair of a row and a key ---------------------------------------------------------------------------------------

struct Row {
  int batch, head, query, position;  // query: within its sequence; position: of the query among the keys
  float lse, delta;
};

// s and d: products of q k and dy v. s becomes P; d becomes S, or T where `uncapped`.
KW_DEVICE void differentiate(const Params& p, const Row& row, int key, int len_kv, bool uncapped, float& s, float& d) {
  bool visible = key < len_kv && key >= row.position - p.left && key <= row.position + p.right;
  float t = s * p.scale, slope = 1;
  if (!p.plain) {
    if (p.softcap != 0) {
      const float share = tanhf(t / p.softcap);
      t = p.softcap * share;
      slope = 1 - share * share;
    }
    if (visible && p.bias.data)
      t += load1(p.bias.data, p.bias.dtype,
                 row.batch * p.bias.batch + row.head * p.bias.head + row.query * p.bias.row + key);
    if (p.alibi) t = fmaf(-p.alibi[row.head], fabsf(static_cast<float>(row.position - key)), t);
  }
  if (visible && p.mask.data) {
    Place place;
    place.batch = row.batch;
    visible = !attention_gqa_cuda::MaskedKeys(p, place, row.head, row.query, key).hidden(p, 0);
  }
  const float away = t - row.lse;
  s = visible ? ptx::ex2((away > 0 ? 0.0f : away) * kLog2E) : 0.0f;
  d = visible ? s * (d - row.delta) : 0.0f;
  if (uncapped) d *= slope;
}

// ---- what a block knows ------------------------------------------------------------------------------------------------

template <class Tile>
struct Frame {
  Place place;
  float lse[Tile::kM > Tile::kN ? Tile::kM : Tile::kN], delta[Tile::kM > Tile::kN ? Tile::kM : Tile::kN];  // of rows
};

template <class Tile>
constexpr int kSmem = Tile::kBytes + static_cast<int>(sizeof(Frame<Tile>));

// lse and D of `count` rows from `query` on; rows that are not there have no weight.
template <class Tile>
KW_DEVICE void load_rows(const BackwardParams& b, Frame<Tile>& frame, int batch, int head, int first, int query,
                         int len_q, int count) {
  for (int line = static_cast<int>(threadIdx.x); line < count; line += Tile::kThreads) {
    const bool there = query + line < len_q;
    const int64_t at = row_index(b.rows, batch, head, first + query + line);
    frame.lse[line] = there ? b.lse[at] : -negative_infinity();
    frame.delta[line] = there ? b.delta[at] : 0.0f;
  }
}

// Lines of an operand from number `line0` of a sequence that begins at row `first`, those at `end` and beyond as zeros.
template <class Tile, int kLines>
KW_DEVICE void load_lines(unsigned char* smem, int tile, const Operand& o, int64_t offset, int first, int line0,
                          int end, int elements, bool wide) {
  const auto* base = static_cast<const typename Tile::Element*>(o.data) + offset;
  Tile::template load<kLines>(smem, tile, elements, wide, o.data, [&](int line) {
    return line0 + line < end ? base + int64_t{first + line0 + line} * o.row : nullptr;
  });
}

// Queries and gradients of results of a head, to the block's own tiles or to the others.
template <class Tile, bool kOwn>
KW_DEVICE void load_queries(const BackwardParams& b, unsigned char* smem, int batch, int head, int first, int line0,
                            int end) {
  const Params& p = b.rows;
  constexpr int kLines = kOwn ? Tile::kM : Tile::kN;
  load_lines<Tile, kLines>(smem, kOwn ? Tile::kOwnX : Tile::kX, p.q, batch * p.q.batch + head * p.q.head, first, line0,
                           end, p.dim, p.q_wide);
  load_lines<Tile, kLines>(smem, kOwn ? Tile::kOwnZ : Tile::kZ, b.dy, batch * b.dy.batch + head * b.dy.head, first,
                           line0, end, p.dim_v, b.dy_wide);
}

// Likewise keys and, unless they are of no use, values.
template <class Tile, bool kOwn, bool kValues = true>
KW_DEVICE void load_keys(const BackwardParams& b, unsigned char* smem, int batch, int head, int first, int line0,
                         int end) {
  const Params& p = b.rows;
  constexpr int kLines = kOwn ? Tile::kM : Tile::kN;
  load_lines<Tile, kLines>(smem, kOwn ? Tile::kOwnX : Tile::kX, p.k, batch * p.k.batch + head * p.k.head, first, line0,
                           end, p.dim, p.k_wide);
  if constexpr (kValues)
    load_lines<Tile, kLines>(smem, kOwn ? Tile::kOwnZ : Tile::kZ, p.v, batch * p.v.batch + head * p.v.head, first,
                             line0, end, p.dim_v, p.v_wide);
}

// Which tile of lines this block has; by all threads. False: none.
template <class Tile>
KW_DEVICE bool open_frame(const Params& p, int heads, Frame<Tile>& frame, int& head) {
  unsigned index = blockIdx.x;
  const int tile = p.row_tiles - 1 - static_cast<int>(index % p.row_tiles);
  index /= p.row_tiles;
  head = static_cast<int>(index % heads);
  if (threadIdx.x < 32) {
    Place place;
    place.batch = static_cast<int>(index / heads);
    if (!attention_gqa_cuda::find_rows(p, Tile::kM, tile, place)) place.row0 = -1;
    if (threadIdx.x == 0) frame.place = place;
  }
  __syncthreads();
  return frame.place.row0 >= 0;
}

template <class Tile>
KW_DEVICE void store_lines(const Operand& o, bool pairs, int columns, const Place& place, int head, float factor,
                           const typename Tile::Sums& sums) {
  Tile::each(sums, [&](int line, int column, float x, float y) {
    const int row = place.row0 + line;
    if (row >= place.queries) return;
    attention_gqa_cuda::store_pair(o.data, o.dtype,
                                   place.batch * o.batch + int64_t{place.first_q + row} * o.row + head * o.head, pairs,
                                   column, columns, x * factor, y * factor);
  });
}

template <class Sums>
KW_DEVICE void clear(Sums& sums) {
  float* v = reinterpret_cast<float*>(&sums);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(Sums) / sizeof(float)); ++i) v[i] = 0;
}

// ---- dq: own rows, over the keys they see -------------------------------------------------------------------------------

template <class Tile, int kBlocks>
static __global__ void __launch_bounds__(Tile::kThreads, kBlocks)
    backward_rows(const __grid_constant__ BackwardParams b) {
  const Params& p = b.rows;
  unsigned char* smem = dyn_smem();
  auto& frame = *reinterpret_cast<Frame<Tile>*>(smem + Tile::kBytes);
  int head;
  if (!open_frame<Tile>(p, p.heads_q, frame, head)) return;
  const Place& place = frame.place;
  const int kv_head = head / p.group, shift = place.len_kv - place.len_q;
  const int last = min(place.row0 + Tile::kM, place.len_q) - 1;
  const int from = max(0, place.row0 + shift - p.left), to = min(place.len_kv, last + shift + p.right + 1);
  load_queries<Tile, true>(b, smem, place.batch, head, place.first_q, place.row0, place.len_q);
  load_rows<Tile>(b, frame, place.batch, head, place.first_q, place.row0, place.len_q, Tile::kM);
  ptx::cp_async_commit();
  typename Tile::Sums dq;
  clear(dq);
  if (place.row0 < place.len_q) {
#pragma unroll 1
    for (int key0 = from / Tile::kN * Tile::kN; key0 < to; key0 += Tile::kN) {
      load_keys<Tile, false>(b, smem, place.batch, kv_head, place.first_kv, key0, place.len_kv);
      ptx::cp_async_commit();
      ptx::cp_async_wait<0>();
      __syncthreads();
      typename Tile::Scores s, d;
      Tile::products(smem, Tile::kOwnX, Tile::kX, s);
      Tile::products(smem, Tile::kOwnZ, Tile::kZ, d);
      Tile::each(s, d, [&](int line, int column, float& weight, float& gradient) {
        const int query = place.row0 + line;
        const Row row{place.batch, head, min(query, p.len_q - 1), query + shift, frame.lse[line], frame.delta[line]};
        differentiate(p, row, key0 + column, query < place.len_q ? place.len_kv : 0, true, weight, gradient);
      });
      Tile::add(smem, Tile::kX, d, dq);
      __syncthreads();  // the next keys overwrite these
    }
  }
  ptx::cp_async_wait<0>();
  store_lines<Tile>(b.dq, b.dq_pairs, p.dim, place, head, p.scale, dq);
}

// ---- dk and dv: own keys, over the rows of the group that see them ------------------------------------------------------

template <class Tile, bool kK, bool kV, int kBlocks>
static __global__ void __launch_bounds__(Tile::kThreads, kBlocks)
    backward_keys(const __grid_constant__ BackwardParams b) {
  const Params& p = b.rows;
  unsigned char* smem = dyn_smem();
  auto& frame = *reinterpret_cast<Frame<Tile>*>(smem + Tile::kBytes);
  int kv_head;
  if (!open_frame<Tile>(b.keys, p.heads_kv, frame, kv_head)) return;
  const Place& place = frame.place;  // of keys: its q are keys, its kv are rows
  const int len_kv = place.len_q, len_q = place.len_kv, shift = len_kv - len_q;
  const int last = min(place.row0 + Tile::kM, len_kv) - 1;
  const int from = max(0, place.row0 - p.right - shift), to = min(len_q, last + p.left - shift + 1);
  load_keys<Tile, true, kK>(b, smem, place.batch, kv_head, place.first_q, place.row0, len_kv);
  ptx::cp_async_commit();
  typename Tile::Sums dk, dv;
  if constexpr (kK) clear(dk);
  if constexpr (kV) clear(dv);
  const int first_row = from / Tile::kN * Tile::kN;
  const int tiles = place.row0 < len_kv && to > from ? (to - first_row + Tile::kN - 1) / Tile::kN : 0;
#pragma unroll 1
  for (int n = 0; n < tiles * p.group; ++n) {
    const int head = kv_head * p.group + n / tiles, row0 = first_row + n % tiles * Tile::kN;
    load_queries<Tile, false>(b, smem, place.batch, head, place.first_kv, row0, len_q);
    load_rows<Tile>(b, frame, place.batch, head, place.first_kv, row0, len_q, Tile::kN);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();
    typename Tile::Scores s, d;
    Tile::products(smem, Tile::kOwnX, Tile::kX, s);
    if constexpr (kK) Tile::products(smem, Tile::kOwnZ, Tile::kZ, d);
    if constexpr (!kK) clear(d);
    Tile::each(s, d, [&](int line, int column, float& weight, float& gradient) {
      const int query = row0 + column, key = place.row0 + line;
      const Row row{place.batch, head, min(query, p.len_q - 1), query + shift, frame.lse[column], frame.delta[column]};
      differentiate(p, row, key, query < len_q ? len_kv : 0, true, weight, gradient);
    });
    if constexpr (kK) Tile::add(smem, Tile::kX, d, dk);
    if constexpr (kV) Tile::add(smem, Tile::kZ, s, dv);
    __syncthreads();  // the next rows overwrite these
  }
  ptx::cp_async_wait<0>();
  if constexpr (kK) store_lines<Tile>(b.dk, b.dk_pairs, p.dim, place, kv_head, p.scale, dk);
  if constexpr (kV) store_lines<Tile>(b.dv, b.dv_pairs, p.dim_v, place, kv_head, 1, dv);
}

// ---- dbias: a tile of it, over the batches, heads or sequences that share it --------------------------------------------

template <class Tile, int kBlocks>
static __global__ void __launch_bounds__(Tile::kThreads, kBlocks)
    backward_bias(const __grid_constant__ BackwardParams b) {
  const Params& p = b.rows;
  unsigned char* smem = dyn_smem();
  auto& frame = *reinterpret_cast<Frame<Tile>*>(smem + Tile::kBytes);
  const int row_tiles = (p.len_q + Tile::kM - 1) / Tile::kM, key_tiles = (p.len_kv + Tile::kN - 1) / Tile::kN;
  unsigned index = blockIdx.x;
  const int key0 = static_cast<int>(index % key_tiles) * Tile::kN;
  index /= key_tiles;
  const int row0 = static_cast<int>(index % row_tiles) * Tile::kM;
  index /= row_tiles;
  const int bias_head = static_cast<int>(index % b.bias_heads), bias_batch = static_cast<int>(index / b.bias_heads);
  const int heads = b.bias_heads > 1 ? 1 : p.heads_q;
  const int sequences = p.cu_q ? static_cast<int>(p.cu_count) - 1 : b.bias_batch > 1 ? 1 : p.batch;
  typename Tile::Scores sum, unused;
  clear(sum), clear(unused);
#pragma unroll 1
  for (int n = 0; n < sequences * heads; ++n) {
    const int head = heads > 1 ? n % heads : bias_head, sequence = n / heads, kv_head = head / p.group;
    int batch = 0, first_q = 0, first_kv = 0, len_q = p.len_q, len_kv = p.len_kv;
    if (p.cu_q) {
      first_q = clamped(p.cu_q[sequence], 0, p.len_q), first_kv = clamped(p.cu_kv[sequence], 0, p.len_kv);
      len_q = clamped(p.cu_q[sequence + 1], first_q, p.len_q) - first_q;
      len_kv = clamped(p.cu_kv[sequence + 1], first_kv, p.len_kv) - first_kv;
    } else {
      batch = b.bias_batch > 1 ? bias_batch : sequence;
      if (p.lens_q) len_q = clamped(p.lens_q[batch], 0, p.len_q);
      if (p.lens_kv) len_kv = clamped(p.lens_kv[batch], 0, p.len_kv);
    }
    const int shift = len_kv - len_q, last = min(row0 + Tile::kM, len_q) - 1;
    if (row0 >= len_q || key0 >= min(len_kv, last + shift + p.right + 1) || key0 + Tile::kN <= row0 + shift - p.left)
      continue;
    load_queries<Tile, true>(b, smem, batch, head, first_q, row0, len_q);
    load_keys<Tile, false>(b, smem, batch, kv_head, first_kv, key0, len_kv);
    load_rows<Tile>(b, frame, batch, head, first_q, row0, len_q, Tile::kM);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();
    typename Tile::Scores s, d;
    Tile::products(smem, Tile::kOwnX, Tile::kX, s);
    Tile::products(smem, Tile::kOwnZ, Tile::kZ, d);
    Tile::each(s, d, [&](int line, int column, float& weight, float& gradient) {
      const int query = row0 + line;
      const Row row{batch, head, min(query, p.len_q - 1), query + shift, frame.lse[line], frame.delta[line]};
      differentiate(p, row, key0 + column, query < len_q ? len_kv : 0, false, weight, gradient);
    });
    Tile::each(sum, d, [](int, int, float& total, float& gradient) { total += gradient; });
    __syncthreads();  // the next ones overwrite these
  }
  Tile::each(sum, unused, [&](int line, int column, float& total, float&) {
    if (row0 + line < p.len_q && key0 + column < p.len_kv)
      store1(b.dbias.data, b.dbias.dtype,
             bias_batch * b.dbias.batch + bias_head * b.dbias.head + int64_t{row0 + line} * b.dbias.row + key0 + column,
             total);
  });
}

}  // namespace kw::attention_gqa_backward_cuda
