// A plan of a gemm-like operator through the table, as tests use it.
#pragma once
#include <stdlib.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "harness.h"

namespace kw::test {

// Some case ran this variant whole, and unless it cannot, with k in parts.
inline void ran(const char* variant, bool whole_alone = false) {
  const std::string parts = variant + std::string(" in parts");
  expect(seen[variant] > 0, std::string("some case runs ") + variant);
  expect(whole_alone || seen[parts] > 0, "some case runs " + parts);
}

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
    ++seen[variant_ + (splits_ > 1 ? " in parts" : "")];
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

// Every configuration that the operator names for a problem takes it, says so and is right; the first is what a plan takes by
// itself. right: runs the plan and compares. Returns how many there are.
template <class Right>
int every_named(const Device& d, const kw_op& op, const void* args, const char* variable, Right right) {
  const char* lines = nullptr;
  d.must(op.configurations(&d.info, args, &lines), "configurations");
  std::istringstream names{std::string(lines)};
  int count = 0;
  for (std::string name; std::getline(names, name); ++count) {
    const auto takes = [&](const BoundPlan& plan) {
      return explained(plan.explain().c_str(), "configuration") == name;
    };
    BoundPlan plan(d, op, args, variable, "", name);
    expect(right(plan) && takes(plan), "as " + name + ": " + plan.explain());
    if (count == 0) expect(takes(BoundPlan(d, op, args, variable, "")), "the first is the plan's own: " + name);
  }
  return count;
}

// A plan of a configuration that is none, or takes no such problem, is refused by its name.
inline void refuses_named(const Device& d, const kw_op& op, const void* args, const char* wrong) {
  kw_plan* none = nullptr;
  const int32_t status = op.plan_create_as(&d.info, args, wrong, &none);
  const std::string said = d.table->last_error();
  expect(status == static_cast<int32_t>(Code::UNSUPPORTED) &&
             said.find(std::string("configuration is ") + wrong + ", expected") != std::string::npos,
         std::string("refused: ") + wrong + ", " + said);
}

}  // namespace kw::test
