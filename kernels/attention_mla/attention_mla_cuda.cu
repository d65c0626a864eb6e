// attention_mla on CUDA, compute capability 8.0 and up.
//
// Work: rows are (query, head) pairs of a request, all of which read the same rows of the cache, once for keys and values.
// How requests are cut into parts of equal length, how pages are found and how parts are merged is attention_gqa_paged's
// (../attention_gqa_paged/attention_gqa_paged_plan.cuh), with one key head; blocks that share keys follow each other, so that the second
// tile of rows finds them in L2.
//   attention_mla_mma   bf16, f16. m16n8k16, ldmatrix, XOR swizzle, a ring of rows of the cache by cp.async. The warps of 16 rows
//                       share out a tile's keys for S = Q Cᵀ and the columns for O += P C; P and the maxima meet in shared memory.
//                         mla_64   64 rows by 32 keys, 8 warps: 4 x 16 rows, two by two halves of keys and columns
//                         mla_32   32 rows by 32 keys, 8 warps: quarters
//                         mla_16   16 rows by 32 keys, 4 warps: quarters; 99 KB of shared memory are enough
//                       Compiled for 576 / 512, 320 / 256 and 192 / 128 columns; others are padded with zeros.
//   attention_mla_fma   f32: 16 rows by 16 keys, IEEE fma, accurate exp. No TF32.
//   attention_mla_sm90  compute capability 9.0, more than 32 rows of 321 columns and up: attention_mla_sm90.cu
// batch_invariant: parts of 1024 keys (more where a table reaches further than 65536), whatever other requests have.
//
// Limits: those of attention_gqa_paged. Shared memory per block at 576 columns: mla_64 150 KB, mla_32 112, mla_16 94, f32 74.
//
// Prediction, not measured: 2 (dim + latent) FLOPs for each row and key; 1152 bytes a key of 512 + 64 in bf16. mla_64 does 136
// products of m16n8k16 a warp for a tile, 2180 cycles of an A100's tensor cores, and three meetings of the block with a softmax
// of 8 scores a thread between them, some 700 cycles: 70-75 % of what mma.sync reaches, 130-160 TFLOP/s of an A100's 312 and
// 250-300 on an H200. mla_16 keeps 37 KB in flight on an SM: 50-60 % of an A100's bandwidth, less on an H200, where up to 32 heads
// read at 2.5-3 TB/s.
#include <algorithm>
#include <memory>
#include <string>
#include <tuple>

#include "../attention_gqa_paged/attention_gqa_paged_plan.cuh"
#include "../core/cuda/registry.h"
#include "../core/cuda/sm90.h"
#include "attention_mla_fma.cuh"
#include "attention_mla_mma.cuh"
#include "attention_mla_shape.h"
#include "attention_mla_sm90.h"

