// Queries about energy and power, and those that are fields: throttling and the temperature of the memory.
#include <cmath>
#include <iterator>

#include "nvml_query.h"

namespace kw {

using namespace nvml;
using Record = NvmlValue::Record;
using List = NvmlValue::List;

namespace {

constexpr uint64_t kScopes = 3;  // the last one
constexpr size_t kMostFields = 512;

// After kThrottle of nvml.h, the same length.
constexpr const char* kThrottleNames[] = {"powerCap",        "thermal",           "syncBoost",  "boardLimit",
                                          "lowUtilisation",  "reliability",       "baseClocks", "softwareThermal",
                                          "hardwareThermal", "hardwarePowerBrake"};
static_assert(std::size(kThrottleNames) == std::size(nvml_field::kThrottle));

// Where a field has no value, the error that says so.
NvmlError field_error(const NvmlQuestion& q, const NvmlField& field) {
  const std::string function =
      "nvmlDeviceGetFieldValues, field " + std::to_string(field.field) + " of scope " + std::to_string(field.scope);
  NvmlError error = q.nvml.error(field.status, function.c_str(), q.device->label());
  error.state = field.state;
  return error;
}

NvmlAnswer one_field(const NvmlQuestion& q, uint32_t id, uint32_t scope, double per_unit) {
  std::vector<NvmlField> fields = {{.field = id, .scope = scope}};
  q.device->read(fields);
  if (fields[0].state != NvmlState::OK) throw field_error(q, fields[0]);
  return {{fields[0].value / per_unit}, q.nvml.functions().nvmlDeviceGetFieldValues.name};
}

NvmlAnswer energy(const NvmlQuestion& q) {
  const char* used = nullptr;
  const double joules = q.device->energy(&used);
  return {{joules}, used};
}

NvmlAnswer power(const NvmlQuestion& q) {
  return {{q.device->power()}, q.nvml.functions().nvmlDeviceGetPowerUsage.name};
}

NvmlAnswer average_power(const NvmlQuestion& q) {
  return one_field(q, nvml_field::kPowerAverage, static_cast<uint32_t>(q.whole(0, "scope", kScopes)), 1e3);
}

NvmlAnswer instant_power(const NvmlQuestion& q) {
  return one_field(q, nvml_field::kPowerInstant, static_cast<uint32_t>(q.whole(0, "scope", kScopes)), 1e3);
}

NvmlAnswer memory_temperature(const NvmlQuestion& q) { return one_field(q, nvml_field::kMemoryTemperature, 0, 1); }

NvmlAnswer throttle(const NvmlQuestion& q) {
  std::vector<NvmlField> fields;
  for (uint32_t id : nvml_field::kThrottle) fields.push_back({.field = id});
  q.device->read(fields);
  Record seconds;
  bool any = false;
  for (size_t i = 0; i < fields.size(); ++i) {
    const bool known = fields[i].state == NvmlState::OK;
    any = any || known;
    seconds.emplace_back(kThrottleNames[i], known ? NvmlValue{fields[i].value / 1e9} : NvmlValue{nullptr});
  }
  if (!any) throw field_error(q, fields[0]);
  return {{std::move(seconds)}, q.nvml.functions().nvmlDeviceGetFieldValues.name};
}

// Arguments: field, scope, field, scope ...
NvmlAnswer fields(const NvmlQuestion& q) {
  std::vector<NvmlField> fields;
  for (size_t i = 0; i + 1 < q.arguments.size() && fields.size() < kMostFields; i += 2) {
    fields.push_back({.field = static_cast<uint32_t>(q.whole(i, "field", UINT32_MAX)),
                      .scope = static_cast<uint32_t>(q.whole(i + 1, "scope", UINT32_MAX))});
  }
  q.device->read(fields);
  List list;
  for (const NvmlField& field : fields) {
    const bool known = field.state == NvmlState::OK;
    list.push_back({Record{
        {"field", {static_cast<double>(field.field)}},
        {"scope", {static_cast<double>(field.scope)}},
        {"value", known ? NvmlValue{field.value} : NvmlValue{nullptr}},
        {"state", {std::string(kNvmlStateNames[static_cast<int>(field.state)])}},
        {"status", {static_cast<double>(field.status)}},
        {"detail", {q.nvml.text(field.status)}},
        {"time",
         field.timestamp_us > 0 ? NvmlValue{static_cast<double>(field.timestamp_us) / 1e6} : NvmlValue{nullptr}},
        {"latency", {static_cast<double>(field.latency_us) / 1e6}},
    }});
  }
  return {{std::move(list)}, q.nvml.functions().nvmlDeviceGetFieldValues.name};
}

NvmlAnswer power_limit(const NvmlQuestion& q) {
  Count milliwatts = 0;
  const char* used = q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetEnforcedPowerLimit, &milliwatts)});
  return {{milliwatts / 1e3}, used};
}

NvmlAnswer power_limits(const NvmlQuestion& q) {
  const Functions& f = q.nvml.functions();
  Count set = 0, usual = 0, least = 0, most = 0;
  const char* used = q.device->ask({q.device->way(f.nvmlDeviceGetPowerManagementLimit, &set)});
  q.device->ask({q.device->way(f.nvmlDeviceGetPowerManagementDefaultLimit, &usual)});
  q.device->ask({q.device->way(f.nvmlDeviceGetPowerManagementLimitConstraints, &least, &most)});
  return {{Record{{"limit", {set / 1e3}}, {"default", {usual / 1e3}}, {"min", {least / 1e3}}, {"max", {most / 1e3}}}},
          used};
}

}  // namespace

const NvmlQuery kNvmlPower[] = {
    {"energy", energy},
    {"power", power},
    {"averagePower", average_power},
    {"instantPower", instant_power},
    {"powerLimit", power_limit},
    {"powerLimits", power_limits},
    {"throttle", throttle},
    {"memoryTemperature", memory_temperature},
    {"fields", fields},
    {},
};

}  // namespace kw
