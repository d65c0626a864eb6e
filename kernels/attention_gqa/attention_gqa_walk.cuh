// What attention_gqa's CUDA kernels share: their parameters, which rows a block makes, which keys those rows see, where these lie,
// and where a finished row goes. See attention_gqa_cuda.cu. Kernels are templates over the parameters: those of attention_gqa_paged
// (../attention_gqa_paged/attention_gqa_paged_walk.cuh) derive from these and overload what depends on where keys lie.
#pragma once
#include "../core/cuda/elements.cuh"
#include "../core/cuda/softmax.cuh"
#include "../core/cuda/status.cuh"

namespace kw::attention_gqa_cuda {

constexpr int kUnbounded = 1 << 30;       // of a window; positions stay far below it
constexpr int kMostLength = 1 << 24;      // of queries and keys
constexpr int kScannedMaskEntries = 512;  // a tile with more mask entries is not looked through before it is used

// q, k, v, y: element (batch, row, head, e) is at data[batch * batch_step + row * row_step + head * head_step + e].
// lse: (batch, head, row); bias: (batch, head, row, e); mask: (batch, head, block row, e).
struct Operand {
  void* data;
  DType dtype;
  int64_t batch, row, head;
};

struct Params {
  Operand q, k, v, y, lse, bias, mask;
  const float *alibi, *sink;
  const int32_t *lens_q, *lens_kv, *cu_q, *cu_kv;
  int64_t cu_count;  // entries of cu_q and cu_kv
  int batch, len_q, len_kv, heads_q, heads_kv, group, dim, dim_v;
  int pack;       // query heads that share a tile's rows: row r is query r / pack of head r % pack; 1 or group
  int row_tiles;  // of one batch and `pack` heads, at least as many as there are
  int splits;
  int split_keys;  // keys of a split, by position; 0: each row tile's keys are shared out evenly
  int left, right;
  int mask_block_q, mask_block_kv, mask_heads;  // mask_heads: of a tile's heads, those that have a mask of their own
  uint64_t mask_reciprocal;                     // ceil(2^48 / mask_block_kv)
  float scale, softcap;
  bool plain;                   // scores are q . k times a positive scale and nothing else, but for masks
  bool mask_scan;               // a tile's mask entries are few enough to be looked through first
  bool q_wide, k_wide, v_wide;  // every row begins at a multiple of 16 bytes
  bool y_pairs;                 // two elements of y can be stored at once
  // With splits > 1: y and lse of each split, [splits][batch][heads_q][len_q] (rows of partial_pitch). Where a split saw
  // nothing its lse is -inf and its y is not written. An lse of +inf, which no row can have, marks a row that is not there.
  float *partial_y, *partial_lse;
  int partial_pitch;
  StreamStatus* status;
  const char* const* names;  // of lens_q, lens_kv, cu_q, cu_kv, for status
};

// ---- which rows and keys ---------------------------------------------------------------------------------------------

// The part of the problem one block works on. Aligned, because ptxas else spills a register of the largest tile for 9.0.
struct alignas(8) Place {
  int batch;
  int split = 0, splits = 1;  // the part of the keys, and how many there are; one alone finishes its rows
  int head, kv_head;          // head: the first of `pack`
  int row0;                   // first row of the tile, within the sequence
  int first_q, first_kv;      // where the sequence begins in the tensors
  int len_q, len_kv;          // of the sequence
  int queries;                // rows of y that belong to it; those from len_q on are not there
};

KW_DEVICE int clamped(int value, int low, int high) { return min(max(value, low), high); }

// Cumulative lengths cut the rows of y into pieces: what comes before the first sequence, the sequences, what comes after.
// Finds the piece and the tile within it that number `tile` over all pieces is. False when there are fewer. A warp at a time.
KW_DEVICE bool find_sequence(const Params& p, int rows_of_tile, int tile, Place& place) {
  const int lane = ptx::lane_id(), pieces = static_cast<int>(p.cu_count) + 1;
  int before = 0;  // where the pieces of this round begin
#pragma unroll 1
  for (int base = 0; base < pieces; base += 32) {
    const int piece = base + lane;
    int end = piece >= pieces ? 0 : piece == pieces - 1 ? p.len_q : clamped(p.cu_q[piece], 0, p.len_q);
    end = max(end, before);
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {  // cu_q made ascending
      const int other = __shfl_up_sync(0xffffffffu, end, distance);
      if (lane >= distance) end = max(end, other);
    }
    int begin = __shfl_up_sync(0xffffffffu, end, 1);
    if (lane == 0) begin = before;
    const int tiles = ((end - begin) * p.pack + rows_of_tile - 1) / rows_of_tile;
    int upto = tiles;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, upto, distance);
      if (lane >= distance) upto += other;
    }
    const uint32_t found = __ballot_sync(0xffffffffu, tile < upto);
    if (found) {
      const int source = __ffs(static_cast<int>(found)) - 1, sequence = base + source - 1;
      place.first_q = __shfl_sync(0xffffffffu, begin, source);
      place.queries = __shfl_sync(0xffffffffu, end, source) - place.first_q;
      place.row0 = (tile - __shfl_sync(0xffffffffu, upto - tiles, source)) * rows_of_tile;
      place.first_kv = place.len_kv = place.len_q = 0;
      if (sequence >= 0 && sequence < pieces - 2) {
        place.len_q = place.queries;
        place.first_kv = clamped(p.cu_kv[sequence], 0, p.len_kv);
        place.len_kv = clamped(p.cu_kv[sequence + 1], place.first_kv, p.len_kv) - place.first_kv;
      }
      return true;
    }
    tile -= __shfl_sync(0xffffffffu, upto, 31);
    before = __shfl_sync(0xffffffffu, end, 31);
  }
  return false;
}

