// attention_merge on CUDA, any compute capability from 8.0.
//
// Work: a warp makes a row: the lanes take a part each for the weights, then 32 neighbouring columns each, parts in order,
// with 8 loads per lane in flight. Every access to y_parts and y is one element per lane, so no alignment is asked for.
//
// Limits: fewer than 2^31 rows. Needs no shared memory.
//
// Prediction, not measured: every operand once, 0.5 FLOP a byte of f32: bound by memory; 70-80 % of bandwidth once the parts
// are some tens of MB, launch latency (2-3 us) below 1 MB.
#include "../core/cuda/registry.h"
#include "attention_merge.cuh"
#include "attention_merge.h"

namespace kw {
namespace attention_merge_cuda {

// Dimensions that hold at most one element have no stride.
int64_t stride(const TensorView& t, int dimension) { return t.dim(dimension) > 1 ? t.step(dimension) : 0; }

class AttentionMergeCudaPlan {
 public:
  static std::string declines(const AttentionMergeArgs& args, const kw_device_info& device) {
    const auto expected = [](const std::string& what, const std::string& received, const std::string& wanted) {
      return "attention_merge cuda: " + what + " is " + received + ", expected " + wanted;
    };
    if (device.cc_major < 8)
      return expected("compute capability", std::to_string(device.cc_major) + "." + std::to_string(device.cc_minor),
                      "at least 8.0");
    const struct {
      const char* name;
      const TensorView& view;
      bool f32;
    } tensors[] = {{"y_parts", args.y_parts, false},
                   {"lse_parts", args.lse_parts, true},
                   {"y", args.y, false},
                   {"lse", args.lse, true}};
    for (const auto& t : tensors) {
      const DType type = t.view.dtype;
      if (t.f32 ? type != DType::f32 : type != DType::f32 && type != DType::f16 && type != DType::bf16)
        return expected(std::string("dtype of ") + t.name, name(type), t.f32 ? "f32" : "f32, f16 or bf16");
      if (!t.f32 && t.view.dim(-1) > 1 && t.view.step(-1) != 1)
        return expected(std::string("the last stride of ") + t.name, std::to_string(t.view.step(-1)), "1");
    }
    for (const auto& [what, value] : {std::pair{"rows of y", args.y.dim(0) * args.y.dim(1) * args.y.dim(2)},
                                      {"parts", args.y_parts.dim(0)},
                                      {"dim_v", args.y.dim(3)}})
      if (value >= int64_t{1} << 31) return expected(what, std::to_string(value), "below 2^31");
    return "";
  }

  AttentionMergeCudaPlan(const AttentionMergeArgs& args, const kw_device_info& device) : device_(device) {
    rebind(args, nullptr);
  }

  uint64_t workspace() const { return 0; }

  void rebind(const AttentionMergeArgs& args, void*) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    MergeParams& p = params_;
    p = {};
    p.parts = args.y_parts.data;
    p.dtype = args.y_parts.dtype;
    p.y_part = stride(args.y_parts, 0);
    p.y_batch = stride(args.y_parts, 1);
    p.y_row = stride(args.y_parts, 2);
    p.y_head = stride(args.y_parts, 3);
    p.part_lse = static_cast<const float*>(args.lse_parts.data);
    p.lse_part = stride(args.lse_parts, 0);
    p.lse_batch = stride(args.lse_parts, 1);
    p.lse_head = stride(args.lse_parts, 2);
    p.lse_row = stride(args.lse_parts, 3);
    p.y = args.y.data;
    p.y_dtype = args.y.dtype;
    p.out_batch = stride(args.y, 0);
    p.out_row = stride(args.y, 1);
    p.out_head = stride(args.y, 2);
    p.lse = static_cast<float*>(args.lse.data);
    p.out_lse_batch = stride(args.lse, 0);
    p.out_lse_head = stride(args.lse, 1);
    p.out_lse_row = stride(args.lse, 2);
    p.rows = static_cast<unsigned>(args.y.dim(1));
    p.heads = static_cast<unsigned>(args.y.dim(2));
    p.columns = static_cast<int>(args.y.dim(3));
    p.count = static_cast<int>(args.y_parts.dim(0));
    p.total = static_cast<unsigned>(args.y.dim(0)) * p.rows * p.heads;
  }

  void enqueue(void* stream) { launch_merge(params_, static_cast<Stream>(stream)); }

  std::string explain() const {
    return "{\"variant\":\"merge_rows\",\"reason\":\"a warp makes a row\",\"threads\":" +
           std::to_string(kMergeThreads) + ",\"grid\":" + std::to_string((params_.total + 3) / 4) + "}";
  }

 private:
  kw_device_info device_;
  MergeParams params_;
};

}  // namespace attention_merge_cuda

KW_REGISTER_OP(AttentionMergeArgs, attention_merge_cuda::AttentionMergeCudaPlan, attention_merge)

}  // namespace kw
