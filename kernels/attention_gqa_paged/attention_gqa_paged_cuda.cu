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

#include "../attention_gqa/attention_gqa_fma.cuh"
#include "../core/cuda/registry.h"
#include "attention_gqa_paged_plan.cuh"
#include "attention_gqa_paged_variants.cuh"

namespace kw {
namespace attention_gqa_cuda {

constexpr const char* kPaged = "attention_gqa_paged";
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
    const std::string reason = paged_declines(kPaged, args, device, "k_cache", "v_cache");
    if (!reason.empty()) return reason;
    for (const auto& [what, value] : {std::pair{"dim", args.q.dim(3)}, {"dim_v", args.v_cache.dim(3)}})
      if (value < 1 || value > 256)
        return expected(kPaged, what, std::to_string(value), "1 to 256 (compiled: 64, 128, 256)");
    return chosen(args, device, INT64_MAX).declines(kPaged, device);
  }

  AttentionGqaPagedCudaPlan(const AttentionGqaPagedArgs& args, const kw_device_info& device) : device_(device) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    plan_ = chosen(args, device_, INT64_MAX);
    bytes_ = plan_.bytes();
  }

  uint64_t workspace() const { return static_cast<uint64_t>(bytes_); }

  void rebind(const AttentionGqaPagedArgs& args, void* workspace) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    plan_ = chosen(args, device_, bytes_);
    plan_.bind(workspace);
    prepare(plan_.variant().kernel, static_cast<size_t>(plan_.variant().smem));
  }

  void enqueue(void* stream) {
    plan_.enqueue(stream,
                  [&](const LaunchConfig& config, const PagedParams& p) { launch(config, plan_.variant().kernel, p); });
  }

  std::string explain() const {
    return plan_.explain(plan_.params().q.dtype == DType::f32 ? "f32 is computed with IEEE fma"
                         : plan_.variant().split_warps ? "at most 16 rows of a key head: the warps share out the keys"
                                                       : "more than 16 rows of a key head");
  }

 private:
  static PagedPlan chosen(const AttentionGqaPagedArgs& args, const kw_device_info& device, int64_t most_bytes) {
    const int64_t heads_kv = args.k_cache.dim(2), rows = heads_kv ? args.q.dim(1) * (args.q.dim(2) / heads_kv) : 0;
    const PagedVariant variant = paged_variant_for(args.q.dtype, std::max(args.q.dim(3), args.v_cache.dim(3)), rows);
    PagedPlan plan;
    plan.choose(args, variant, kPagedNames, device, most_bytes);
    return plan;
  }

  kw_device_info device_{};
  int64_t bytes_ = 0;  // of workspace
  PagedPlan plan_;
};

}  // namespace attention_gqa_cuda

KW_REGISTER_OP(AttentionGqaPagedArgs, attention_gqa_cuda::AttentionGqaPagedCudaPlan, attention_gqa_paged)

}  // namespace kw
