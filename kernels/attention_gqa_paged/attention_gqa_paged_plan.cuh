// Attention over a paged cache on CUDA, on the host: how a problem is cut into blocks for a kernel, the workspace and the launches,
// whatever the kernel computes of a block. For attention_gqa_paged and attention_mla.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include "../attention_gqa/attention_gqa_params.cuh"
#include "attention_gqa_paged_merge.cuh"
#include "attention_gqa_paged_shape.h"
#include "attention_gqa_paged_variants.cuh"
#include "attention_gqa_paged_walk.cuh"

namespace kw::attention_gqa_cuda {

constexpr int64_t kLeastShare = 128;   // keys: fewer are not worth a block of their own
constexpr int64_t kFixedShare = 1024;  // keys, with batch_invariant
constexpr int64_t kMostFixed = 64;     // parts with batch_invariant

// Why no kernel takes these tensors; empty when some does. `keys` and `values`: what the operator calls its caches.
inline std::string paged_declines(const char* where, const AttentionGqaPagedArgs& args, const kw_device_info& device,
                                  const char* keys, const char* values) {
  const CheckedTensor tensors[] = {{"q", args.q, kAnyFloat},
                                   {keys, args.k_cache, args.q.dtype},
                                   {values, args.v_cache, args.q.dtype},
                                   {"page_table", args.page_table, DType::i32},
                                   {"lens_kv", args.lens_kv, DType::i32},
                                   {"lens_q", args.lens_q, DType::i32},
                                   {"sink", args.sink, DType::f32},
                                   {"y", args.y, kAnyFloat},
                                   {"lse", args.lse, DType::f32}};
  const std::string reason = refused_tensor(where, device, tensors);
  if (!reason.empty()) return reason;
  const int64_t reach = args.page_table.dim(1) * args.k_cache.dim(1);
  for (const auto& [what, value, most] : {std::tuple{"len_q", args.q.dim(1), int64_t{kMostLength}},
                                          {"max_pages page_size", reach, int64_t{kMostLength}},
                                          {"rows of q", rows_of(args.q), kMostRows},
                                          {"pages", args.k_cache.dim(0), kMostRows},
                                          {"batch max_pages", args.q.dim(0) * args.page_table.dim(1), kMostRows}})
    if (value > most) return expected(where, what, std::to_string(value), "at most " + std::to_string(most));
  return "";
}

class PagedPlan {
 public:
  // A pure function of shapes, strides, alignment and device. names: as Params has them; most_bytes: of workspace.
  void choose(const AttentionGqaPagedArgs& args, const PagedVariant& variant, const char* const* names,
              const kw_device_info& device, int64_t most_bytes) {
    const int64_t page_size = args.k_cache.dim(1), reach = args.page_table.dim(1) * page_size;
    variant_ = variant;
    PagedParams& p = params_;
    p = {};
    static_cast<Params&>(p) = base_params(with_capacity(args));
    p.k.batch = p.v.batch = 0;
    p.k_page = stride(args.k_cache, 0), p.v_page = stride(args.v_cache, 0);
    p.lens_kv = static_cast<const int32_t*>(args.lens_kv.data);
    p.table = static_cast<const int32_t*>(args.page_table.data);
    p.table_batch = stride(args.page_table, 0);
    p.names = names;
    const auto wide = [](Operand o, int64_t page) {
      o.batch = page;
      return aligned(o, 16);
    };
    p.k_wide = wide(p.k, p.k_page), p.v_wide = wide(p.v, p.v_page);
    p.pages = static_cast<int>(args.k_cache.dim(0));
    p.max_pages = static_cast<int>(args.page_table.dim(1));
    p.page_size = static_cast<int>(std::min(page_size, kMostLength + int64_t{1}));
    p.page_shift = 24;
    while (int64_t{1} << (p.page_shift - 24) < p.page_size) ++p.page_shift;
    const int64_t whole = int64_t{1} << p.page_shift;
    p.page_reciprocal = static_cast<uint32_t>(divided(whole, std::max(p.page_size, 1)));

    p.pack = std::max(p.group, 1);  // without heads there is no group
    const int64_t rows = p.heads_q ? int64_t{p.len_q} * p.pack : 0;
    constexpr int64_t kReserved = 1024;  // shared memory the system keeps per block
    const int64_t fit = (static_cast<int64_t>(device.smem_bytes) + kReserved) / (variant_.smem + kReserved);
    blocks_per_sm_ = std::max<int64_t>(1, std::min<int64_t>(variant_.blocks, fit));
    p.tile_rows = variant_.rows, p.tile_keys = variant_.keys;
    p.row_tiles = static_cast<int>(divided(rows, variant_.rows));
    p.partial_pitch = static_cast<int>(divided(p.dim_v, 4) * 4);
    const int64_t tiles = int64_t{p.batch} * p.row_tiles;
    p.splits = 1;
    p.least_share = static_cast<int>(kLeastShare / p.tile_keys);
    p.most_parts = args.splits > 0 ? static_cast<int>(std::min<int64_t>(args.splits, kMostLength)) : kMostLength;
    if (args.batch_invariant) {
      const int64_t keys = std::max(kFixedShare, divided(divided(reach, kMostFixed), p.tile_keys) * p.tile_keys);
      p.fixed_share = static_cast<int>(keys / p.tile_keys);
      // A window may begin in the middle of a tile.
      p.parts = static_cast<int>(tiles * divided(divided(reach, p.tile_keys) + 1, p.fixed_share));
    } else {
      // Two waves of parts, so that the last ones to end are small.
      const int64_t slots = 2 * int64_t{std::max(device.sm_count, 1)} * blocks_per_sm_;
      p.parts = static_cast<int>(divided(slots, std::max(p.heads_kv, 1)));
      if (tiles >= p.parts) p.most_parts = 1;
    }
    if (reach <= kLeastShare || tiles == 0) p.most_parts = 1;
    blocks_ = (tiles + p.parts) * p.heads_kv;
    if (p.most_parts > 1 && bytes() > most_bytes) p.most_parts = 1;
    if (p.most_parts == 1) blocks_ = tiles * p.heads_kv;
  }