namespace kw {
namespace attention_mla_cuda {

constexpr const char* kWhere = "attention_mla";
constexpr const char* kNames[] = {"attention_mla: lens_q", "attention_mla: lens_kv", nullptr, nullptr,
                                  "attention_mla: page_table"};

template <bool kBf16, class Shape>
PagedVariant mma_variant(const char* name) {
  return {name,
          attention_mla_mma<kBf16, Shape>,
          Shape::kDim,
          Shape::kDimV,
          Shape::kM,
          Shape::kN,
          Shape::kThreads,
          Shape::kSmem,
          1,
          1,
          false};
}

// The tallest tile that rows fill and shared memory holds.
template <int Dim, int DimV>
PagedVariant mma_variant_for(bool bf16, int64_t rows, const kw_device_info& device) {
  using Tall = LatentShape<Dim, DimV, 4, 2, 32, 2>;
  using Middle = LatentShape<Dim, DimV, 2, 4, 32, 2>;
  using Low = LatentShape<Dim, DimV, 1, 4, 32, 2>;
  const auto fits = [&](int smem) { return static_cast<uint64_t>(smem) <= device.smem_bytes; };
  if (rows > 32 && fits(Tall::kSmem))
    return bf16 ? mma_variant<true, Tall>("mla_64") : mma_variant<false, Tall>("mla_64");
  if (rows > 16 && fits(Middle::kSmem))
    return bf16 ? mma_variant<true, Middle>("mla_32") : mma_variant<false, Middle>("mla_32");
  return bf16 ? mma_variant<true, Low>("mla_16") : mma_variant<false, Low>("mla_16");
}

template <int Dim, int DimV>
PagedVariant fma_variant() {
  using Shape = LatentFmaShape<Dim, DimV>;
  return {"mla_fma_16", attention_mla_fma<Shape>, Dim, DimV, Shape::kM, Shape::kN, Shape::kThreads, Shape::kSmem, 1, 1,
          false};
}

PagedVariant variant_for(const AttentionMlaArgs& a, const kw_device_info& device) {
  const int64_t dim = a.q.dim(3), rows = a.q.dim(1) * a.q.dim(2);
  if (a.q.dtype == DType::f32) {
    if (dim <= 192 && a.latent <= 128) return fma_variant<192, 128>();
    return dim <= 320 && a.latent <= 256 ? fma_variant<320, 256>() : fma_variant<576, 512>();
  }
  const bool bf16 = a.q.dtype == DType::bf16;
  if (dim <= 192 && a.latent <= 128) return mma_variant_for<192, 128>(bf16, rows, device);
  if (dim <= 320 && a.latent <= 256) return mma_variant_for<320, 256>(bf16, rows, device);
  return mma_variant_for<576, 512>(bf16, rows, device);
}

PagedVariant sm90_variant() {
  using C = Sm90Configuration;
  return {C::kName, nullptr, C::kDim, C::kDimV, C::kRows, C::kKeys, C::kThreads, C::kSmem, 1, 1, false};
}

class AttentionMlaCudaPlan {
 public:
  static std::string declines(const AttentionMlaArgs& args, const kw_device_info& device) {
    const AttentionGqaPagedArgs paged = paged_of(args);
    const std::string reason = paged_declines(kWhere, paged, device, "c_cache", "c_cache");
    if (!reason.empty()) return reason;
    const auto text = [](int64_t value) { return std::to_string(value); };
    for (const auto& [what, value, most] : {std::tuple{"dim", args.q.dim(3), int64_t{576}},
                                            {"latent", args.latent, std::min<int64_t>(512, args.q.dim(3))}})
      if (value < 1 || value > most) return expected(kWhere, what, text(value), "1 to " + text(most));
    AttentionMlaCudaPlan plan;
    plan.device_ = device;
    plan.choose(args, INT64_MAX);
    return plan.plan_.declines(kWhere, device);
  }

  AttentionMlaCudaPlan(const AttentionMlaArgs& args, const kw_device_info& device) : device_(device) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    choose(args, INT64_MAX);
    bytes_ = plan_.bytes();
  }

  uint64_t workspace() const { return static_cast<uint64_t>(bytes_); }

  void rebind(const AttentionMlaArgs& args, void* workspace) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    choose(args, bytes_);
    plan_.bind(workspace);
    if (is_sm90_)
      sm90_.bind(plan_.params());
    else
      prepare(plan_.variant().kernel, static_cast<size_t>(plan_.variant().smem));
  }

  void enqueue(void* stream) {
    plan_.enqueue(stream, [&](const LaunchConfig& config, const PagedParams& p) {
      if (is_sm90_)
        sm90_.enqueue(config, p);
      else
        launch(config, plan_.variant().kernel, p);
    });
  }

  std::string explain() const {
    const char* why = plan_.params().q.dtype == DType::f32 ? "f32 is computed with IEEE fma"
                                                           : "the tallest tile that the rows of a step fill";
    return plan_.explain(why + (device_.cc_major == 9 && !is_sm90_ ? "; no kernel for 9.0: " + no_sm90_ : ""));
  }

 private:
  AttentionMlaCudaPlan() = default;

  void choose(const AttentionMlaArgs& args, int64_t most_bytes) {
    no_sm90_ = sm90_unavailable(device_);
    if (no_sm90_.empty()) no_sm90_ = sm90_declines(args, device_);
    is_sm90_ = no_sm90_.empty();
    plan_.choose(paged_of(args), is_sm90_ ? sm90_variant() : variant_for(args, device_), kNames, device_, most_bytes);
  }

  kw_device_info device_{};
  int64_t bytes_ = 0;  // of workspace
  PagedPlan plan_;
  bool is_sm90_ = false;
  std::string no_sm90_;
  Sm90Launch sm90_;
};

}  // namespace attention_mla_cuda

KW_REGISTER_OP(AttentionMlaArgs, attention_mla_cuda::AttentionMlaCudaPlan, attention_mla)

}  // namespace kw
