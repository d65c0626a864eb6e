// The rest of the fake: versions, what describes a device, accounting, and GPM, whose metrics lie between two samples.
#include <cstdio>
#include <cstdlib>

#include "call.h"

using namespace kw::fake;

// Versions.

KW_NVML nvmlSystemGetDriverVersion(char* out, unsigned length) {
  return call(__func__, [&](const Scenario&) { return copy("575.57.08", out, length); });
}

KW_NVML nvmlSystemGetNVMLVersion(char* out, unsigned length) {
  return call(__func__, [&](const Scenario&) { return copy("12.575.57.08", out, length); });
}

KW_NVML nvmlSystemGetCudaDriverVersion_v2(int* version) {
  return call(__func__, [&](const Scenario&) -> int {
    if (!version) return kInvalidArgument;
    *version = 12090;
    return kOk;
  });
}

// A device.

KW_NVML nvmlDeviceGetName(void* device, char* out, unsigned length) {
  const auto body = [&](const Gpu&, int instance) {
    return copy(instance ? "NVIDIA H200 MIG 1g.18gb" : "NVIDIA H200", out, length);
  };
  return of_device(__func__, device, body, true);
}

KW_NVML nvmlDeviceGetUUID(void* device, char* out, unsigned length) {
  const auto body = [&](const Gpu& gpu, int instance) { return copy(gpu.uuid(instance), out, length); };
  return of_device(__func__, device, body, true);
}

KW_NVML nvmlDeviceGetIndex(void* device, unsigned* index) {
  return give(__func__, device, index, [](const Gpu& gpu) { return gpu.index(); });
}

KW_NVML nvmlDeviceGetPciInfo_v3(void* device, PciInfo* out) {
  return of_device(__func__, device, [&](const Gpu& gpu, int) -> int {
    if (!out) return kInvalidArgument;
    *out = {.bus = gpu.pci_bus(), .pci_device_id = 0x233510de, .pci_subsystem_id = 0x18be10de};
    copy(gpu.pci_bus_id(), out->bus_id, sizeof(out->bus_id));
    return copy(gpu.pci_bus_id().substr(4), out->bus_id_legacy, sizeof(out->bus_id_legacy));
  });
}

KW_NVML nvmlDeviceGetVbiosVersion(void* device, char* out, unsigned length) {
  return of_device(__func__, device, [&](const Gpu&, int) { return copy("96.00.A1.00.01", out, length); });
}

KW_NVML nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
  return of_device(__func__, device, [&](const Gpu&, int) -> int {
    if (!major || !minor) return kInvalidArgument;
    *major = 9;
    *minor = 0;
    return kOk;
  });
}

KW_NVML nvmlDeviceGetEccMode(void* device, int* current, int* pending) {
  return of_device(__func__, device, [&](const Gpu&, int) -> int {
    if (!current || !pending) return kInvalidArgument;
    *current = *pending = 1;
    return kOk;
  });
}

/** What one number says. */
#define KW_CONSTANT(name, type, value)                                    \
  KW_NVML name(void* device, type* out) {                                 \
    return give(__func__, device, out, [](const Gpu&) { return value; }); \
  }
KW_CONSTANT(nvmlDeviceGetArchitecture, unsigned, 9)
KW_CONSTANT(nvmlDeviceGetPersistenceMode, int, 1)
KW_CONSTANT(nvmlDeviceGetComputeMode, int, 0)
KW_CONSTANT(nvmlDeviceGetMemoryBusWidth, unsigned, 6144)
KW_CONSTANT(nvmlDeviceGetNumGpuCores, unsigned, 16896)
KW_CONSTANT(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, 5)
KW_CONSTANT(nvmlDeviceGetCurrPcieLinkWidth, unsigned, 16)
KW_CONSTANT(nvmlDeviceGetVirtualizationMode, int, 0)
KW_CONSTANT(nvmlDeviceGetPerformanceState, int, 0)
KW_CONSTANT(nvmlDeviceGetAccountingMode, int, 1)

