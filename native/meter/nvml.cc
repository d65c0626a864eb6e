// Opening the library, finding GPUs, and asking in the first way that works.
#include "nvml.h"

#include <dlfcn.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <thread>
#include <utility>

namespace kw {

using namespace nvml;

namespace {

// By name as drivers install it, as development packages link it, and where WSL keeps it.
constexpr const char* kCandidates[] = {"libnvidia-ml.so.1", "libnvidia-ml.so", "/usr/lib/wsl/lib/libnvidia-ml.so.1"};

std::string loader_says() {
  const char* reason = dlerror();
  return reason != nullptr ? reason : "cannot be opened";
}

NvmlError no_library(const std::string& tried) {
  return {NvmlState::MISSING, kLibraryNotFound, "", "the library of the NVIDIA driver does not load: " + tried};
}

// Whether another way of asking the same may work where this one did not.
bool another_way(int status) {
  return status == kNoFunction || status == kFunctionNotFound || status == kArgumentVersion || status == kDeprecated ||
         status == kNotSupported;
}

}  // namespace

NvmlState nvml_state(int status) {
  switch (status) {
    case kSuccess:
      return NvmlState::OK;
    case kInvalidArgument:  // the answer to field ids, clocks and MIG devices that a driver does not know
    case kNotSupported:
    case kArgumentVersion:
    case kDeprecated:
      return NvmlState::UNSUPPORTED;
    case kNoPermission:
    case kOperatingSystem:  // a control group keeps the device file from this process
      return NvmlState::DENIED;
    case kNoFunction:
    case kFunctionNotFound:
    case kDriverNotLoaded:
    case kLibraryNotFound:
    case kVersionMismatch:
    case kGpuNotFound:
      return NvmlState::MISSING;
    case kGpuIsLost:
    case kResetRequired:
      return NvmlState::LOST;
    default:
      return NvmlState::UNAVAILABLE;
  }
}

double nvml::number(ValueType type, const Value& value) {
  switch (type) {
    case ValueType::DOUBLE:
      return value.d;
    case ValueType::U32:
      return value.u32;
    case ValueType::UNSIGNED_LONG:
    case ValueType::U64:
      return static_cast<double>(value.u64);
    case ValueType::I64:
      return static_cast<double>(value.i64);
    case ValueType::I32:
      return value.i32;
    case ValueType::U16:
      return value.u16;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

int nvml_patiently(const std::function<int()>& call) {
  for (int wait = 1;; wait *= 2) {
    const int status = call();
    if ((status != kTimeout && status != kNotReady) || wait > 4) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(wait));
  }
}

std::string pci_address(const std::string& text) {
  unsigned domain = 0, bus = 0, device = 0, function = 0;
  int used = 0;
  const int size = static_cast<int>(text.size());
  const bool whole =
      std::sscanf(text.c_str(), "%x:%x:%x.%x%n", &domain, &bus, &device, &function, &used) == 4 && used == size;
  if (!whole) {
    domain = 0, used = 0;
    if (std::sscanf(text.c_str(), "%x:%x.%x%n", &bus, &device, &function, &used) != 3 || used != size) return "";
  }
  if (bus > 0xff || device > 0x1f || function > 7) return "";
  char address[32];
  std::snprintf(address, sizeof(address), "%04x:%02x:%02x.%x", domain, bus, device, function);
  return address;
}

std::string Nvml::named() {
  const char* path = std::getenv("KERNWATT_NVML_LIBRARY");
  return path != nullptr ? path : "";
}

Nvml& Nvml::open(const std::string& path) {
  static auto* mutex = new std::mutex;
  static auto* opened = new std::map<std::string, std::unique_ptr<Nvml>>;
  const std::lock_guard lock(*mutex);
  std::unique_ptr<Nvml>& nvml = (*opened)[path];
  if (nvml) return *nvml;
  std::vector<std::string> candidates = {path};
  if (path.empty()) candidates.assign(std::begin(kCandidates), std::end(kCandidates));
  std::string tried;
  for (const std::string& candidate : candidates) {
    void* library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) {
      nvml.reset(new Nvml(candidate, library));
      break;
    }
    tried += (tried.empty() ? "" : "; ") + loader_says();
  }
  if (!nvml) throw no_library(tried);
  const Functions& f = nvml->functions();
  const bool old = f.nvmlInit_v2.pointer == nullptr;
  const int status = nvml_patiently([&] { return old ? f.nvmlInitWithFlags(0) : f.nvmlInit_v2(); });
  if (status == kSuccess) return *nvml;
  const NvmlError error = status == kNoFunction ? no_library(nvml->path + " has no function nvmlInit_v2")
                                                : nvml->error(status, "nvmlInit_v2");
  nvml.reset();
  throw error;
}

Nvml* Nvml::open(std::string& reason) {
  try {
    return &open();
  } catch (const NvmlError& error) {
    reason = error.what();
    return nullptr;
  }
}

Nvml::Nvml(std::string from, void* library) : path(std::move(from)) {
  const auto find = [&](auto& function) {
    using Pointer = decltype(function.pointer);
    function.pointer = reinterpret_cast<Pointer>(dlsym(library, function.name));
  };
#define KW_NVML_FIND(name, ...) find(functions_.name);
  KW_NVML_FUNCTIONS(KW_NVML_FIND)
#undef KW_NVML_FIND
  error_string_ = reinterpret_cast<decltype(error_string_)>(dlsym(library, "nvmlErrorString"));
}

std::string Nvml::text(int status) const {
  if (status == kNoFunction) return "no such function in " + path;
  const char* said = error_string_ != nullptr ? error_string_(status) : nullptr;
  return (said != nullptr ? said : "error") + (" (" + std::to_string(status) + ")");
}

NvmlError Nvml::error(int status, const char* function, const std::string& label) const {
  const std::string whom = label.empty() ? "" : " for GPU " + label;
  return {nvml_state(status), status, function, std::string(function) + whom + ": " + text(status)};
}

unsigned Nvml::count() const {
  unsigned count = 0;
  check(nvml_patiently([&] { return functions_.nvmlDeviceGetCount_v2(&count); }), "nvmlDeviceGetCount_v2");
  return count;
}

NvmlDevice& Nvml::device(unsigned index) {
  Handle handle = nullptr;
  const int status = nvml_patiently([&] { return functions_.nvmlDeviceGetHandleByIndex_v2(index, &handle); });
  if (status != kSuccess) throw error(status, "nvmlDeviceGetHandleByIndex_v2", std::to_string(index));
  return device(handle);
}

NvmlDevice& Nvml::device(const std::string& name) {
  Handle handle = nullptr;
  const bool uuid = name.starts_with("GPU-") || name.starts_with("MIG-");
  const std::string address = uuid ? "" : pci_address(name);
  if (!uuid && address.empty()) {
    throw Error(Code::ARGUMENT, "nvml: device is " + name +
                                    ", expected an index, a UUID (GPU-..., MIG-...) or a PCI address (0000:17:00.0)");
  }
  const auto& by_uuid = functions_.nvmlDeviceGetHandleByUUID;
  const auto& by_pci = functions_.nvmlDeviceGetHandleByPciBusId_v2;
  const int status =
      nvml_patiently([&] { return uuid ? by_uuid(name.c_str(), &handle) : by_pci(address.c_str(), &handle); });
  if (status != kSuccess) throw error(status, uuid ? by_uuid.name : by_pci.name, name);
  return device(handle);
}

NvmlDevice& Nvml::device(Handle handle) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<NvmlDevice>& device = devices_[handle];
  if (!device) device = std::make_unique<NvmlDevice>(*this, handle);
  return *device;
}

