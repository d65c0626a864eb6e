// attention_gqa_paged on the CPU: attention_gqa's tasks (../attention_gqa/attention_gqa_cpu.cc) over keys in pages. The keys of a
// request are cut every 512, whatever other requests have, so that tasks are alike however lengths differ, and a result
// depends on its request alone. Keys are read where they lie, 16 at a time, where pages hold a multiple of 16; otherwise
// runs that cross a page are copied into the first-level cache first.
#include <cstdint>
#include <string>

#include "../attention_gqa/attention_gqa_cpu_engine.h"
#include "../core/plan.h"
#include "attention_gqa_paged_shape.h"

namespace kw::cpu {
namespace {

class AttentionGqaPagedCpuPlan {
 public:
  static std::string declines(const AttentionGqaPagedArgs& args, const kw_device_info&) {
    return AttentionCpuEngine::declines("attention_gqa_paged", with_capacity(args), "k_cache", "v_cache");
  }
  AttentionGqaPagedCpuPlan(const AttentionGqaPagedArgs& args, const kw_device_info& device)
      : engine_("attention_gqa_paged", with_capacity(args), device, true) {}
  uint64_t workspace() const { return engine_.workspace(); }
  void rebind(const AttentionGqaPagedArgs& args, void* workspace) {
    args_ = args;
    workspace_ = workspace;
    bind(with_capacity(args));
  }
  void enqueue(void* stream) {
    const AttentionPagedLengths lengths(args_);
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
                    .splits = args_.splits});
  }

  AttentionCpuEngine engine_;
  AttentionGqaPagedArgs args_;
  void* workspace_ = nullptr;
};

}  // namespace

const kw_op& attention_gqa_paged() {
  static constexpr kw_op op = make_op<AttentionGqaPagedArgs, AttentionGqaPagedCpuPlan>("attention_gqa_paged");
  return op;
}

}  // namespace kw::cpu
