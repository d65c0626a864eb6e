// attention_gqa_paged on CUDA, compute capability 8.0 and up: the kernels of attention_gqa (../attention_gqa/attention_gqa_cuda.cu)
// with keys found through a table of pages, and requests cut into even parts (attention_gqa_paged_walk.cuh).
//
//   attention_mma   bf16, f16; the query heads of a group share tiles of rows. paged_mma_16: up to 16 rows of a key head
//                   (decoding); four warps, each every fourth tile of 16 keys through a ring of its own. paged_mma_64: more.
//                   Compiled for head dimensions 64, 128 and 256; others are padded with zeros, which are not read from memory.
//   attention_fma   f32, IEEE fma.
//   merge_parts     the parts of a request, in their order; rows that one part made are left as they are.
// Every thread looks a key's page up for each 16 bytes that it copies: a load that hits the first-level cache, a multiplication
// in place of a division, so that pages of any size cost the same. The grid depends on capacity alone: a launch can be captured
// in a graph, and serves whatever lengths and tables lie in memory then.
// batch_invariant: parts of 1024 keys (more where a table reaches further than 65536), whatever other requests have.
//
// Limits: tables that reach 2^24 keys; 2^30 rows of y; head dimensions up to 256. 99 KB of shared memory per block at most.
//
// Prediction, not measured: decoding is bound by memory. paged_mma_16 keeps three blocks of four rings with four slots of 4 KB, less
// the one that is read, on a multiprocessor at head dimension 128: 144 KB in flight where 64 KB hide the latency of an H200,
// so 80 % of 4.8 TB/s once keys and values are 200 MB in all, 32 requests of 4096 keys with 8 key heads of 128 (537 MB) in
// 140 us. One request of 1024 keys: 8 us, all of it launches and latency. Integer work is 15 instructions for a copy of 16 bytes:
// 0.6 of the 4 that a multiprocessor issues in a cycle.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "../attention_gqa/attention_gqa_fma.cuh"
#include "../attention_gqa/attention_gqa_params.cuh"
#include "../core/cuda/registry.h"
#include "attention_gqa_paged_merge.cuh"
#include "attention_gqa_paged_shape.h"
#include "attention_gqa_paged_variants.cuh"

namespace kw {
namespace attention_gqa_cuda {

constexpr int64_t kLeastShare = 128;   // keys: fewer are not worth a block of their own
constexpr int64_t kFixedShare = 1024;  // keys, with batch_invariant
constexpr int64_t kMostFixed = 64;     // parts with batch_invariant
constexpr const char* kPagedName = "attention_gqa_paged";
constexpr const char* kPagedNames[] = {"attention_gqa_paged: lens_q", "attention_gqa_paged: lens_kv", nullptr, nullptr,
                                       "attention_gqa_paged: page_table"};

template <int Dim, int N, int Blocks>
PagedVariant paged_fma() {
  using Shape = FmaShape<Dim, N, Blocks>;
  return {"paged_fma_32",
          attention_fma<Shape, PagedParams>,
          Dim,
          Dim,
          Shape::kM,
          N,
          Shape::kThreads,
          Shape::kSmem,
          Blocks,
          1,
          false};
}

PagedVariant paged_variant_for(DType dtype, int64_t dim, int64_t rows) {
  if (dtype == DType::f32)
    return dim <= 64 ? paged_fma<64, 32, 4>() : dim <= 128 ? paged_fma<128, 32, 2>() : paged_fma<256, 16, 2>();
  const bool bf16 = dtype == DType::bf16, few = rows <= 16;
  return dim <= 64 ? paged_64(bf16, few) : dim <= 128 ? paged_128(bf16, few) : paged_256(bf16, few);
}

class AttentionGqaPagedCudaPlan {
 public:
  static std::string declines(const AttentionGqaPagedArgs& args, const kw_device_info& device) {
    const CheckedTensor tensors[] = {{"q", args.q, kAnyFloat},
                                     {"k_cache", args.k_cache, args.q.dtype},
                                     {"v_cache", args.v_cache, args.q.dtype},
                                     {"page_table", args.page_table, DType::i32},
                                     {"lens_kv", args.lens_kv, DType::i32},
                                     {"lens_q", args.lens_q, DType::i32},
                                     {"sink", args.sink, DType::f32},
                                     {"y", args.y, kAnyFloat},
                                     {"lse", args.lse, DType::f32}};
    const std::string refused = refused_by_all(kPagedName, device, tensors, with_capacity(args));
    if (!refused.empty()) return refused;
    const auto text = [](int64_t value) { return std::to_string(value); };
    for (const auto& [what, value] :
         {std::pair{"pages", args.k_cache.dim(0)}, {"batch max_pages", args.q.dim(0) * args.page_table.dim(1)}})
      if (value > kMostRows) return expected(kPagedName, what, text(value), "at most " + text(kMostRows));
    AttentionGqaPagedCudaPlan plan;
    plan.device_ = device;
    plan.choose(args, INT64_MAX);
    if (plan.variant_.smem > static_cast<int64_t>(device.smem_bytes))
      return expected(kPagedName, "shared memory per block", text(static_cast<int64_t>(device.smem_bytes)) + " bytes",
                      "at least " + text(plan.variant_.smem));
    if (plan.blocks_ > INT32_MAX)
      return expected(kPagedName, "the number of blocks", text(plan.blocks_), "at most " + text(INT32_MAX));
    return "";
  }

