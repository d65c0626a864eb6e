// A plan of a gemm-like operator through the table, as tests use it.
#pragma once
#include <stdlib.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "harness.h"

namespace kw::test {

// How often each variant ran, alone and, as "NAME in parts", with k in parts.
inline std::map<std::string, int> variants;

// What explain() says under a name, without quotes.
inline std::string explained(const char* json, const char* name) {
  const std::string text = json, key = std::string("\"") + name + "\":";
  const size_t from = text.find(key) + key.size(), quote = text[from] == '"';
  return text.substr(from + quote, text.find_first_of(",\"}", from + quote) - from - quote);
}

// A plan bound to its arguments, with NaN in its workspace. wish: the value of an environment variable while it is chosen;
// configuration: one of the operator's configurations(), or empty.
class BoundPlan {
 public:
  BoundPlan(const Device& d, const kw_op& op, const void* args, const char* variable, const std::string& wish,
            const std::string& configuration = "")
      : d_(d), op_(op) {
    wish.empty() ? unsetenv(variable) : setenv(variable, wish.c_str(), 1);
    int32_t status = op_.supports(&d.info, args);
    if (!status && configuration.empty()) status = op_.plan_create(&d.info, args, &plan_);
    if (!status && !configuration.empty()) status = op_.plan_create_as(&d.info, args, configuration.c_str(), &plan_);
    d.must(status, "plan_create");
    unsetenv(variable);
    bytes_ = op_.plan_workspace(plan_);
    if (bytes_) {
      const std::vector<uint8_t> nan(bytes_, 0xff);
      d.must(d.table->alloc(d.index, bytes_, &workspace_), "alloc");
      d.must(d.table->copy(d.index, workspace_, nan.data(), bytes_, KW_TO_DEVICE, d.stream), "copy");
      d.must(d.sync(), "sync");
    }
    splits_ = std::stoi(explained(op_.plan_explain(plan_), "splits"));
    variant_ = explained(op_.plan_explain(plan_), "variant");
    explanation_ = op_.plan_explain(plan_);
    ++variants[variant_ + (splits_ > 1 ? " in parts" : "")];
    rebind(args);
  }
  BoundPlan(const BoundPlan&) = delete;
  BoundPlan& operator=(const BoundPlan&) = delete;
  ~BoundPlan() {
    if (plan_) op_.plan_destroy(plan_);
    if (workspace_) d_.table->free(d_.index, workspace_);
  }
  void rebind(const void* args) { d_.must(op_.plan_rebind(plan_, args, workspace_), "plan_rebind"); }
  int32_t enqueue() { return op_.plan_enqueue(plan_, d_.stream); }
  // Queued work must not need the plan.
  void destroy() { op_.plan_destroy(std::exchange(plan_, nullptr)); }
  const std::string& variant() const { return variant_; }
  const std::string& explanation() const { return explanation_; }
  int splits() const { return splits_; }
  uint64_t workspace_bytes() const { return bytes_; }
  std::string explain() const { return op_.plan_explain(plan_); }

 private:
  const Device& d_;
  const kw_op& op_;
  kw_plan* plan_ = nullptr;
  void* workspace_ = nullptr;
  uint64_t bytes_ = 0;
  int splits_ = 1;
  std::string variant_, explanation_;
};

}  // namespace kw::test
