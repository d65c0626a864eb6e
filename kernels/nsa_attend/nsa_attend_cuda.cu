// nsa_attend on CUDA, compute capability 8.0 and up: the kernels of attention_gqa (../attention_gqa/attention_gqa_cuda.cu) for one query,
// with the blocks that it names for pages (nsa_attend_walk.cuh).
//
//   attention_mma   bf16, f16: nsa_mma_16, up to 16 heads of a group for a query; four warps, each every fourth tile of 16 keys through a ring
//                   of its own, merged at the end. A group of more heads takes as many blocks as it fills, one after the other.
//                   Compiled for head dimensions 64, 128 and 256; others are padded with zeros, which are not read from memory.
//   attention_fma   f32, IEEE fma: nsa_fma_32.
// A block's first warp adds up which keys its entries stand for; every thread finds a key's block by a multiplication and a load that
// hits the first-level cache. Queries of a key head follow each other: what neighbours choose alike is in L2.
//
// Limits: sequences of 2^24 keys, blocks' entries times their size too; 2^30 rows of y; head dimensions up to 256.
//
// Prediction, not measured: every query reads its keys from L2, count block (dim + dim_v) elements of a key head: 64 / 4 heads of 128, 16
// blocks of 64: 524 KB for each query and key head, 137 GB for 64k tokens, 25-30 ms at 4.5 to 5.5 TB/s of an H200's L2, where the products
// alone would take 2.2 TFLOP / 500 TFLOP/s = 4.4 ms. Groups of fewer than 16 heads leave rows of the tiles empty and cost the same. What
// would help is sharing keys between neighbouring queries, a kernel of its own.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "../attention_gqa/attention_gqa_fma.cuh"
#include "../attention_gqa/attention_gqa_params.cuh"
#include "../core/cuda/registry.h"
#include "nsa_attend.h"
#include "nsa_attend_variants.cuh"

