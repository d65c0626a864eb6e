// The table of queries, and those about clocks, memory and temperature.
#include "nvml_query.h"

#include <cmath>
#include <cstring>

namespace kw {

using namespace nvml;
using Record = NvmlValue::Record;
using List = NvmlValue::List;

uint64_t NvmlQuestion::whole(size_t index, const char* name, uint64_t high) const {
  const double* given = index < arguments.size() ? std::get_if<double>(&arguments[index]) : nullptr;
  if (given == nullptr || !(*given >= 0 && *given <= static_cast<double>(high)) || *given != std::floor(*given)) {
    throw Error(Code::ARGUMENT, std::string("nvml: ") + name + " is " +
                                    (given == nullptr ? "not a number" : std::to_string(*given)) +
                                    ", expected a whole number from 0 to " + std::to_string(high));
  }
  return static_cast<uint64_t>(*given);
}

const std::string& NvmlQuestion::text(size_t index, const char* name) const {
  const auto* given = index < arguments.size() ? std::get_if<std::string>(&arguments[index]) : nullptr;
  if (given == nullptr) throw Error(Code::ARGUMENT, std::string("nvml: ") + name + " is not a string, expected one");
  return *given;
}

const std::shared_ptr<GpmSample>& NvmlQuestion::sample(size_t index, const char* name) const {
  const auto* given = index < arguments.size() ? std::get_if<std::shared_ptr<GpmSample>>(&arguments[index]) : nullptr;
  if (given == nullptr) throw Error(Code::ARGUMENT, std::string("nvml: ") + name + " is no sample, expected one");
  return *given;
}

NvmlAnswer nvml_ask(const char* name, const NvmlQuestion& question) {
  const auto find = [&](const NvmlQuery* table) {
    while (table->name != nullptr && std::strcmp(table->name, name) != 0) ++table;
    return table->ask;
  };
  if (question.device == nullptr) {
    if (const auto ask = find(kNvmlSystem)) return ask(question);
  } else {
    for (const NvmlQuery* table : {kNvmlIdentity, kNvmlState, kNvmlPower, kNvmlProcesses, kNvmlGpm}) {
      if (const auto ask = find(table)) return ask(question);
    }
  }
  throw Error(Code::ARGUMENT, std::string("nvml: query is ") + name + ", expected one that exists");
}

namespace {

NvmlAnswer memory(const NvmlQuestion& q) {
  const Functions& f = q.nvml.functions();
  MemoryV2 now = {};
  Memory old = {};
  const char* used = q.device->ask(
      {q.device->way(f.nvmlDeviceGetMemoryInfo_v2, &now), q.device->way(f.nvmlDeviceGetMemoryInfo, &old)});
  const bool first = used == f.nvmlDeviceGetMemoryInfo.name;
  const auto bytes = [](uint64_t count) { return NvmlValue{static_cast<double>(count)}; };
  return {{Record{{"totalBytes", bytes(first ? old.total : now.total)},
                  {"freeBytes", bytes(first ? old.free : now.free)},
                  {"usedBytes", bytes(first ? old.used : now.used)},
                  {"reservedBytes", first ? NvmlValue{nullptr} : bytes(now.reserved)}}},
          used};
}

NvmlAnswer utilisation(const NvmlQuestion& q) {
  Utilization now = {};
  const char* used = q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetUtilizationRates, &now)});
  return {{Record{{"gpu", {now.gpu / 1e2}}, {"memory", {now.memory / 1e2}}}}, used};
}

constexpr int kClocks = 3;  // the last nvmlClockType_t

NvmlAnswer clock(const NvmlQuestion& q) {
  const auto type = static_cast<NvmlClock>(q.whole(0, "domain", kClocks));
  return {{q.device->clock(type)}, q.nvml.functions().nvmlDeviceGetClockInfo.name};
}

NvmlAnswer max_clock(const NvmlQuestion& q) {
  const int type = static_cast<int>(q.whole(0, "domain", kClocks));
  Count megahertz = 0;
  const char* used = q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetMaxClockInfo, type, &megahertz)},
                                   "highest clock " + std::to_string(type));
  return {{1e6 * megahertz}, used};
}

NvmlAnswer boost_clock(const NvmlQuestion& q) {
  constexpr int kCustomerBoostMax = 3;  // nvmlClockId_t; 1 and 2 are deprecated
  const int type = static_cast<int>(q.whole(0, "domain", kClocks));
  Count megahertz = 0;
  const char* used =
      q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetClock, type, kCustomerBoostMax, &megahertz)},
                    "boost clock " + std::to_string(type));
  return {{1e6 * megahertz}, used};
}

NvmlAnswer clock_events(const NvmlQuestion& q) {
  const char* used = nullptr;
  const auto reasons = static_cast<double>(q.device->clock_events(&used));
  return {{reasons}, used};
}

NvmlAnswer supported_clock_events(const NvmlQuestion& q) {
  const Functions& f = q.nvml.functions();
  Wide reasons = 0;
  const char* used = q.device->ask({q.device->way(f.nvmlDeviceGetSupportedClocksEventReasons, &reasons),
                                    q.device->way(f.nvmlDeviceGetSupportedClocksThrottleReasons, &reasons)});
  return {{static_cast<double>(reasons)}, used};
}

NvmlAnswer performance_state(const NvmlQuestion& q) {
  constexpr int kUnknown = 32;
  int state = kUnknown;
  const char* used = q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetPerformanceState, &state)});
  return {{state == kUnknown ? NvmlValue{nullptr} : NvmlValue{static_cast<double>(state)}}, used};
}

NvmlAnswer temperature(const NvmlQuestion& q) {
  const char* used = nullptr;
  const double celsius = q.device->temperature(&used);
  return {{celsius}, used};
}

NvmlAnswer temperature_threshold(const NvmlQuestion& q) {
  const int kind = static_cast<int>(q.whole(0, "threshold", 3));
  Count celsius = 0;
  const char* used =
      q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetTemperatureThreshold, kind, &celsius)},
                    "temperature threshold " + std::to_string(kind));
  return {{static_cast<double>(celsius)}, used};
}

}  // namespace

const NvmlQuery kNvmlState[] = {
    {"memory", memory},
    {"utilisation", utilisation},
    {"clock", clock},
    {"maxClock", max_clock},
    {"boostClock", boost_clock},
    {"clockEvents", clock_events},
    {"supportedClockEvents", supported_clock_events},
    {"performanceState", performance_state},
    {"temperature", temperature},
    {"temperatureThreshold", temperature_threshold},
    {},
};

}  // namespace kw
