// A stand-in for libnvidia-ml.so.1: H200s whose counters and sensors follow the true power of a scenario (scenario.h), with the
// delays, units and refusals of real ones. test/nvml/fake.ts builds and drives it. This file: the library, devices, energy, power,
// clocks; occupancy.cc: temperature, memory, utilisation, processes; info.cc: what describes a device, and GPM.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <mutex>
#include <thread>

#include "call.h"

namespace kw::fake {
namespace {

constexpr int kMaxGpus = 16, kMaxInstances = 8;
std::array<std::array<Handle, kMaxInstances>, kMaxGpus> handles;
std::atomic<int> users{0};

int gpus(const Scenario& scenario) { return std::clamp(static_cast<int>(scenario.number("gpus", 1)), 0, kMaxGpus); }

}  // namespace

void* handle_of(int gpu, int instance) {
  Handle& handle = handles[static_cast<size_t>(gpu)][static_cast<size_t>(instance)];
  handle = {gpu, instance};
  return &handle;
}

std::optional<Handle> resolve(const Scenario& scenario, void* device) {
  const Handle *first = &handles[0][0], *handle = static_cast<Handle*>(device);
  if (!handle || handle < first || handle >= first + kMaxGpus * kMaxInstances) return std::nullopt;
  return handle->gpu < gpus(scenario) ? std::optional(*handle) : std::nullopt;
}

int enter(const Scenario& scenario, const char* name, int gpu) {
  if (const std::string* path = scenario.text("log")) {
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    std::ofstream(*path, std::ios::app) << name << ' ' << syscall(SYS_gettid) << '\n';
  }
  if (const auto slow = scenario.entry("slow_ms", name, ':', gpu))
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(std::atof(slow->c_str())));
  if (scenario.lists("deny", name, gpu)) return kNoPermission;
  if (scenario.lists("unsupported", name, gpu)) return kNotSupported;
  const auto code = scenario.entry("fail", name, '=', gpu);
  return code ? std::atoi(code->c_str()) : static_cast<int>(kOk);
}

bool initialized() { return users > 0; }

}  // namespace kw::fake

using namespace kw::fake;

// The library.

KW_NVML nvmlInit_v2() {
  const int status = enter(*Scenario::current(), __func__, 0);
  if (status == kOk) ++users;
  return status;
}

KW_NVML nvmlInitWithFlags(unsigned) {
  const int status = enter(*Scenario::current(), __func__, 0);
  if (status == kOk) ++users;
  return status;
}

KW_NVML nvmlShutdown() {
  return call(__func__, [](const Scenario&) {
    --users;
    return kOk;
  });
}

extern "C" __attribute__((visibility("default"))) const char* nvmlErrorString(int status) {
  switch (status) {
    case kOk:
      return "Success";
    case kUninitialized:
      return "Uninitialized";
    case kInvalidArgument:
      return "Invalid Argument";
    case kNotSupported:
      return "Not Supported";
    case kNoPermission:
      return "Insufficient Permissions";
    case kNotFound:
      return "Not Found";
    case kInsufficientSize:
      return "Insufficient Size";
    case 9:
      return "Driver Not Loaded";
    case 10:
      return "Timeout";
    case kGpuIsLost:
      return "GPU is lost";
    case 18:
      return "Driver/library version mismatch";
    case kNoData:
      return "No data";
    case kVersionMismatch:
      return "Argument version mismatch";
    default:
      return "Unknown Error";
  }
}

// Devices.

KW_NVML nvmlDeviceGetCount_v2(unsigned* count) {
  return call(__func__, [&](const Scenario& scenario) -> int {
    if (!count) return kInvalidArgument;
    *count = static_cast<unsigned>(gpus(scenario));
    return kOk;
  });
}

