// Queries that give lists of what ran: processes, their accounts, and the driver's own buffer of samples.
#include <algorithm>
#include <cstring>

#include "nvml_query.h"

namespace kw {

using namespace nvml;
using Record = NvmlValue::Record;
using List = NvmlValue::List;

namespace {

constexpr uint32_t kNone = 0xffffffff;        // no MIG instance
constexpr uint64_t kNotKnown = ~uint64_t{0};  // memory that the driver does not tell
constexpr uint32_t kHighestPid = 1u << 22;    // what Linux allows at most
constexpr size_t kRoom = 64;                  // bytes for an entry, more than any driver writes
constexpr Count kSpare = 16;                  // processes that may start between asking how many and asking which

struct Process {
  uint32_t pid, gpu_instance, compute_instance;
  uint64_t used_bytes;
};

// One layout of an entry: pid at 0, bytes at 8, and the instances behind where `stride` has room for them.
std::vector<Process> parse(const std::vector<std::byte>& buffer, Count count, size_t stride) {
  std::vector<Process> list(count);
  for (Count i = 0; i < count; ++i) {
    const std::byte* entry = buffer.data() + i * stride;
    Process& process = list[i];
    std::memcpy(&process.pid, entry, 4);
    std::memcpy(&process.used_bytes, entry + 8, 8);
    process.gpu_instance = process.compute_instance = kNone;
    if (stride < 24) continue;
    std::memcpy(&process.gpu_instance, entry + 16, 4);
    std::memcpy(&process.compute_instance, entry + 20, 4);
  }
  return list;
}

bool plausible(const std::vector<Process>& list, uint64_t most_bytes) {
  return std::all_of(list.begin(), list.end(), [&](const Process& process) {
    const auto instance = [](uint32_t id) { return id == kNone || id < 64; };
    return process.pid > 0 && process.pid <= kHighestPid &&
           (process.used_bytes == kNotKnown || process.used_bytes <= most_bytes) && instance(process.gpu_instance) &&
           instance(process.compute_instance);
  });
}

NvmlAnswer processes(const NvmlQuestion& q) {
  const Functions& f = q.nvml.functions();
  std::vector<std::byte> buffer;
  Count count = 0;
  const auto fill = [&](const Function<Handle, Count*, void*>& function) {
    return NvmlDevice::Way{function.name, [&] {
                             count = 0;
                             int status = function(q.device->handle, &count, nullptr);
                             while (status == kInsufficientSize) {
                               count += kSpare;
                               buffer.assign(count * kRoom, std::byte{0});
                               status = function(q.device->handle, &count, buffer.data());
                             }
                             return status;
                           }};
  };
  const char* used =
      q.device->ask({fill(f.nvmlDeviceGetComputeRunningProcesses_v3), fill(f.nvmlDeviceGetComputeRunningProcesses_v2),
                     fill(f.nvmlDeviceGetComputeRunningProcesses)});
  count = std::min<Count>(count, static_cast<Count>(buffer.size() / kRoom));
  Memory memory = {};
  const uint64_t most = f.nvmlDeviceGetMemoryInfo(q.device->handle, &memory) == kSuccess ? memory.total : kNotKnown;
  std::vector<size_t> strides = {24, 32};  // as published, and as some drivers of series 535 write
  if (used == f.nvmlDeviceGetComputeRunningProcesses.name) strides = {16};
  List list;
  for (size_t stride : strides) {
    const std::vector<Process> found = parse(buffer, count, stride);
    if (!plausible(found, most)) continue;
    const auto instance = [](uint32_t id) {
      return id == kNone ? NvmlValue{nullptr} : NvmlValue{static_cast<double>(id)};
    };
    for (const Process& process : found) {
      const bool told = process.used_bytes != kNotKnown;
      list.push_back(
          {Record{{"pid", {static_cast<double>(process.pid)}},
                  {"usedBytes", told ? NvmlValue{static_cast<double>(process.used_bytes)} : NvmlValue{nullptr}},
                  {"gpuInstance", instance(process.gpu_instance)},
                  {"computeInstance", instance(process.compute_instance)}}});
    }
    return {{std::move(list)}, used};
  }
  throw NvmlError(
      NvmlState::UNAVAILABLE, kSuccess, used,
      std::string(used) + " for GPU " + q.device->label() + ": writes entries of a layout that is not known");
}

// Kinds of nvmlSamplingType_t: power, GPU, memory, encoder, decoder, SM clock, memory clock, power of the module;
// how many of what the driver counts make one watt, whole or hertz.
constexpr double kPerUnit[] = {1e3, 1e2, 1e2, 1e2, 1e2, 1e-6, 1e-6, 1e3};

NvmlAnswer samples(const NvmlQuestion& q) {
  const int kind = static_cast<int>(q.whole(0, "kind", std::size(kPerUnit) - 1));
  const Wide since = q.whole(1, "since", uint64_t{1} << 53);
  const auto& function = q.nvml.functions().nvmlDeviceGetSamples;
  std::vector<BufferSample> buffer;
  ValueType type = ValueType::U32;
  Count count = 0;
  const auto fill = [&] {
    count = 0;
    int status = function(q.device->handle, kind, since, &type, &count, nullptr);
    if (status == kSuccess || status == kInsufficientSize) {
      count += kSpare;
      buffer.assign(count, BufferSample{});
      status = function(q.device->handle, kind, since, &type, &count, buffer.data());
    }
    if (status != kNotFound) return status;
    count = 0;  // nothing new
    return static_cast<int>(kSuccess);
  };
  const char* used = q.device->ask({{function.name, fill}}, "samples " + std::to_string(kind));
  List list;
  for (Count i = 0; i < std::min<size_t>(count, buffer.size()); ++i) {
    list.push_back({Record{{"time", {static_cast<double>(buffer[i].timestamp_us) / 1e6}},
                           {"value", {number(type, buffer[i].value) / kPerUnit[kind]}}}});
  }
  return {{std::move(list)}, used};
}

NvmlAnswer accounting(const NvmlQuestion& q) {
  int mode = 0;
  const char* used = q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetAccountingMode, &mode)});
  return {{mode != 0}, used};
}

NvmlAnswer account(const NvmlQuestion& q) {
  const Count pid = static_cast<Count>(q.whole(0, "pid", kHighestPid));
  AccountingStats stats = {};
  const char* used = q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetAccountingStats, pid, &stats)});
  const auto percent = [](uint32_t value) { return value > 100 ? NvmlValue{nullptr} : NvmlValue{value / 1e2}; };
  const bool told = stats.peak_bytes != kNotKnown;
  return {{Record{{"utilisation", percent(stats.gpu_percent)},
                  {"memoryUtilisation", percent(stats.memory_percent)},
                  {"peakBytes", told ? NvmlValue{static_cast<double>(stats.peak_bytes)} : NvmlValue{nullptr}},
                  {"seconds", {static_cast<double>(stats.milliseconds) / 1e3}},
                  {"started", {static_cast<double>(stats.start_us) / 1e6}},
                  {"running", {stats.running != 0}}}},
          used};
}

}  // namespace

const NvmlQuery kNvmlProcesses[] = {
    {"processes", processes}, {"samples", samples}, {"accounting", accounting}, {"account", account}, {},
};

}  // namespace kw
