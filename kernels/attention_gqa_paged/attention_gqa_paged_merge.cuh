// Joining the parts of requests that attention_gqa_paged_walk.cuh cuts.
#pragma once
#include "../attention_merge/attention_merge.cuh"
#include "attention_gqa_paged_walk.cuh"

namespace kw::attention_gqa_cuda {

// The rows of requests in parts. A warp makes a row, in the order of the parts.
struct MergePartsParams : MergeParams {
  const RequestParts* requests;
  int heads_kv, group, tile_rows;
};

static __global__ void __launch_bounds__(kMergeThreads, 8) merge_parts(const __grid_constant__ MergePartsParams p) {
  const unsigned item = blockIdx.x * (kMergeThreads / 32) + threadIdx.x / 32;
  if (item >= p.total) return;
  const unsigned head = item % p.heads, query = item / p.heads % p.rows, batch = item / p.heads / p.rows;
  const RequestParts r = p.requests[batch];
  const int row = static_cast<int>(query) * p.group + static_cast<int>(head) % p.group, tile = row / p.tile_rows;
  if (r.parts == 1 || tile >= r.tiles) return;  // it was finished where it was computed
  const int64_t block = int64_t{r.first + tile * r.parts} * p.heads_kv + static_cast<int>(head) / p.group;
  const int64_t from = block * p.tile_rows + row % p.tile_rows;
  merge_row(p, head,
            {.count = r.parts,
             .part_lse = p.part_lse + from,
             .from = from * p.y_row,
             .to = batch * p.out_batch + query * p.out_row + head * p.out_head,
             .lse = batch * p.out_lse_batch + head * p.out_lse_head + query * p.out_lse_row});
}

}  // namespace kw::attention_gqa_cuda
