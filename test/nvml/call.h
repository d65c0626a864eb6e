// What every function of the fake does first: note the call, take its time, fail where the scenario says so, find the device.
#pragma once
#include <cstring>
#include <optional>
#include <string>

#include "gpu.h"

#define KW_NVML extern "C" __attribute__((visibility("default"))) int

namespace kw::fake {

/** What a device handle points to. */
struct Handle {
  int gpu, instance;
};
void* handle_of(int gpu, int instance = 0);
std::optional<Handle> resolve(const Scenario& scenario, void* device);

/** Notes the call and sleeps as long as it is said to take; the status that the scenario wants of it, kOk to go on. */
int enter(const Scenario& scenario, const char* name, int gpu);
bool initialized();

/** A function that needs no device. */
template <class Body>
int call(const char* name, Body body) {
  const auto scenario = Scenario::current();
  if (const int status = enter(*scenario, name, 0)) return status;
  return initialized() ? body(*scenario) : static_cast<int>(kUninitialized);
}

/** A function of a GPU; `instances` where it also answers for an instance of a divided one, whose number `body` gets. */
template <class Body>
int of_device(const char* name, void* device, Body body, bool instances = false) {
  const auto scenario = Scenario::current();
  const auto handle = resolve(*scenario, device);
  if (const int status = enter(*scenario, name, handle ? handle->gpu : 0)) return status;
  if (!initialized()) return kUninitialized;
  if (!handle) return kInvalidArgument;
  const Gpu gpu(*scenario, handle->gpu);
  if (gpu.lost()) return kGpuIsLost;
  if (handle->instance && !instances) return kNotSupported;
  return body(gpu, handle->instance);
}

/** One number of a GPU. */
template <class T, class Value>
int give(const char* name, void* device, T* out, Value value) {
  return of_device(name, device, [&](const Gpu& gpu, int) -> int {
    if (!out) return kInvalidArgument;
    *out = static_cast<T>(value(gpu));
    return kOk;
  });
}

inline int copy(const std::string& text, char* out, unsigned length) {
  if (!out) return kInvalidArgument;
  if (length <= text.size()) return kInsufficientSize;
  std::memcpy(out, text.c_str(), text.size() + 1);
  return kOk;
}

}  // namespace kw::fake
