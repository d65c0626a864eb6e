// How an operator of libkernwatt_cuda.so and libkernwatt_emu.so enters the library's table: the last line of <op>_cuda.cu is
//
//   KW_REGISTER_OP(GemmArgs, GemmCudaPlan, gemm)
//
// where the plan class is as core/plan.h describes. It runs with the plan's device current: in its constructor, in rebind
// and in enqueue, whose stream is a cudaStream_t, or the emulator's stream.
#pragma once
#include <algorithm>
#include <string_view>
#include <vector>

#include "../plan.h"

namespace kw {

// Makes the device current on the calling thread. The first finds its number by info.uuid, as device_info filled it;
// throws ARGUMENT for a device that is not this library's.
int use_device(const kw_device_info& info);
void use_device(int device);

inline std::vector<const kw_op*>& registered_ops() {
  static std::vector<const kw_op*> ops;
  return ops;
}

// By name, so that a library lists them alike however it was linked.
inline std::vector<const kw_op*> sorted_ops() {
  std::vector<const kw_op*> ops = registered_ops();
  std::sort(ops.begin(), ops.end(), [](auto* a, auto* b) { return std::string_view(a->name) < b->name; });
  return ops;
}

template <class Plan>
class OnDevice {
 public:
  template <class Args>
  static std::string declines(const Args& args, const kw_device_info& info) {
    return Plan::declines(args, info);
  }
  template <class Args>
    requires HasConfigurations<Plan, Args>
  static std::vector<std::string> configurations(const Args& args, const kw_device_info& info) {
    return Plan::configurations(args, info);
  }
  template <class Args>
  OnDevice(const Args& args, const kw_device_info& info) : device_(use_device(info)), plan_(args, info) {}
  template <class Args>
  OnDevice(const Args& args, const kw_device_info& info, const std::string& configuration)
      : device_(use_device(info)), plan_(args, info, configuration) {}
  uint64_t workspace() const { return plan_.workspace(); }
  template <class Args>
  void rebind(const Args& args, void* workspace) {
    use_device(device_);
    plan_.rebind(args, workspace);
  }
  void enqueue(void* stream) {
    use_device(device_);
    plan_.enqueue(stream);
  }
  std::string explain() const { return plan_.explain(); }

 private:
  int device_;
  Plan plan_;
};

}  // namespace kw

#define KW_REGISTER_OP(Args, Plan, name)                                              \
  static const kw_op kw_op_##name = ::kw::make_op<Args, ::kw::OnDevice<Plan>>(#name); \
  [[maybe_unused]] static const bool kw_registered_##name = [] {                      \
    ::kw::registered_ops().push_back(&kw_op_##name);                                  \
    return true;                                                                      \
  }();
