// Keys in pages, and requests of any length shared out evenly, on CUDA: what attention over a paged cache adds to the walk of
// attention_gqa, whatever its head dimensions are. Kernels are attention_gqa's templates over PagedParams.
//
// Shares: every request's tiles of keys are cut into parts of at most `share` tiles, where `share` is what all requests have
// together divided by the parts that fill the device. A part is a block for each key head. Every block finds its own place from the
// lengths, 32 requests at a time, so that the grid depends on capacity alone: there are at most
// requests * row tiles + parts blocks for a key head, and those that are too many end at once.
#pragma once
#include "../attention_gqa/attention_gqa_walk.cuh"

namespace kw::attention_gqa_cuda {

// Where the parts of a request begin: its tiles of rows that are there have `parts` blocks each for a key head, the others one.
struct RequestParts {
  int first, parts, tiles;
};

// len_kv of Params is what a table reaches, k.batch and v.batch are 0, pack is the group, cu_q is null.
struct PagedParams : Params {
  const int32_t* table;
  int64_t table_batch, k_page, v_page;  // elements between requests in the table and between pages
  int page_size, pages, max_pages;
  uint32_t page_reciprocal;  // key / page_size is key * page_reciprocal >> page_shift, for keys below 2^24
  int page_shift;
  int tile_rows, tile_keys;
  int parts;        // that fill the device, for each key head
  int least_share;  // tiles of keys: fewer are not worth a block
  int fixed_share;  // tiles of keys of every part, whatever other requests have; 0: shares are even
  int most_parts;   // of a request's tile of rows
  RequestParts* requests;
};

// What a request has to do: tiles of its rows, and tiles of keys that some of its rows see.
struct Request {
  int len_q, len_kv, row_tiles, key_tiles;
  KW_DEVICE Request(const PagedParams& p, int request) {
    len_q = len_kv = row_tiles = key_tiles = 0;
    if (request >= p.batch) return;
    len_q = p.lens_q ? clamped(p.lens_q[request], 0, p.len_q) : p.len_q;
    len_kv = clamped(p.lens_kv[request], 0, p.len_kv);
    row_tiles = (len_q * p.pack + p.tile_rows - 1) / p.tile_rows;
    const int from = max(0, len_kv - len_q - p.left);
    if (len_q > 0 && len_kv > 0) key_tiles = (len_kv + p.tile_keys - 1) / p.tile_keys - from / p.tile_keys;
  }
};

// Tiles of keys of a part, at most. By a warp.
KW_DEVICE int share_of(const PagedParams& p) {
  if (p.fixed_share) return p.fixed_share;
  if (p.most_parts == 1) return kUnbounded;
  int64_t tiles = 0;
#pragma unroll 1
  for (int request = ptx::lane_id(); request < p.batch; request += 32) {
    const Request r(p, request);
    tiles += int64_t{r.row_tiles} * r.key_tiles;
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) tiles += __shfl_xor_sync(0xffffffffu, tiles, distance);
  return static_cast<int>(min(max((tiles + p.parts - 1) / p.parts, int64_t{p.least_share}), int64_t{kUnbounded}));
}

// The block's place. False: there are fewer parts. By a warp.
KW_DEVICE bool find_place(const PagedParams& p, int, Place& place) {
  const int lane = ptx::lane_id(), share = share_of(p), part = static_cast<int>(blockIdx.x) / p.heads_kv;
  place.kv_head = static_cast<int>(blockIdx.x) % p.heads_kv;
  place.head = place.kv_head * p.group;
  place.first_q = place.first_kv = 0;
  place.queries = p.len_q;
  int before = 0;  // parts of the requests that were looked at
#pragma unroll 1
  for (int base = 0; base < p.batch; base += 32) {
    const Request r(p, base + lane);
    const int parts = min(max(1, (r.key_tiles + share - 1) / share), p.most_parts);
    const int all = base + lane < p.batch ? r.row_tiles * parts + p.row_tiles - r.row_tiles : 0;
    int upto = all;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, upto, distance);
      if (lane >= distance) upto += other;
    }
    const uint32_t found = __ballot_sync(0xffffffffu, part < before + upto);
    if (found) {
      const int source = __ffs(static_cast<int>(found)) - 1;
      const int first = before + __shfl_sync(0xffffffffu, upto - all, source), inside = part - first;
      const int count = __shfl_sync(0xffffffffu, parts, source), tiles = __shfl_sync(0xffffffffu, r.row_tiles, source);
      const bool there = inside < tiles * count;
      place.batch = base + source;
      place.len_q = __shfl_sync(0xffffffffu, r.len_q, source);
      place.len_kv = __shfl_sync(0xffffffffu, r.len_kv, source);
      place.split = there ? inside % count : 0;
      place.splits = there ? count : 1;
      place.row0 = (there ? inside / count : inside - tiles * (count - 1)) * p.tile_rows;
      if (p.most_parts > 1 && inside == 0 && place.kv_head == 0 && lane == 0)
        p.requests[place.batch] = {first, count, tiles};
      return true;
    }
    before += __shfl_sync(0xffffffffu, upto, 31);
  }
  return false;
}

