// Keys in blocks that a query names, on CUDA: attention_gqa's templates over SelectedParams. A block of threads has the query heads of
// one key head and one query; the blocks of keys that these see are the pages of its table.
#pragma once
#include "../attention_gqa_paged/attention_gqa_paged_walk.cuh"

namespace kw::attention_gqa_cuda {

// table: blocks; pages: reach; max_pages: count. pack is the group.
struct SelectedParams : PagedParams {
  int64_t table_query, table_head;
  bool causal;
  const char* const* blocks_name;  // for status
};

KW_DEVICE const int32_t* selected_table(const SelectedParams& p, const Place& place) {
  return p.table + place.batch * p.table_batch + place.first_q * p.table_query + place.kv_head * p.table_head;
}

// The keys that the entries of a row stand for, of the first `visible`. By a warp; `speaks`: reports an entry that is none.
KW_DEVICE int selected_keys(const SelectedParams& p, const Place& place, int visible, bool speaks) {
  const int32_t* table = selected_table(p, place);
  const int lane = ptx::lane_id();
  int keys = 0, before = -1;  // the entry before this round
#pragma unroll 1
  for (int base = 0; base < p.max_pages; base += 32) {
    const int n = base + lane, entry = n < p.max_pages ? table[n] : -1;
    int low = __shfl_up_sync(0xffffffffu, entry, 1);
    if (lane == 0) low = before;
    ++low;
    const bool there = entry >= low && entry < p.pages;
    const uint32_t gone = __ballot_sync(0xffffffffu, !there);
    const int count = gone ? __ffs(static_cast<int>(gone)) - 1 : 32;
    if (speaks && lane == count && entry != -1) {
      const int lowest = low < p.pages ? low : -1, row = (place.batch * p.len_q + place.first_q) * p.heads_kv;
      report_index(p.status, p.blocks_name, (row + place.kv_head) * p.max_pages + n, entry, lowest,
                   lowest < 0 ? -1 : p.pages - 1, p.max_pages);
    }
    int mine = lane < count ? clamped(visible - entry * p.page_size, 0, p.page_size) : 0;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, distance);
    keys += mine;
    if (gone) break;
    before = __shfl_sync(0xffffffffu, entry, 31);
  }
  return keys;
}

// Queries of a key head follow each other, so that those which run at the same time find blocks they share in L2.
KW_DEVICE bool find_place(const SelectedParams& p, int rows_of_tile, Place& place) {
  unsigned index = blockIdx.x;
  const int tile = static_cast<int>(index % p.row_tiles);
  index /= p.row_tiles;
  place.first_q = static_cast<int>(index % p.len_q);
  index /= p.len_q;
  place.kv_head = static_cast<int>(index % p.heads_kv);
  place.batch = static_cast<int>(index / p.heads_kv);
  place.head = place.kv_head * p.group;
  place.row0 = tile * rows_of_tile;
  place.first_kv = 0;
  place.queries = 1;
  const int len_q = p.lens_q ? clamped(p.lens_q[place.batch], 0, p.len_q) : p.len_q;
  const int len_kv = p.lens_kv ? clamped(p.lens_kv[place.batch], 0, p.len_kv) : p.len_kv;
  place.len_q = place.first_q < len_q ? 1 : 0;
  const int visible = p.causal ? clamped(place.first_q + len_kv - len_q + 1, 0, len_kv) : len_kv;
  place.len_kv = place.len_q ? selected_keys(p, place, visible, tile == 0) : 0;
  return true;
}

KW_DEVICE void check_keys(const SelectedParams&, const Place&, const Walk&, int) {}

template <class T>
KW_DEVICE PageLines<T> keys_from(const SelectedParams& p, const Frame& frame, int key0) {
  return {p,    selected_table(p, frame.place), static_cast<const T*>(frame.k), p.k_page, p.k.row,
          key0, frame.place.len_kv - key0};
}
template <class T>
KW_DEVICE PageLines<T> values_from(const SelectedParams& p, const Frame& frame, int key0) {
  return {p,    selected_table(p, frame.place), static_cast<const T*>(frame.v), p.v_page, p.v.row,
          key0, frame.place.len_kv - key0};
}

}  // namespace kw::attention_gqa_cuda