// Lengths that do not fit the tensors were clamped above; the first warp of the grid reports them.
KW_DEVICE void check_lengths(const Params& p) {
  if (blockIdx.x != 0 || threadIdx.x >= 32) return;
  const auto check = [&](const int32_t* values, int64_t count, bool ascending, int highest, int name) {
    if (!values) return;
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < count; i += 32) {
      const int lowest = ascending && i > 0 ? clamped(values[i - 1], 0, highest) : 0;
      if (values[i] < lowest || values[i] > highest)
        report_index(p.status, p.names + name, static_cast<int>(i), values[i], lowest, highest);
    }
  };
  check(p.lens_q, p.batch, false, p.len_q, 0);
  check(p.lens_kv, p.batch, false, p.len_kv, 1);
  check(p.cu_q, p.cu_count, true, p.len_q, 2);
  check(p.cu_kv, p.cu_count, true, p.len_kv, 3);
}

// The rest of a place whose batch and heads are known: row tile `tile` of them. False: there is no such tile. By whole warps.
KW_DEVICE bool find_rows(const Params& p, int rows_of_tile, int tile, Place& place) {
  if (p.cu_q) return find_sequence(p, rows_of_tile, tile, place);
  place.row0 = tile * rows_of_tile;
  place.first_q = place.first_kv = 0;
  place.queries = p.len_q;
  place.len_q = p.lens_q ? clamped(p.lens_q[place.batch], 0, p.len_q) : p.len_q;
  place.len_kv = p.lens_kv ? clamped(p.lens_kv[place.batch], 0, p.len_kv) : p.len_kv;
  return true;
}

// Blocks are numbered so that those running at the same time share keys: a key head's row tiles follow each other, the
// longest (the last, with a causal mask) first. False: nothing to do here.
KW_DEVICE bool find_place(const Params& p, int rows_of_tile, Place& place) {
  const int heads = p.pack == 1 ? p.group : 1;
  unsigned index = blockIdx.x;
  place.split = static_cast<int>(index % p.splits);
  place.splits = p.splits;
  index /= p.splits;
  const int head_in_group = static_cast<int>(index % heads);
  index /= heads;
  const int tile = p.row_tiles - 1 - static_cast<int>(index % p.row_tiles);
  index /= p.row_tiles;
  place.kv_head = static_cast<int>(index % p.heads_kv);
  place.batch = static_cast<int>(index / p.heads_kv);
  place.head = place.kv_head * p.group + head_in_group;
  return find_rows(p, rows_of_tile, tile, place);
}

// The keys a tile of rows sees.
struct Walk {
  int shift;                     // position of query i among the keys: i + shift
  int first, last;               // positions of the tile's first and last query
  int begin, end;                // tiles of keys, by position
  int queries_from, queries_to;  // queries of the tile that are there

  KW_DEVICE void begin_tile(const Params& p, const Place& place, int rows, int keys) {
    queries_from = place.row0 / p.pack;
    queries_to = min((place.row0 + rows - 1) / p.pack + 1, place.len_q);
    shift = place.len_kv - place.len_q;
    first = queries_from + shift;
    last = queries_to - 1 + shift;
    const int from = max(0, first - p.left), to = min(place.len_kv, last + p.right + 1);
    begin = end = 0;
    if (queries_from >= queries_to || from >= to) return;
    begin = from / keys;
    end = (to + keys - 1) / keys;
    if (place.splits == 1) return;
    if (p.split_keys) {
      const int tiles = p.split_keys / keys;
      begin = max(begin, place.split * tiles);
      end = min(end, (place.split + 1) * tiles);
    } else {
      const int tiles = (end - begin + place.splits - 1) / place.splits;
      begin += place.split * tiles;
      end = min(end, begin + tiles);
    }
  }
  // Whether some row of the tile does not see some of the keys key0 .. key0 + keys - 1, by length, causality or window.
  KW_DEVICE bool edge(const Params& p, const Place& place, int key0, int keys) const {
    return key0 < last - p.left || key0 + keys - 1 > first + p.right || key0 + keys > place.len_kv;
  }
};