KW_DEVICE int page_entry(const PagedParams& p, int key) {
  return static_cast<int>(static_cast<uint64_t>(static_cast<uint32_t>(key)) * p.page_reciprocal >> p.page_shift);
}

// Pages that this block's rows see, for its first key head; those that are none count as zeros.
KW_DEVICE void check_keys(const PagedParams& p, const Place& place, const Walk& walk, int keys) {
  if (place.kv_head != 0 || walk.begin >= walk.end) return;
  const int from = max(max(0, walk.first - p.left), walk.begin * keys);
  const int to = min(min(place.len_kv, walk.last + p.right + 1), walk.end * keys);
#pragma unroll 1
  for (int entry = page_entry(p, from) + static_cast<int>(threadIdx.x); int64_t{entry} * p.page_size < to;
       entry += static_cast<int>(blockDim.x)) {
    const int page = p.table[place.batch * p.table_batch + entry];
    if (page < 0 || page >= p.pages)
      report_index(p.status, p.names + 4, place.batch * p.max_pages + entry, page, 0, p.pages - 1, p.max_pages);
  }
}

// Rows of keys or values, of a tile that ends `left` of them further.
template <class T>
struct PageLines {
  const PagedParams& p;
  const int32_t* table;
  const T* first;  // of page 0
  int64_t page_step, step;
  int key0, left;
  KW_DEVICE const T* operator()(int line) const {
    if (line >= left) return nullptr;
    const int entry = page_entry(p, key0 + line), page = table[entry];
    if (static_cast<uint32_t>(page) >= static_cast<uint32_t>(p.pages)) return nullptr;
    return first + page * page_step + (key0 + line - entry * p.page_size) * step;
  }
};
template <class T>
KW_DEVICE PageLines<T> keys_from(const PagedParams& p, const Frame& frame, int key0) {
  const Place& place = frame.place;
  return {p,
          p.table + place.batch * p.table_batch,
          static_cast<const T*>(frame.k),
          p.k_page,
          p.k.row,
          key0,
          place.len_kv - key0};
}
template <class T>
KW_DEVICE PageLines<T> values_from(const PagedParams& p, const Frame& frame, int key0) {
  const Place& place = frame.place;
  return {p,
          p.table + place.batch * p.table_batch,
          static_cast<const T*>(frame.v),
          p.v_page,
          p.v.row,
          key0,
          place.len_kv - key0};
}

// Parts have their rows one after the other, in the order of the blocks.
KW_DEVICE int64_t partial_row(const PagedParams& p, const Place& place, const RowPlace& row) {
  return int64_t{blockIdx.x} * p.tile_rows + row.query * p.pack + row.head - place.head - place.row0;
}

}  // namespace kw::attention_gqa_cuda
