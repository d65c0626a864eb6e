// The `ref` backend of every operator: its definition, rounded once to the dtype of each output. Slow, and right by
// reading.
#pragma once
#include <exception>
#include <string>

#include "../kernels/core/host/convert.h"
#include "../kernels/core/plan.h"
#include "../kernels/core/reference.h"

namespace kw {

template <class Args, void (*define)(const Args&, const RowList&, ReferenceOutputs&)>
class ReferencePlan {
 public:
  static std::string declines(const Args&, const kw_device_info&) { return ""; }
  ReferencePlan(const Args& args, const kw_device_info&) : args_(args) {}
  uint64_t workspace() const { return 0; }
  void rebind(const Args& args, void*) { args_ = args; }
  void enqueue(void*) {
    ReferenceOutputs outputs;
    std::exception_ptr wrong;
    try {
      define(args_, RowList{}, outputs);
    } catch (...) {
      if (outputs.empty()) throw;
      wrong = std::current_exception();  // of values out of range; the rest has been computed
    }
    size_t next = 0;
    for_each_field(args_, [&](const char*, auto& field) {
      using Value = std::remove_reference_t<decltype(field)>;
      if constexpr (std::is_same_v<Value, Tensor> || std::is_same_v<Value, InOutTensor>) {
        if (field.present()) store_rounded(outputs.at(next++).value.data(), field);
      }
    });
    if (wrong) std::rethrow_exception(wrong);
  }
  std::string explain() const { return R"({"variant":"ref","reason":"the definition, in double precision"})"; }

 private:
  Args args_;
};

}  // namespace kw