// What every thread of a block knows. It lies in shared memory, so that it takes no registers in the loop over keys.
struct Frame {
  Place place;
  Walk walk;
  const void *k, *v;  // the first key and value of the sequence and head
};

// Rows of keys or values, of a tile that ends `left` of them further.
template <class T>
struct Lines {
  const T* first;
  int64_t step;
  int left;
  KW_DEVICE const T* operator()(int line) const { return line < left ? first + line * step : nullptr; }
};
template <class T>
KW_DEVICE Lines<T> keys_from(const Params& p, const Frame& frame, int key0) {
  return {static_cast<const T*>(frame.k) + key0 * p.k.row, p.k.row, frame.place.len_kv - key0};
}
template <class T>
KW_DEVICE Lines<T> values_from(const Params& p, const Frame& frame, int key0) {
  return {static_cast<const T*>(frame.v) + key0 * p.v.row, p.v.row, frame.place.len_kv - key0};
}

// The first key and value of the sequence and head, in elements of the operands.
KW_DEVICE int64_t first_key(const Params& p, const Place& place) {
  return place.batch * p.k.batch + place.first_kv * p.k.row + place.kv_head * p.k.head;
}
KW_DEVICE int64_t first_value(const Params& p, const Place& place) {
  return place.batch * p.v.batch + place.first_kv * p.v.row + place.kv_head * p.v.head;
}

// Where keys lie is not in question.
KW_DEVICE void check_keys(const Params&, const Place&, const Walk&, int) {}

// By all threads; false: the block has nothing to do. The whole block may use the frame afterwards.
template <class T, class P>
KW_DEVICE bool open_frame(const P& p, int rows, int keys, Frame& frame) {
  check_lengths(p);
  if (threadIdx.x < 32) {
    Place place;
    if (!find_place(p, rows, place)) place.row0 = -1;
    Walk walk;
    if (place.row0 >= 0) walk.begin_tile(p, place, rows, keys);
    if (threadIdx.x == 0) {
      frame.place = place;
      frame.walk = walk;
      frame.k = static_cast<const T*>(p.k.data) + first_key(p, place);
      frame.v = static_cast<const T*>(p.v.data) + first_value(p, place);
    }
  }
  __syncthreads();
  if (frame.place.row0 < 0) return false;
  check_keys(p, frame.place, frame.walk, keys);
  return true;
}

// ---- the mask --------------------------------------------------------------------------------------------------------

KW_DEVICE const uint8_t* mask_row(const Params& p, const Place& place, int head, int query) {
  return static_cast<const uint8_t*>(p.mask.data) + place.batch * p.mask.batch + head * p.mask.head +
         query / p.mask_block_q * p.mask.row;
}

// The elements of a row's mask for the keys from `key` on.
struct MaskedKeys {
  const uint8_t* first;
  uint32_t inside;  // keys of the first block that lie before `key`
  KW_DEVICE MaskedKeys(const Params& p, const Place& place, int head, int query, int key) {
    const int block = key / p.mask_block_kv;
    first = mask_row(p, place, head, query) + block;
    inside = key - block * p.mask_block_kv;
  }
  // Key `key` + offset, offset below 64. The quotient is exact for blocks below 2^24 keys.
  KW_DEVICE bool hidden(const Params& p, int offset) const {
    return first[(inside + offset) * p.mask_reciprocal >> 48] == 0;
  }
};

enum class Visible { none, some, all };

struct Stop {  // on the way through the keys
  int tile;
  Visible mask;
};

