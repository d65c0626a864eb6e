// Attention over a paged cache on the CPU, for attention_gqa_paged and operators that are it of something else.
#pragma once
#include <cstdint>
#include <string>

#include "../attention_gqa/attention_gqa_cpu_checks.h"
#include "../attention_gqa/attention_gqa_cpu_engine.h"
#include "attention_gqa_paged_shape.h"

namespace kw::cpu {

class AttentionPagedCpuPlan {
 public:
  // keys, values: what the operator calls its caches.
  static std::string declines(const char* where, const AttentionGqaPagedArgs& args, const char* keys,
                              const char* values) {
    const CheckedTensor scales[] = {{"k_scale", args.k_scale, CheckedTensor::f32},
                                    {"v_scale", args.v_scale, CheckedTensor::f32}};
    const std::string reason = declines_tensors(where, scales, args.q.dtype);
    return reason.empty() ? AttentionCpuEngine::declines(where, with_capacity(args), keys, values, true) : reason;
  }
  AttentionPagedCpuPlan(const char* where, const AttentionGqaPagedArgs& args, const kw_device_info& device)
      : where_(where), engine_(where, with_capacity(args), device, true, "", args.splits) {}
  uint64_t workspace() const { return engine_.workspace(); }
  void rebind(const AttentionGqaPagedArgs& args, void* workspace) {
    args_ = args;
    workspace_ = workspace;
    bind(with_capacity(args));
  }
  void enqueue(void* stream) {
    const AttentionPagedLengths lengths(where_, args_);
    AttentionGqaArgs there = with_capacity(args_);
    there.lens_kv = view_of(lengths.kv);
    if (args_.lens_q.present()) there.lens_q = view_of(lengths.q);
    bind(there);
    engine_.enqueue(stream);
    if (!lengths.wrong.empty()) throw Error(Code::INDEX, lengths.wrong);
  }
  std::string explain() const { return engine_.explain(); }

 private:
  void bind(const AttentionGqaArgs& args) {
    const TensorView& table = args_.page_table;
    engine_.rebind(args, workspace_,
                   {.table = static_cast<const int32_t*>(table.data),
                    .table_batch = table.stride[0],
                    .table_entry = table.stride[1],
                    .size = args_.k_cache.shape[1],
                    .count = args_.k_cache.shape[0],
                    .step_k = args_.k_cache.stride[0],
                    .step_v = args_.v_cache.stride[0],
                    .stored = {args_.k_scale, args_.v_scale}});
  }

  const char* where_;
  AttentionCpuEngine engine_;
  AttentionGqaPagedArgs args_;
  void* workspace_ = nullptr;
};

}  // namespace kw::cpu