KW_NVML nvmlDeviceGetTemperatureThreshold(void* device, int kind, unsigned* celsius) {
  return of_device(__func__, device, [&](const Gpu&, int) -> int {
    constexpr unsigned kThresholds[] = {92, 89, 95, 87};
    if (!celsius || kind < 0 || kind > 3) return kInvalidArgument;
    *celsius = kThresholds[kind];
    return kOk;
  });
}

KW_NVML nvmlDeviceGetAccountingStats(void* device, unsigned pid, AccountingStats* out) {
  return of_device(__func__, device, [&](const Gpu& gpu, int) -> int {
    if (!out) return kInvalidArgument;
    const auto bytes = Scenario::current()->entry("processes", std::to_string(pid), ':', gpu.index());
    if (!bytes) return kNotFound;
    *out = {.gpu = gpu.level("utilisation", "100"),
            .memory = 10,
            .max_bytes = std::strtoull(bytes->c_str(), nullptr, 10),
            .running = 1};
    return kOk;
  });
}

// GPM.

namespace {

struct GpmSample {
  int gpu = -1;
  double at = 0;
};

constexpr double kShortest = 0.1;  // seconds between two samples, below which there is nothing to say
constexpr const char* kPercentages = "1:95,2:90,3:45,4:12,5:60,6:0,7:58,8:0,9:0,10:35,11:0,12:10,13:2,20:150,21:80";

int take(const char* name, void* device, void* sample) {
  return of_device(name, device, [&](const Gpu& gpu, int) -> int {
    if (!sample) return kInvalidArgument;
    *static_cast<GpmSample*>(sample) = {gpu.index(), Scenario::current()->now()};
    return kOk;
  });
}

}  // namespace

KW_NVML nvmlGpmQueryDeviceSupport(void* device, GpmSupport* out) {
  return of_device(__func__, device, [&](const Gpu&, int) -> int {
    if (!out) return kInvalidArgument;
    if (out->version != 1) return kVersionMismatch;
    out->supported = 1;
    return kOk;
  });
}

KW_NVML nvmlGpmSampleAlloc(void** sample) {
  return call(__func__, [&](const Scenario&) -> int {
    if (!sample) return kInvalidArgument;
    *sample = new GpmSample;
    return kOk;
  });
}

KW_NVML nvmlGpmSampleFree(void* sample) {
  return call(__func__, [&](const Scenario&) {
    delete static_cast<GpmSample*>(sample);
    return kOk;
  });
}

KW_NVML nvmlGpmSampleGet(void* device, void* sample) { return take(__func__, device, sample); }

KW_NVML nvmlGpmMigSampleGet(void* device, unsigned, void* sample) { return take(__func__, device, sample); }

KW_NVML nvmlGpmMetricsGet(GpmMetricsGet* request) {
  return call(__func__, [&](const Scenario& scenario) -> int {
    if (!request || !request->first || !request->second) return kInvalidArgument;
    if (request->version != 1) return kVersionMismatch;
    const auto *first = static_cast<GpmSample*>(request->first), *second = static_cast<GpmSample*>(request->second);
    if (first->gpu < 0 || first->gpu != second->gpu || second->at < first->at) return kInvalidArgument;
    const std::string* given = scenario.text("gpm", first->gpu);
    for (uint32_t i = 0; i < request->count; ++i) {
      GpmMetric& metric = request->metrics[i];
      const std::string number = std::to_string(metric.id), name = "gpm:" + number;
      const auto failure = scenario.entry("fail", name, '=', first->gpu);
      std::optional<std::string> value;
      for (const std::string& one : split(given ? *given : kPercentages))
        if (one.substr(0, one.find(':')) == number) value = one.substr(one.find(':') + 1);
      metric.value = 0;
      if (failure)
        metric.status = std::atoi(failure->c_str());
      else if (scenario.lists("deny", name, first->gpu))
        metric.status = kNoPermission;
      else if (!value || scenario.lists("unsupported", name, first->gpu))
        metric.status = kNotSupported;
      else if (second->at - first->at < kShortest)
        metric.status = kNoData;
      else
        metric.status = kOk, metric.value = std::atof(value->c_str());
    }
    return kOk;
  });
}