namespace kw {
namespace attention_gqa_cuda {

constexpr const char* kSelected = "nsa_attend";
constexpr const char* kSelectedNames[] = {"nsa_attend: lens_q", "nsa_attend: lens_kv"};
constexpr const char* kSelectedBlocks[] = {"nsa_attend: blocks"};

template <int Dim, int N, int Blocks>
SelectedVariant selected_fma() {
  using Shape = FmaShape<Dim, N, Blocks>;
  return {"nsa_fma_32",
          attention_fma<Shape, SelectedParams>,
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

SelectedVariant selected_variant_for(DType dtype, int64_t dim) {
  if (dtype == DType::f32)
    return dim <= 64 ? selected_fma<64, 32, 4>() : dim <= 128 ? selected_fma<128, 32, 2>() : selected_fma<256, 16, 2>();
  const bool bf16 = dtype == DType::bf16;
  return dim <= 64 ? selected_64(bf16) : dim <= 128 ? selected_128(bf16) : selected_256(bf16);
}

AttentionGqaArgs whole_of(const NsaAttendArgs& a) {
  AttentionGqaArgs to;
  to.q = a.q, to.k = a.k, to.v = a.v, to.y = a.y, to.lse = a.lse;
  to.lens_q = a.lens_q, to.lens_kv = a.lens_kv;
  to.scale = a.scale;
  to.causal = true;  // of a row's own keys it sees up to the last
  return to;
}

class NsaAttendCudaPlan {
 public:
  static std::string declines(const NsaAttendArgs& args, const kw_device_info& device) {
    const CheckedTensor tensors[] = {{"q", args.q, kAnyFloat},
                                     {"k", args.k, args.q.dtype},
                                     {"v", args.v, args.q.dtype},
                                     {"blocks", args.blocks, DType::i32},
                                     {"lens_q", args.lens_q, DType::i32},
                                     {"lens_kv", args.lens_kv, DType::i32},
                                     {"y", args.y, kAnyFloat},
                                     {"lse", args.lse, DType::f32}};
    const std::string reason = refused_tensor(kSelected, device, tensors);
    if (!reason.empty()) return reason;
    const auto text = [](int64_t value) { return std::to_string(value); };
    for (const auto& [what, value] : {std::pair{"dim", args.q.dim(3)}, {"dim_v", args.v.dim(3)}})
      if (value < 1 || value > 256) return expected(kSelected, what, text(value), "1 to 256 (compiled: 64, 128, 256)");
    const SelectedVariant variant = selected_variant_for(args.q.dtype, std::max(args.q.dim(3), args.v.dim(3)));
    if (variant.smem > static_cast<int64_t>(device.smem_bytes))
      return expected(kSelected, "shared memory per block", text(static_cast<int64_t>(device.smem_bytes)) + " bytes",
                      "at least " + text(variant.smem));
    for (const auto& [what, value, most] : {std::tuple{"len_q", args.q.dim(1), int64_t{kMostLength}},
                                            {"len_kv", args.k.dim(1), int64_t{kMostLength}},
                                            {"block", args.block, int64_t{kMostLength}},
                                            {"count block", args.blocks.dim(3) * args.block, int64_t{kMostLength}},
                                            {"rows of q", rows_of(args.q), kMostRows},
                                            {"entries of blocks", args.blocks.count(), int64_t{INT32_MAX}}})
      if (value > most) return expected(kSelected, what, text(value), "at most " + text(most));
    return "";
  }

  NsaAttendCudaPlan(const NsaAttendArgs& args, const kw_device_info& device) : device_(device) {
    rebind(args, nullptr);
  }

  uint64_t workspace() const { return 0; }

  void rebind(const NsaAttendArgs& args, void*) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    variant_ = selected_variant_for(args.q.dtype, std::max(args.q.dim(3), args.v.dim(3)));
    SelectedParams& p = params_;
    p = {};
    static_cast<Params&>(p) = base_params(whole_of(args));
    p.names = kSelectedNames, p.blocks_name = kSelectedBlocks;
    p.table = static_cast<const int32_t*>(args.blocks.data);
    p.table_batch = stride(args.blocks, 0), p.table_query = stride(args.blocks, 1);
    p.table_head = stride(args.blocks, 2);
    p.max_pages = static_cast<int>(args.blocks.dim(3));
    p.page_size = static_cast<int>(args.block);
    p.pages = static_cast<int>(divided(args.k.dim(1), args.block));
    p.k_page = args.block * p.k.row, p.v_page = args.block * p.v.row;
    p.page_shift = 24;
    while (int64_t{1} << (p.page_shift - 24) < p.page_size) ++p.page_shift;
    p.page_reciprocal = static_cast<uint32_t>(divided(int64_t{1} << p.page_shift, p.page_size));
    p.causal = args.causal;
    p.pack = std::max(p.group, 1);
    p.tile_rows = variant_.rows, p.tile_keys = variant_.keys;
    p.row_tiles = static_cast<int>(divided(p.group, variant_.rows));
    p.splits = p.most_parts = 1;
    blocks_ = int64_t{p.batch} * p.heads_kv * p.len_q * p.row_tiles;
    prepare(variant_.kernel, static_cast<size_t>(variant_.smem));
  }

  void enqueue(void* stream) {
    if (blocks_ == 0) return;
    params_.status = status_of(stream);
    launch({.grid = {static_cast<unsigned>(blocks_)},
            .block = {static_cast<unsigned>(variant_.threads)},
            .smem = static_cast<size_t>(variant_.smem),
            .stream = static_cast<Stream>(stream)},
           variant_.kernel, params_);
  }

  std::string explain() const {
    const auto text = [](int64_t value) { return std::to_string(value); };
    return std::string("{\"variant\":\"") + variant_.name +
           "\",\"reason\":\"a block has a query and the heads of a group\",\"tile\":[" + text(variant_.rows) + "," +
           text(variant_.keys) + "],\"headDim\":[" + text(variant_.dim) + "," + text(variant_.dim_v) +
           "],\"headsPerTile\":" + text(std::min(params_.pack, variant_.rows)) +
           ",\"threads\":" + text(variant_.threads) + ",\"smemBytes\":" + text(variant_.smem) +
           ",\"grid\":" + text(blocks_) + "}";
  }

 private:
  kw_device_info device_{};
  SelectedParams params_{};
  SelectedVariant variant_{};
  int64_t blocks_ = 0;
};

}  // namespace attention_gqa_cuda

KW_REGISTER_OP(NsaAttendArgs, attention_gqa_cuda::NsaAttendCudaPlan, nsa_attend)

}  // namespace kw