// What the mask says of a tile, by one warp.
KW_DEVICE Visible mask_of_tile(const Params& p, const Place& place, const Walk& walk, int key0, int keys) {
  if (!p.mask.data) return Visible::all;
  if (!p.mask_scan) return Visible::some;
  const int row0 = walk.queries_from / p.mask_block_q, rows = (walk.queries_to - 1) / p.mask_block_q - row0 + 1;
  const int column0 = key0 / p.mask_block_kv;
  const int columns = (min(key0 + keys, place.len_kv) - 1) / p.mask_block_kv - column0 + 1;
  const uint8_t* base = mask_row(p, place, place.head, row0 * p.mask_block_q) + column0;
  bool any = false, all = true;
#pragma unroll 1
  for (int item = ptx::lane_id(); item < p.mask_heads * rows * columns; item += 32) {
    const int head = item / (rows * columns), row = item / columns % rows, column = item % columns;
    const bool on = base[head * p.mask.head + row * p.mask.row + column] != 0;
    any |= on;
    all &= on;
  }
  if (!__any_sync(0xffffffffu, any)) return Visible::none;
  return __all_sync(0xffffffffu, all) ? Visible::all : Visible::some;
}

// ---- finished rows ---------------------------------------------------------------------------------------------------

// Where row `row` of the tile (within the sequence: `row` counts from row0) belongs.
struct RowPlace {
  int query, head;
  bool inside, there;  // inside: a row of y; there: within the sequence's length
  bool whole;          // all of its keys are this tile's
  KW_DEVICE RowPlace(const Params& p, const Place& place, int row) {
    const int r = place.row0 + row;
    query = r / p.pack;
    head = place.head + r % p.pack;
    inside = query < place.queries;
    there = query < place.len_q;
    whole = place.splits == 1;
  }
};

// Where a row's partial result lies, in rows.
KW_DEVICE int64_t partial_row(const Params& p, const Place& place, const RowPlace& row) {
  return ((int64_t{place.split} * p.batch + place.batch) * p.heads_q + row.head) * p.len_q + place.first_q + row.query;
}

// Columns `column` (even) and the one after it of the row at `offset`, as far as the row has them. pairs: two can be stored at once.
KW_DEVICE void store_pair(void* data, DType dtype, int64_t offset, bool pairs, int column, int columns, float a,
                          float b) {
  if (column >= columns) return;
  const int64_t at = offset + column;
  if (pairs && column + 1 < columns) {
    if (dtype == DType::f32) {
      *reinterpret_cast<float2*>(static_cast<float*>(data) + at) = make_float2(a, b);
    } else {
      *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(data) + at) =
          dtype == DType::bf16 ? pack2<true>(a, b) : pack2<false>(a, b);
    }
  } else {
    store1(data, dtype, at, a);
    if (column + 1 < columns) store1(data, dtype, at + 1, b);
  }
}

// Where the elements of one finished row go.
struct RowTarget {
  void* data;
  DType dtype;
  int64_t offset;
  bool pairs;
  template <class P>
  KW_DEVICE RowTarget(const P& p, const Place& place, const RowPlace& row) {
    const int64_t query = place.first_q + row.query;
    if (!row.whole) {
      data = p.partial_y;
      dtype = DType::f32;
      offset = partial_row(p, place, row) * p.partial_pitch;
      pairs = true;
    } else {
      data = p.y.data;
      dtype = p.y.dtype;
      offset = place.batch * p.y.batch + query * p.y.row + row.head * p.y.head;
      pairs = p.y_pairs;
    }
  }
  // Columns `column` (even) and the one after it, as far as they exist.
  KW_DEVICE void store(const Params& p, int column, float a, float b) const {
    store_pair(data, dtype, offset, pairs, column, p.dim_v, a, b);
  }
};

// By one thread of the row.
template <class P>
KW_DEVICE void store_lse(const P& p, const Place& place, const RowPlace& row, float lse) {
  if (!row.whole) {
    p.partial_lse[partial_row(p, place, row)] = row.there ? lse : -negative_infinity();
  } else if (p.lse.data) {
    static_cast<float*>(
        p.lse.data)[place.batch * p.lse.batch + row.head * p.lse.head + (place.first_q + row.query) * p.lse.row] =
        row.there ? lse : negative_infinity();
  }
}

// A row's sums so far: sum and values are relative to exp(maximum), in the natural domain.
struct RowEnd {
  float factor;  // of the sums of values
  float lse;
  KW_DEVICE RowEnd(const Params& p, const RowPlace& row, float maximum, float sum) {
    float top = maximum;
    const bool sink = p.sink && row.whole && row.there;
    const float sink_logit = sink ? p.sink[row.head] : negative_infinity();
    top = finite_or_zero(fmaxf(top, sink_logit));
    const float weight = expf(maximum - top);
    const float total = fmaf(sum, weight, sink ? expf(sink_logit - top) : 0.0f);
    factor = total == 0 || !row.there ? 0.0f : weight / total;
    lse = top + logf(total);
  }
  // A row that sees nothing is 0 whatever the values it did not see.
  KW_DEVICE float scaled(float value) const { return factor == 0 ? 0.0f : value * factor; }
};

}  // namespace kw::attention_gqa_cuda
