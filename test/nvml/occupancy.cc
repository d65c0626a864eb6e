// The part of the fake that says how warm and how full a GPU is, and who uses it: temperature, memory, utilisation, processes.
#include <algorithm>
#include <cstdlib>

#include "call.h"

using namespace kw::fake;

namespace {

bool refuses_newer(const Scenario& scenario) {
  const std::string* version = scenario.text("struct_version");
  return version && *version == "old";
}

/** Whether all of a divided GPU is asked for, for which this process has no permission. */
bool hidden(const Gpu& gpu, int instance) { return instance == 0 && gpu.instances() > 0; }

}  // namespace

KW_NVML nvmlDeviceGetTemperature(void* device, int sensor, unsigned* celsius) {
  if (sensor != 0) return kInvalidArgument;
  return give(__func__, device, celsius, [](const Gpu& gpu) { return gpu.level("temperature", "42"); });
}

KW_NVML nvmlDeviceGetTemperatureV(void* device, Temperature* out) {
  return of_device(__func__, device, [&](const Gpu& gpu, int) -> int {
    if (!out) return kInvalidArgument;
    if (out->version != version_of<Temperature>(1) || refuses_newer(*Scenario::current())) return kVersionMismatch;
    out->celsius = static_cast<int32_t>(gpu.level("temperature", "42"));
    return kOk;
  });
}

KW_NVML nvmlDeviceGetMemoryInfo(void* device, Memory* out) {
  const auto body = [&](const Gpu& gpu, int instance) -> int {
    if (!out) return kInvalidArgument;
    if (hidden(gpu, instance)) return kNoPermission;
    const uint64_t total = gpu.share(kTotalBytes, instance);
    const uint64_t used = gpu.share(gpu.used_bytes() + kReservedBytes, instance);
    *out = {total, total - used, used};
    return kOk;
  };
  return of_device(__func__, device, body, true);
}

KW_NVML nvmlDeviceGetMemoryInfo_v2(void* device, MemoryV2* out) {
  const auto body = [&](const Gpu& gpu, int instance) -> int {
    if (!out) return kInvalidArgument;
    if (out->version != version_of<MemoryV2>(2) || refuses_newer(*Scenario::current())) return kVersionMismatch;
    if (hidden(gpu, instance)) return kNoPermission;
    const uint64_t total = gpu.share(kTotalBytes, instance), reserved = gpu.share(kReservedBytes, instance);
    const uint64_t used = gpu.share(gpu.used_bytes(), instance);
    *out = {out->version, total, reserved, total - reserved - used, used};
    return kOk;
  };
  return of_device(__func__, device, body, true);
}

KW_NVML nvmlDeviceGetUtilizationRates(void* device, Utilization* out) {
  return of_device(__func__, device, [&](const Gpu& gpu, int) -> int {
    if (!out) return kInvalidArgument;
    if (gpu.instances() > 0) return kNotSupported;
    *out = {gpu.level("utilisation", "100"), gpu.level("memory_utilisation", "40")};
    return kOk;
  });
}

namespace {

/** `stride` bytes an entry; some drivers of series 535 write 32 under a name whose header says 24. */
int processes(const Gpu& gpu, int instance, unsigned* count, char* out) {
  if (!count) return kInvalidArgument;
  if (hidden(gpu, instance)) return kNoPermission;
  const auto scenario = Scenario::current();
  const std::string* list = scenario->text("processes", gpu.index());
  const auto found = split(list ? *list : "");
  const auto stride = static_cast<size_t>(scenario->number("process_bytes", sizeof(ProcessInfo)));
  const unsigned room = *count;
  *count = static_cast<unsigned>(found.size());
  if (room < found.size()) return kInsufficientSize;
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string bytes = split(found[i], ':').back();
    ProcessInfo one{static_cast<uint32_t>(std::atoi(found[i].c_str())), ~0ull, ~0u, ~0u};
    if (bytes != "na") one.bytes = std::strtoull(bytes.c_str(), nullptr, 10);
    if (instance) one.gpu_instance = static_cast<uint32_t>(instance), one.compute_instance = 0;
    std::memset(out + i * stride, 0, stride);
    std::memcpy(out + i * stride, &one, std::min(sizeof(one), stride));
  }
  return kOk;
}

}  // namespace

KW_NVML nvmlDeviceGetComputeRunningProcesses_v3(void* device, unsigned* count, char* out) {
  const auto body = [&](const Gpu& gpu, int instance) { return processes(gpu, instance, count, out); };
  return of_device(__func__, device, body, true);
}

KW_NVML nvmlDeviceGetComputeRunningProcesses_v2(void* device, unsigned* count, char* out) {
  const auto body = [&](const Gpu& gpu, int instance) { return processes(gpu, instance, count, out); };
  return of_device(__func__, device, body, true);
}