NvmlDevice::NvmlDevice(const Nvml& library, Handle of) : nvml(library), handle(of), label_(make_label()) {}

std::string NvmlDevice::make_label() const {
  const Functions& f = nvml.functions();
  Count mig = 0;
  const bool whole = f.nvmlDeviceIsMigDeviceHandle(handle, &mig) != kSuccess || mig == 0;
  Pci pci = {};
  if (whole && f.nvmlDeviceGetPciInfo_v3(handle, &pci) == kSuccess) {
    pci.bus_id[sizeof(pci.bus_id) - 1] = '\0';
    const std::string address = pci_address(pci.bus_id);
    if (!address.empty()) return address;
  }
  char uuid[96] = {};
  return f.nvmlDeviceGetUUID(handle, uuid, sizeof(uuid)) == kSuccess ? uuid : "of unknown name";
}

const char* NvmlDevice::ask(std::initializer_list<Way> ways, const std::string& key) const {
  const std::string& name = key.empty() ? ways.begin()->function : key;
  int status = kNoFunction;
  const char* function = ways.begin()->function;
  for (const Way& way : ways) {
    const int answer = nvml_patiently(way.call);
    if (answer == kSuccess) {
      judge(name, answer);
      return way.function;
    }
    // That a function exists and says no is worth more than that another is not there.
    if (status == kNoFunction && answer != kNoFunction) {
      status = answer;
      function = way.function;
    }
    if (!another_way(answer)) {
      status = answer;
      function = way.function;
      break;
    }
  }
  NvmlError error = nvml.error(status, function, label_);
  error.state = judge(name, status);
  throw error;
}

