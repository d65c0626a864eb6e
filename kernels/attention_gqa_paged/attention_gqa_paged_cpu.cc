// attention_gqa_paged on the CPU: attention_gqa's tasks (../attention_gqa/attention_gqa_cpu.cc) over keys in pages. The keys of a
// request are cut every 512, whatever other requests have, so that tasks are alike however lengths differ, and a result
// depends on its request alone. Keys are read where they lie, 16 at a time, where pages hold a multiple of 16; otherwise
// runs that cross a page are copied into the first-level cache first. f8e4m3 is converted to the dtype of q in that copy, whatever pages
// hold: exact, and 12 instructions for 32 elements with AVX-512.
#include "attention_gqa_paged_cpu.h"

#include "../core/plan.h"

namespace kw::cpu {
namespace {

class AttentionGqaPagedCpuPlan : public AttentionPagedCpuPlan {
 public:
  static std::string declines(const AttentionGqaPagedArgs& args, const kw_device_info&) {
    return AttentionPagedCpuPlan::declines("attention_gqa_paged", args, "k_cache", "v_cache");
  }
  AttentionGqaPagedCpuPlan(const AttentionGqaPagedArgs& args, const kw_device_info& device)
      : AttentionPagedCpuPlan("attention_gqa_paged", args, device) {}
};

}  // namespace

const kw_op& attention_gqa_paged() {
  static constexpr kw_op op = make_op<AttentionGqaPagedArgs, AttentionGqaPagedCpuPlan>("attention_gqa_paged");
  return op;
}

}  // namespace kw::cpu