KW_NVML nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  return call(__func__, [&](const Scenario& scenario) -> int {
    if (!device || index >= static_cast<unsigned>(gpus(scenario))) return kInvalidArgument;
    *device = handle_of(static_cast<int>(index));
    return Gpu(scenario, static_cast<int>(index)).lost() ? kGpuIsLost : kOk;
  });
}

KW_NVML nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  return call(__func__, [&](const Scenario& scenario) -> int {
    unsigned domain, bus, slot, function = 0;
    if (!device || !id || std::sscanf(id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) return kInvalidArgument;
    for (int i = 0; i < gpus(scenario); ++i) {
      if (domain || slot || function || Gpu(scenario, i).pci_bus() != bus) continue;
      *device = handle_of(i);
      return kOk;
    }
    return kNotFound;
  });
}

KW_NVML nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  return call(__func__, [&](const Scenario& scenario) -> int {
    if (!device || !uuid) return kInvalidArgument;
    for (int i = 0; i < gpus(scenario); ++i)
      for (int instance = 0; instance <= Gpu(scenario, i).instances(); ++instance) {
        if (Gpu(scenario, i).uuid(instance) != uuid) continue;
        *device = handle_of(i, instance);
        return kOk;
      }
    return kNotFound;
  });
}

KW_NVML nvmlDeviceGetMigMode(void* device, unsigned* current, unsigned* pending) {
  return of_device(__func__, device, [&](const Gpu& gpu, int) -> int {
    if (!current || !pending) return kInvalidArgument;
    *current = *pending = gpu.instances() > 0;
    return kOk;
  });
}

KW_NVML nvmlDeviceGetMaxMigDeviceCount(void* device, unsigned* count) {
  return give(__func__, device, count, [](const Gpu&) { return kMaxInstances - 1; });
}

KW_NVML nvmlDeviceGetMigDeviceHandleByIndex(void* device, unsigned index, void** instance) {
  return of_device(__func__, device, [&](const Gpu& gpu, int) -> int {
    if (!instance || index >= kMaxInstances - 1) return kInvalidArgument;
    if (index >= static_cast<unsigned>(gpu.instances())) return kNotFound;
    *instance = handle_of(gpu.index(), static_cast<int>(index) + 1);
    return kOk;
  });
}

KW_NVML nvmlDeviceIsMigDeviceHandle(void* device, unsigned* is) {
  const auto body = [&](const Gpu&, int instance) -> int {
    if (!is) return kInvalidArgument;
    *is = instance > 0;
    return kOk;
  };
  return of_device(__func__, device, body, true);
}

KW_NVML nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void* device, void** whole) {
  const auto body = [&](const Gpu& gpu, int instance) -> int {
    if (!whole || !instance) return kInvalidArgument;
    *whole = handle_of(gpu.index());
    return kOk;
  };
  return of_device(__func__, device, body, true);
}

KW_NVML nvmlDeviceGetGpuInstanceId(void* device, unsigned* id) {
  const auto body = [&](const Gpu&, int instance) -> int {
    if (!id) return kInvalidArgument;
    *id = static_cast<unsigned>(instance);
    return instance ? kOk : kNotSupported;
  };
  return of_device(__func__, device, body, true);
}

KW_NVML nvmlDeviceGetAttributes_v2(void* device, Attributes* out) {
  const auto body = [&](const Gpu& gpu, int instance) -> int {
    if (!out) return kInvalidArgument;
    if (!instance) return kNotSupported;
    *out = {.multiprocessors = 132u / static_cast<unsigned>(gpu.instances()), .gpu_slices = 1, .compute_slices = 1};
    out->memory_mebibytes = gpu.share(kTotalBytes, instance) >> 20;
    return kOk;
  };
  return of_device(__func__, device, body, true);
}

// Energy, power and clocks.

KW_NVML nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* millijoules) {
  return give(__func__, device, millijoules, [](const Gpu& gpu) { return gpu.millijoules(); });
}

KW_NVML nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
  return give(__func__, device, milliwatts, [](const Gpu& gpu) { return gpu.average_mw(); });
}

