// attention_mla on the CPU: attention_gqa_paged's tasks (../attention_gqa_paged/attention_gqa_paged_cpu.cc) with one key head, whose
// values are the first columns of its keys. With at most 16 rows of a request a run of keys is read once for both, in place; with
// more, keys and values are packed for the micro-kernels of prefill.
#include <string>

#include "../attention_gqa_paged/attention_gqa_paged_cpu.h"
#include "../core/plan.h"
#include "attention_mla_shape.h"

namespace kw::cpu {
namespace {

constexpr const char* kWhere = "attention_mla";

class AttentionMlaCpuPlan {
 public:
  static std::string declines(const AttentionMlaArgs& args, const kw_device_info&) {
    return AttentionPagedCpuPlan::declines(kWhere, paged_of(args), "c_cache", "c_cache");
  }
  AttentionMlaCpuPlan(const AttentionMlaArgs& args, const kw_device_info& device)
      : plan_(kWhere, paged_of(args), device) {}
  uint64_t workspace() const { return plan_.workspace(); }
  void rebind(const AttentionMlaArgs& args, void* workspace) { plan_.rebind(paged_of(args), workspace); }
  void enqueue(void* stream) { plan_.enqueue(stream); }
  std::string explain() const { return plan_.explain(); }

 private:
  AttentionPagedCpuPlan plan_;
};

}  // namespace

const kw_op& attention_mla() {
  static constexpr kw_op op = make_op<AttentionMlaArgs, AttentionMlaCpuPlan>("attention_mla");
  return op;
}

}  // namespace kw::cpu
