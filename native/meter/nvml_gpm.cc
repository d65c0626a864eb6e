// Utilisation by hardware counters (GPM, from Hopper on): what happened between two samples, at least 100 ms apart.
#include <algorithm>
#include <cmath>

#include "nvml_query.h"

namespace kw {

using namespace nvml;
using Record = NvmlValue::Record;
using List = NvmlValue::List;

namespace {

constexpr std::chrono::milliseconds kSpacing{100};

NvmlAnswer supported(const NvmlQuestion& q) {
  GpmSupport support = {};
  const char* used = q.device->ask({q.device->way(q.nvml.functions().nvmlGpmQueryDeviceSupport, &support)});
  return {{support.supported != 0}, used};
}

NvmlAnswer take(const NvmlQuestion& q) {
  auto sample = std::make_shared<GpmSample>(*q.device);
  return {{std::move(sample)}, q.nvml.functions().nvmlGpmSampleGet.name};
}

// Arguments: two samples and ids of metrics. Values in the units of NVML: percent, MiB/s.
NvmlAnswer metrics(const NvmlQuestion& q) {
  const GpmSample& first = *q.sample(0, "first");
  const GpmSample& second = *q.sample(1, "second");
  if (&first.device != q.device || &second.device != q.device) {
    throw Error(Code::ARGUMENT, "gpmMetrics: sample is of another GPU, expected one of " + q.device->label());
  }
  const auto apart = std::chrono::duration_cast<std::chrono::milliseconds>(second.taken - first.taken);
  if (apart < kSpacing) {
    throw Error(Code::ARGUMENT,
                "gpmMetrics: second is " + std::to_string(apart.count()) + " ms after first, expected at least 100 ms");
  }
  auto request = std::make_unique<GpmMetrics>();
  request->first = first.sample;
  request->second = second.sample;
  request->count = static_cast<uint32_t>(std::min<size_t>(q.arguments.size() - 2, GpmMetrics::kMax));
  for (uint32_t i = 0; i < request->count; ++i) {
    request->metrics[i].id = static_cast<uint32_t>(q.whole(2 + i, "metric", GpmMetrics::kMax));
  }
  const auto& function = q.nvml.functions().nvmlGpmMetricsGet;
  const char* used = q.device->ask({{function.name, [&] { return function(request.get()); }}});
  List list;
  for (uint32_t i = 0; i < request->count; ++i) {
    const GpmMetric& metric = request->metrics[i];
    const std::string name = std::string(function.name) + ", metric " + std::to_string(metric.id);
    NvmlState state = nvml_state(metric.status);
    if (state == NvmlState::OK && std::isnan(metric.value)) state = NvmlState::UNAVAILABLE;  // nothing was counted
    list.push_back({Record{{"value", state == NvmlState::OK ? NvmlValue{metric.value} : NvmlValue{nullptr}},
                           {"state", {std::string(kNvmlStateNames[static_cast<int>(state)])}},
                           {"status", {static_cast<double>(metric.status)}},
                           {"function", {std::string(function.name)}},
                           {"message", {q.nvml.error(metric.status, name.c_str(), q.device->label()).what()}}}});
  }
  return {{std::move(list)}, used};
}

}  // namespace

GpmSample::GpmSample(const NvmlDevice& of) : device(of) {
  const Functions& f = device.nvml.functions();
  device.ask({{f.nvmlGpmSampleAlloc.name, [&] { return f.nvmlGpmSampleAlloc(&sample); }}});
  try {
    Count mig = 0;
    if (f.nvmlDeviceIsMigDeviceHandle(device.handle, &mig) == kSuccess && mig != 0) {
      // Samples of an instance are asked of the whole GPU.
      Handle whole = nullptr;
      Count instance = 0;
      device.ask({device.way(f.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, &whole)});
      device.ask({device.way(f.nvmlDeviceGetGpuInstanceId, &instance)});
      device.ask({{f.nvmlGpmMigSampleGet.name, [&] { return f.nvmlGpmMigSampleGet(whole, instance, sample); }}});
    } else {
      device.ask({device.way(f.nvmlGpmSampleGet, sample)});
    }
  } catch (...) {
    f.nvmlGpmSampleFree(sample);
    throw;
  }
  taken = std::chrono::steady_clock::now();
}

GpmSample::~GpmSample() { device.nvml.functions().nvmlGpmSampleFree(sample); }

const NvmlQuery kNvmlGpm[] = {
    {"gpmSupported", supported},
    {"gpmSample", take},
    {"gpmMetrics", metrics},
    {},
};

}  // namespace kw