KW_NVML nvmlDeviceGetFieldValues(void* device, int count, FieldValue* values) {
  return of_device(__func__, device, [&](const Gpu& gpu, int) -> int {
    if (count < 1 || !values) return kInvalidArgument;
    for (int i = 0; i < count; ++i) gpu.answer(values[i]);
    return kOk;
  });
}

KW_NVML nvmlDeviceGetEnforcedPowerLimit(void* device, unsigned* milliwatts) {
  return give(__func__, device, milliwatts, [](const Gpu&) { return kPowerLimit; });
}

KW_NVML nvmlDeviceGetPowerManagementLimit(void* device, unsigned* milliwatts) {
  return give(__func__, device, milliwatts, [](const Gpu&) { return kPowerLimit; });
}

KW_NVML nvmlDeviceGetPowerManagementDefaultLimit(void* device, unsigned* milliwatts) {
  return give(__func__, device, milliwatts, [](const Gpu&) { return kPowerLimit; });
}

KW_NVML nvmlDeviceGetPowerManagementLimitConstraints(void* device, unsigned* low, unsigned* high) {
  return of_device(__func__, device, [&](const Gpu&, int) -> int {
    if (!low || !high) return kInvalidArgument;
    *low = 200000;
    *high = kPowerLimit;
    return kOk;
  });
}

KW_NVML nvmlDeviceGetSamples(void* device, int kind, unsigned long long after_us, int* type, unsigned* count,
                             Sample* samples) {
  return of_device(__func__, device, [&](const Gpu& gpu, int) -> int {
    if (!type || !count) return kInvalidArgument;
    if (kind != 0) return kNotSupported;
    const std::vector<Sample> found = gpu.power_samples(after_us);
    if (found.empty()) return kNotFound;
    *type = kUnsigned;
    if (samples && *count < found.size()) return kInsufficientSize;
    *count = static_cast<unsigned>(found.size());
    if (samples) std::copy(found.begin(), found.end(), samples);
    return kOk;
  });
}

KW_NVML nvmlDeviceGetClockInfo(void* device, int type, unsigned* mhz) {
  return of_device(__func__, device, [&](const Gpu& gpu, int) -> int {
    if (!mhz || type < 0 || type > 3) return kInvalidArgument;
    *mhz = type == 2 ? gpu.level("memory_clock", "3201") : type == 3 ? 1545 : gpu.clock_mhz();
    return kOk;
  });
}

KW_NVML nvmlDeviceGetMaxClockInfo(void* device, int type, unsigned* mhz) {
  return of_device(__func__, device, [&](const Gpu&, int) -> int {
    if (!mhz || type < 0 || type > 3) return kInvalidArgument;
    *mhz = type == 2 ? 3201 : type == 3 ? 1545 : kMaxClock;
    return kOk;
  });
}

KW_NVML nvmlDeviceGetClock(void* device, int type, int id, unsigned* mhz) {
  return id == 3 ? nvmlDeviceGetMaxClockInfo(device, type, mhz) : nvmlDeviceGetClockInfo(device, type, mhz);
}

KW_NVML nvmlDeviceGetCurrentClocksEventReasons(void* device, unsigned long long* reasons) {
  return give(__func__, device, reasons, [](const Gpu& gpu) { return gpu.clock_reasons(); });
}

KW_NVML nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* reasons) {
  return give(__func__, device, reasons, [](const Gpu& gpu) { return gpu.clock_reasons(); });
}

KW_NVML nvmlDeviceGetSupportedClocksEventReasons(void* device, unsigned long long* reasons) {
  return give(__func__, device, reasons, [](const Gpu&) { return 0x1ff; });
}

KW_NVML nvmlDeviceGetSupportedClocksThrottleReasons(void* device, unsigned long long* reasons) {
  return give(__func__, device, reasons, [](const Gpu&) { return 0x1ff; });
}