  const PagedVariant& variant() const { return variant_; }
  const PagedParams& params() const { return params_; }
  int64_t blocks() const { return blocks_; }

  // What this choice cannot have on the device; empty: nothing.
  std::string declines(const char* where, const kw_device_info& device) const {
    const auto text = [](int64_t value) { return std::to_string(value); };
    if (variant_.smem > static_cast<int64_t>(device.smem_bytes))
      return expected(where, "shared memory per block", text(static_cast<int64_t>(device.smem_bytes)) + " bytes",
                      "at least " + text(variant_.smem));
    if (blocks_ > INT32_MAX)
      return expected(where, "the number of blocks", text(blocks_), "at most " + text(INT32_MAX));
    return "";
  }

  // Of partial results and of where they begin; 0 where no request is cut.
  int64_t bytes() const {
    if (params_.most_parts == 1) return 0;
    const int64_t rows = blocks_ * variant_.rows;
    return rows * (params_.partial_pitch + 1) * 4 + params_.batch * static_cast<int64_t>(sizeof(RequestParts));
  }

  void bind(void* workspace) {
    if (params_.most_parts == 1) return;
    params_.partial_y = static_cast<float*>(workspace);
    params_.partial_lse = params_.partial_y + blocks_ * variant_.rows * params_.partial_pitch;
    params_.requests = reinterpret_cast<RequestParts*>(params_.partial_lse + blocks_ * variant_.rows);
  }

  // run(config, params): launches the kernel that makes the tiles.
  template <class Run>
  void enqueue(void* stream, Run run) {
    if (blocks_ == 0) return;
    PagedParams& p = params_;
    p.status = status_of(stream);
    const Stream at = static_cast<Stream>(stream);
    run({.grid = {static_cast<unsigned>(blocks_)},
         .block = {static_cast<unsigned>(variant_.threads)},
         .smem = static_cast<size_t>(variant_.smem),
         .stream = at},
        p);
    if (p.most_parts == 1) return;
    MergePartsParams m{};
    m.parts = p.partial_y;
    m.part_lse = p.partial_lse;
    m.dtype = DType::f32;
    m.lse_part = int64_t{p.heads_kv} * p.tile_rows;
    m.y_row = p.partial_pitch;
    m.y_part = m.lse_part * m.y_row;
    m.y = p.y.data;
    m.y_dtype = p.y.dtype;
    m.out_batch = p.y.batch, m.out_row = p.y.row, m.out_head = p.y.head;
    m.lse = static_cast<float*>(p.lse.data);
    m.out_lse_batch = p.lse.batch, m.out_lse_head = p.lse.head, m.out_lse_row = p.lse.row;
    m.sink = p.sink;
    m.total = static_cast<unsigned>(int64_t{p.batch} * p.len_q * p.heads_q);
    m.rows = static_cast<unsigned>(p.len_q), m.heads = static_cast<unsigned>(p.heads_q);
    m.columns = p.dim_v;
    m.absent_rows = true;
    m.requests = p.requests;
    m.heads_kv = p.heads_kv, m.group = p.group, m.tile_rows = p.tile_rows;
    constexpr unsigned kRows = kMergeThreads / 32;
    launch({.grid = {(m.total + kRows - 1) / kRows}, .block = {kMergeThreads}, .stream = at}, merge_parts, m);
  }

  std::string explain(const std::string& reason) const {
    const PagedParams& p = params_;
    const auto text = [](int64_t value) { return std::to_string(value); };
    return std::string("{\"variant\":\"") + variant_.name + "\",\"reason\":\"" + reason + "\",\"tile\":[" +
           text(variant_.rows) + "," + text(variant_.keys) + "],\"headDim\":[" + text(variant_.dim) + "," +
           text(variant_.dim_v) + "],\"headsPerTile\":" + text(p.pack) + ",\"parts\":" + text(p.parts) +
           ",\"mostParts\":" + text(p.most_parts) + ",\"partKeys\":" + text(int64_t{p.fixed_share} * p.tile_keys) +
           ",\"threads\":" + text(variant_.threads) + ",\"smemBytes\":" + text(variant_.smem) +
           ",\"blocksPerSm\":" + text(blocks_per_sm_) + ",\"grid\":" + text(blocks_) +
           ",\"asyncCopies\":" + (p.q_wide && p.k_wide && p.v_wide ? "true" : "false") + "}";
  }

 private:
  PagedParams params_{};
  PagedVariant variant_{};
  int64_t blocks_per_sm_ = 0, blocks_ = 0;
};

}  // namespace kw::attention_gqa_cuda
