// Turns a plan class into the C table entry (abi.h): the one place where kernel exceptions become status codes.
//
//   struct GemmCpuPlan {
//     static std::string declines(const GemmArgs&, const kw_device_info&);  // empty: runs it; else the reason
//     GemmCpuPlan(const GemmArgs&, const kw_device_info&);
//     uint64_t workspace() const;
//     void rebind(const GemmArgs&, void* workspace);
//     void enqueue(void* stream);
//     std::string explain() const;                                          // a JSON object
//     // Optional: the format (packed.h) in which an operand is fastest, or 0.
//     static uint64_t format(const kw_device_info&, const char* operand, const TensorView& plain);
//     // Optional, both: the names of the ways in which a problem can be computed, the plan's own choice first, and a plan
//     // that takes one of them.
//     static std::vector<std::string> configurations(const GemmArgs&, const kw_device_info&);
//     GemmCpuPlan(const GemmArgs&, const kw_device_info&, const std::string& configuration);
//   };
//   const kw_op kGemmCpu = make_op<GemmArgs, GemmCpuPlan>("gemm");
#pragma once
#include <concepts>
#include <new>
#include <string>
#include <vector>

#include "abi.h"
#include "error.h"
#include "tensor.h"

namespace kw {

inline std::string& last_error() {
  static thread_local std::string message;
  return message;
}

template <class Body>
int32_t guarded(Body&& body) noexcept {
  try {
    body();
    return static_cast<int32_t>(Code::OK);
  } catch (const Error& error) {
    last_error() = error.what();
    return static_cast<int32_t>(error.code);
  } catch (const std::bad_alloc&) {
    last_error() = "host memory is exhausted";
    return static_cast<int32_t>(Code::OUT_OF_MEMORY);
  } catch (const std::exception& error) {
    last_error() = error.what();
    return static_cast<int32_t>(Code::INTERNAL);
  }
}

template <class Plan>
struct PlanBox {
  Plan plan;
  std::string explained;
};

// Plan::format as a table entry; null without one.
template <class Plan>
constexpr auto format_entry() -> uint64_t (*)(const kw_device_info*, const char*, const void*) {
  if constexpr (requires { &Plan::format; }) {
    return [](const kw_device_info* device, const char* operand, const void* view) -> uint64_t {
      return Plan::format(*device, operand, *static_cast<const TensorView*>(view));
    };
  } else {
    return nullptr;
  }
}

template <class Plan, class Args>
concept HasConfigurations = requires(const Args& args, const kw_device_info& device) {
                              { Plan::configurations(args, device) } -> std::same_as<std::vector<std::string>>;
                            };

// Plan::configurations and the plan of one of them as table entries; null without them.
template <class Args, class Plan>
constexpr auto configurations_entry() -> int32_t (*)(const kw_device_info*, const void*, const char**) {
  if constexpr (HasConfigurations<Plan, Args>) {
    return [](const kw_device_info* device, const void* args, const char** names) {
      return guarded([&] {
        static thread_local std::string lines;
        lines.clear();
        for (const std::string& name : Plan::configurations(*static_cast<const Args*>(args), *device))
          lines += name + '\n';
        *names = lines.c_str();
      });
    };
  } else {
    return nullptr;
  }
}
template <class Args, class Plan>
constexpr auto create_as_entry() -> int32_t (*)(const kw_device_info*, const void*, const char*, kw_plan**) {
  if constexpr (HasConfigurations<Plan, Args>) {
    return [](const kw_device_info* device, const void* args, const char* configuration, kw_plan** plan) {
      return guarded([&] {
        *plan = reinterpret_cast<kw_plan*>(
            new PlanBox<Plan>{Plan(*static_cast<const Args*>(args), *device, std::string(configuration)), {}});
      });
    };
  } else {
    return nullptr;
  }
}

template <class Args, class Plan>
constexpr kw_op make_op(const char* name) {
  using Box = PlanBox<Plan>;
  return kw_op{
      .size = sizeof(kw_op),
      .name = name,
      .args_size = sizeof(Args),
      .supports =
          [](const kw_device_info* device, const void* args) {
            return guarded([&] {
              const std::string reason = Plan::declines(*static_cast<const Args*>(args), *device);
              if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
            });
          },
      .plan_create =
          [](const kw_device_info* device, const void* args, kw_plan** plan) {
            return guarded([&] {
              *plan = reinterpret_cast<kw_plan*>(new Box{Plan(*static_cast<const Args*>(args), *device), {}});
            });
          },
      .plan_workspace = [](const kw_plan* plan) -> uint64_t {
        return reinterpret_cast<const Box*>(plan)->plan.workspace();
      },
      .plan_rebind =
          [](kw_plan* plan, const void* args, void* workspace) {
            return guarded(
                [&] { reinterpret_cast<Box*>(plan)->plan.rebind(*static_cast<const Args*>(args), workspace); });
          },
      .plan_enqueue = [](kw_plan* plan,
                         void* stream) { return guarded([&] { reinterpret_cast<Box*>(plan)->plan.enqueue(stream); }); },
      .plan_explain = [](kw_plan* plan) -> const char* {
        auto* box = reinterpret_cast<Box*>(plan);
        if (guarded([&] { box->explained = box->plan.explain(); })) return "{}";
        return box->explained.c_str();
      },
      .plan_destroy = [](kw_plan* plan) { delete reinterpret_cast<Box*>(plan); },
      .format = format_entry<Plan>(),
      .configurations = configurations_entry<Args, Plan>(),
      .plan_create_as = create_as_entry<Args, Plan>(),
  };
}

}  // namespace kw