  AttentionGqaPagedCudaPlan(const AttentionGqaPagedArgs& args, const kw_device_info& device) : device_(device) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    choose(args, INT64_MAX);
    bytes_ = parts_bytes();
  }

  uint64_t workspace() const { return static_cast<uint64_t>(bytes_); }

  void rebind(const AttentionGqaPagedArgs& args, void* workspace) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    choose(args, bytes_);
    prepare(variant_.kernel, static_cast<size_t>(variant_.smem));
    if (params_.most_parts == 1) return;
    params_.partial_y = static_cast<float*>(workspace);
    params_.partial_lse = params_.partial_y + blocks_ * variant_.rows * params_.partial_pitch;
    params_.requests = reinterpret_cast<RequestParts*>(params_.partial_lse + blocks_ * variant_.rows);
  }

  void enqueue(void* stream) {
    if (blocks_ == 0) return;
    PagedParams& p = params_;
    p.status = status_of(stream);
    const Stream at = static_cast<Stream>(stream);
    launch({.grid = {static_cast<unsigned>(blocks_)},
            .block = {static_cast<unsigned>(variant_.threads)},
            .smem = static_cast<size_t>(variant_.smem),
            .stream = at},
           variant_.kernel, p);
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

  std::string explain() const {
    const PagedParams& p = params_;
    const auto text = [](int64_t value) { return std::to_string(value); };
    const char* reason = p.q.dtype == DType::f32 ? "f32 is computed with IEEE fma"
                         : variant_.split_warps  ? "at most 16 rows of a key head: the warps share out the keys"
                                                 : "more than 16 rows of a key head";
    return std::string("{\"variant\":\"") + variant_.name + "\",\"reason\":\"" + reason + "\",\"tile\":[" +
           text(variant_.rows) + "," + text(variant_.keys) + "],\"headDim\":[" + text(variant_.dim) + "," +
           text(variant_.dim_v) + "],\"headsPerTile\":" + text(p.pack) + ",\"parts\":" + text(p.parts) +
           ",\"mostParts\":" + text(p.most_parts) + ",\"partKeys\":" + text(int64_t{p.fixed_share} * p.tile_keys) +
           ",\"threads\":" + text(variant_.threads) + ",\"smemBytes\":" + text(variant_.smem) +
           ",\"blocksPerSm\":" + text(blocks_per_sm_) + ",\"grid\":" + text(blocks_) +
           ",\"asyncCopies\":" + (p.q_wide && p.k_wide && p.v_wide ? "true" : "false") + "}";
  }

 private:
  AttentionGqaPagedCudaPlan() = default;

  // Of partial results and of where they begin; 0 where no request is cut.
  int64_t parts_bytes() const {
    if (params_.most_parts == 1) return 0;
    const int64_t rows = blocks_ * variant_.rows;
    return rows * (params_.partial_pitch + 1) * 4 + params_.batch * static_cast<int64_t>(sizeof(RequestParts));
  }

  // A pure function of shapes, strides, alignment and device; most_bytes: of workspace.
  void choose(const AttentionGqaPagedArgs& args, int64_t most_bytes) {
    const int64_t page_size = args.k_cache.dim(1), reach = args.page_table.dim(1) * page_size;
    PagedParams& p = params_;
    p = {};
    static_cast<Params&>(p) = base_params(with_capacity(args));
    p.k.batch = p.v.batch = 0;
    p.k_page = stride(args.k_cache, 0), p.v_page = stride(args.v_cache, 0);
    p.lens_kv = static_cast<const int32_t*>(args.lens_kv.data);
    p.table = static_cast<const int32_t*>(args.page_table.data);
    p.table_batch = stride(args.page_table, 0);
    p.names = kPagedNames;
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
    const int64_t rows = int64_t{p.len_q} * p.pack;
    variant_ = paged_variant_for(p.q.dtype, std::max(p.dim, p.dim_v), rows);
    constexpr int64_t kReserved = 1024;  // shared memory the system keeps per block
    const int64_t fit = (static_cast<int64_t>(device_.smem_bytes) + kReserved) / (variant_.smem + kReserved);
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
      const int64_t slots = 2 * int64_t{std::max(device_.sm_count, 1)} * blocks_per_sm_;
      p.parts = static_cast<int>(divided(slots, std::max(p.heads_kv, 1)));
      if (tiles >= p.parts) p.most_parts = 1;
    }
    if (reach <= kLeastShare || rows == 0) p.most_parts = 1;
    blocks_ = rows == 0 ? 0 : (tiles + p.parts) * p.heads_kv;
    if (p.most_parts > 1 && parts_bytes() > most_bytes) p.most_parts = 1;
    if (p.most_parts == 1) blocks_ = tiles * p.heads_kv;
  }

  kw_device_info device_{};
  int64_t bytes_ = 0;  // of workspace
  PagedParams params_{};
  PagedVariant variant_{};
  int64_t blocks_per_sm_ = 0, blocks_ = 0;
};

}  // namespace attention_gqa_cuda

KW_REGISTER_OP(AttentionGqaPagedArgs, attention_gqa_cuda::AttentionGqaPagedCudaPlan, attention_gqa_paged)

}  // namespace kw