NvmlState NvmlDevice::judge(const std::string& key, int status) const {
  constexpr int kDoubts = 2;
  if (status != kSuccess && status != kNotSupported) return nvml_state(status);
  const std::lock_guard lock(mutex_);
  if (status == kSuccess) {
    doubt_[key] = kDoubts;
    return NvmlState::OK;
  }
  const auto doubt = doubt_.find(key);
  return doubt != doubt_.end() && doubt->second-- > 0 ? NvmlState::UNAVAILABLE : NvmlState::UNSUPPORTED;
}

double NvmlDevice::energy(const char** used) const {
  Wide millijoules = 0;
  const auto by_field = [&] {
    std::vector<NvmlField> fields = {{.field = nvml_field::kEnergy}};
    try {
      read(fields);
    } catch (const NvmlError& error) {
      return error.status;
    }
    millijoules = static_cast<Wide>(fields[0].value);
    return fields[0].status;
  };
  const char* function = ask({way(nvml.functions().nvmlDeviceGetTotalEnergyConsumption, &millijoules),
                              {"nvmlDeviceGetFieldValues", by_field}});
  if (used != nullptr) *used = function;
  return static_cast<double>(millijoules) / 1e3;
}

double NvmlDevice::power() const {
  Count milliwatts = 0;
  ask({way(nvml.functions().nvmlDeviceGetPowerUsage, &milliwatts)});
  return milliwatts / 1e3;
}

double NvmlDevice::clock(NvmlClock which) const {
  Count megahertz = 0;
  const int type = static_cast<int>(which);
  ask({way(nvml.functions().nvmlDeviceGetClockInfo, type, &megahertz)}, "clock " + std::to_string(type));
  return 1e6 * megahertz;
}

double NvmlDevice::temperature(const char** used) const {
  const Functions& f = nvml.functions();
  Temperature now = {};
  Count celsius = 0;
  const char* function = ask({way(f.nvmlDeviceGetTemperatureV, &now), way(f.nvmlDeviceGetTemperature, 0, &celsius)});
  if (used != nullptr) *used = function;
  return function == f.nvmlDeviceGetTemperatureV.name ? now.celsius : celsius;
}

uint64_t NvmlDevice::clock_events(const char** used) const {
  const Functions& f = nvml.functions();
  Wide reasons = 0;
  const char* function = ask({way(f.nvmlDeviceGetCurrentClocksEventReasons, &reasons),
                              way(f.nvmlDeviceGetCurrentClocksThrottleReasons, &reasons)});
  if (used != nullptr) *used = function;
  return reasons;
}

void NvmlDevice::read(std::vector<NvmlField>& fields) const {
  std::vector<FieldValue> values(fields.size());
  for (size_t i = 0; i < fields.size(); ++i) {
    values[i] = {};
    values[i].field = fields[i].field;
    values[i].scope = fields[i].scope;
  }
  ask({way(nvml.functions().nvmlDeviceGetFieldValues, static_cast<int>(values.size()), values.data())});
  for (size_t i = 0; i < fields.size(); ++i) {
    NvmlField& field = fields[i];
    const std::string key = std::to_string(field.field) + "/" + std::to_string(field.scope);
    field.status = values[i].status;
    field.state = judge(key, field.status);
    field.value = field.state == NvmlState::OK ? number(values[i].type, values[i].value) : 0;
    field.timestamp_us = values[i].timestamp_us;
    field.latency_us = values[i].latency_us;
    // A type of later drivers: there is a number, but which is not known.
    if (std::isnan(field.value)) field.state = NvmlState::UNAVAILABLE;
  }
}

}  // namespace kw
