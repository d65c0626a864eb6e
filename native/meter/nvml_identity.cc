// Queries about the driver, and about what a GPU is: what changes rarely or never.
#include "nvml_query.h"

namespace kw {

using namespace nvml;
using Record = NvmlValue::Record;
using List = NvmlValue::List;

namespace {

// Of the driver.

NvmlAnswer version(const NvmlQuestion& q, const Function<char*, Count>& function) {
  char text[80] = {};
  q.nvml.check(function(text, sizeof(text) - 1), function.name);
  return {{std::string(text)}, function.name};
}

NvmlAnswer driver_version(const NvmlQuestion& q) { return version(q, q.nvml.functions().nvmlSystemGetDriverVersion); }
NvmlAnswer nvml_version(const NvmlQuestion& q) { return version(q, q.nvml.functions().nvmlSystemGetNVMLVersion); }

NvmlAnswer cuda_version(const NvmlQuestion& q) {
  const Functions& f = q.nvml.functions();
  const auto& function = f.nvmlSystemGetCudaDriverVersion_v2.pointer != nullptr ? f.nvmlSystemGetCudaDriverVersion_v2
                                                                                : f.nvmlSystemGetCudaDriverVersion;
  int number = 0;  // 13000 is 13.0
  q.nvml.check(function(&number), function.name);
  return {{std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10)}, function.name};
}

// One that refuses, for which there may be many reasons, hides no other.
NvmlAnswer devices(const NvmlQuestion& q) {
  List list;
  const unsigned count = q.nvml.count();
  for (unsigned i = 0; i < count; ++i) {
    try {
      list.push_back(nvml_describe(q.nvml.device(i)));
    } catch (const NvmlError& error) {
      list.push_back({Record{{"index", {static_cast<double>(i)}},
                             {"state", {std::string(kNvmlStateNames[static_cast<int>(error.state)])}},
                             {"reason", {std::string(error.what())}}}});
    }
  }
  return {{std::move(list)}, q.nvml.functions().nvmlDeviceGetCount_v2.name};
}

NvmlAnswer device(const NvmlQuestion& q) {
  const bool by_index = !q.arguments.empty() && std::holds_alternative<double>(q.arguments[0]);
  NvmlDevice& found = by_index ? q.nvml.device(static_cast<unsigned>(q.whole(0, "device", UINT32_MAX)))
                               : q.nvml.device(q.text(0, "device"));
  return {nvml_describe(found), "nvmlDeviceGetHandleByIndex_v2"};
}

// Of a GPU.

// A query that fills one number.
template <class T>
NvmlAnswer one(const NvmlQuestion& q, const Function<Handle, T*>& function) {
  T number = {};
  const char* used = q.device->ask({q.device->way(function, &number)});
  return {{static_cast<double>(number)}, used};
}

template <class T>
NvmlAnswer current_and_pending(const NvmlQuestion& q, const Function<Handle, T*, T*>& function) {
  T current = {}, pending = {};
  const char* used = q.device->ask({q.device->way(function, &current, &pending)});
  return {{Record{{"current", {current != 0}}, {"pending", {pending != 0}}}}, used};
}

NvmlAnswer pci(const NvmlQuestion& q) {
  Pci pci = {};
  const char* used = q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetPciInfo_v3, &pci)});
  pci.bus_id[sizeof(pci.bus_id) - 1] = '\0';
  return {{Record{{"address", {pci_address(pci.bus_id)}},
                  {"domain", {static_cast<double>(pci.domain)}},
                  {"bus", {static_cast<double>(pci.bus)}},
                  {"device", {static_cast<double>(pci.device)}},
                  {"vendorId", {static_cast<double>(pci.device_id & 0xffff)}},
                  {"deviceId", {static_cast<double>(pci.device_id >> 16)}},
                  {"subsystemId", {static_cast<double>(pci.subsystem_id)}}}},
          used};
}

NvmlAnswer vbios(const NvmlQuestion& q) {
  char text[33] = {};
  const char* used = q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetVbiosVersion, text, Count{32})});
  return {{std::string(text)}, used};
}

NvmlAnswer compute_capability(const NvmlQuestion& q) {
  int major = 0, minor = 0;
  const char* used =
      q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetCudaComputeCapability, &major, &minor)});
  return {{std::to_string(major) + "." + std::to_string(minor)}, used};
}

NvmlAnswer pcie_link(const NvmlQuestion& q) {
  const Functions& f = q.nvml.functions();
  const auto number = [&](const Function<Handle, Count*>& function) {
    return std::get<double>(one(q, function).value.held);
  };
  return {{Record{{"generation", {number(f.nvmlDeviceGetCurrPcieLinkGeneration)}},
                  {"width", {number(f.nvmlDeviceGetCurrPcieLinkWidth)}},
                  {"maxGeneration", nvml_optional([&] { return number(f.nvmlDeviceGetMaxPcieLinkGeneration); })},
                  {"maxWidth", nvml_optional([&] { return number(f.nvmlDeviceGetMaxPcieLinkWidth); })}}},
          f.nvmlDeviceGetCurrPcieLinkGeneration.name};
}

NvmlAnswer mig_parent(const NvmlQuestion& q) {
  Handle parent = nullptr;
  const char* used =
      q.device->ask({q.device->way(q.nvml.functions().nvmlDeviceGetDeviceHandleFromMigDeviceHandle, &parent)});
  return {nvml_describe(q.nvml.device(parent)), used};
}

NvmlAnswer mig_devices(const NvmlQuestion& q) {
  const Functions& f = q.nvml.functions();
  Count most = 0;
  const char* used = q.device->ask({q.device->way(f.nvmlDeviceGetMaxMigDeviceCount, &most)});
  List list;
  for (Count i = 0; i < most; ++i) {
    Handle handle = nullptr;
    const int status =
        nvml_patiently([&] { return f.nvmlDeviceGetMigDeviceHandleByIndex(q.device->handle, i, &handle); });
    if (status == kNotFound || status == kInvalidArgument) continue;  // indices have gaps
    if (status != kSuccess) throw q.nvml.error(status, f.nvmlDeviceGetMigDeviceHandleByIndex.name, q.device->label());
    list.push_back(nvml_describe(q.nvml.device(handle)));
  }
  return {{std::move(list)}, used};
}

NvmlAnswer mig_instance(const NvmlQuestion& q) {
  const Functions& f = q.nvml.functions();
  Attributes attributes = {};
  const char* used = q.device->ask({q.device->way(f.nvmlDeviceGetAttributes_v2, &attributes)});
  return {{Record{{"gpuInstance", one(q, f.nvmlDeviceGetGpuInstanceId).value},
                  {"computeInstance", nvml_optional([&] {
                     return std::get<double>(one(q, f.nvmlDeviceGetComputeInstanceId).value.held);
                   })},
                  {"multiprocessors", {static_cast<double>(attributes.multiprocessors)}},
                  {"memoryBytes", {1048576.0 * static_cast<double>(attributes.memory_mib)}},
                  {"gpuSlices", {static_cast<double>(attributes.gpu_slices)}},
                  {"computeSlices", {static_cast<double>(attributes.compute_slices)}},
                  {"copyEngines", {static_cast<double>(attributes.copy_engines)}}}},
          used};
}

bool switched_on(const NvmlAnswer& answer) { return std::get<double>(answer.value.held) != 0; }

template <auto function>
NvmlAnswer number_of(const NvmlQuestion& q) {
  return one(q, q.nvml.functions().*function);
}

template <auto function>
NvmlAnswer switch_of(const NvmlQuestion& q) {
  const NvmlAnswer answer = number_of<function>(q);
  return {{switched_on(answer)}, answer.function};
}

template <auto function>
NvmlAnswer both_of(const NvmlQuestion& q) {
  return current_and_pending(q, q.nvml.functions().*function);
}

}  // namespace

NvmlValue nvml_describe(NvmlDevice& device) {
  const Functions& f = device.nvml.functions();
  const auto text = [&](const Function<Handle, char*, Count>& function) {
    char buffer[97] = {};
    const int status = nvml_patiently([&] { return function(device.handle, buffer, sizeof(buffer) - 1); });
    return status == kSuccess ? NvmlValue{std::string(buffer)} : NvmlValue{nullptr};
  };
  Count mig = 0, index = 0;
  if (f.nvmlDeviceIsMigDeviceHandle(device.handle, &mig) != kSuccess) mig = 0;
  const bool indexed = mig == 0 && f.nvmlDeviceGetIndex(device.handle, &index) == kSuccess;
  const std::string address = pci_address(device.label());
  return {Record{{"device", {&device}},
                 {"index", indexed ? NvmlValue{static_cast<double>(index)} : NvmlValue{nullptr}},
                 {"address", address.empty() ? NvmlValue{nullptr} : NvmlValue{address}},
                 {"uuid", text(f.nvmlDeviceGetUUID)},
                 {"name", text(f.nvmlDeviceGetName)},
                 {"mig", {mig != 0}}}};
}

const NvmlQuery kNvmlSystem[] = {
    {"driverVersion", driver_version},
    {"nvmlVersion", nvml_version},
    {"cudaVersion", cuda_version},
    {"devices", devices},
    {"device", device},
    {},
};

const NvmlQuery kNvmlIdentity[] = {
    {"pci", pci},
    {"vbios", vbios},
    {"computeCapability", compute_capability},
    {"architecture", number_of<&Functions::nvmlDeviceGetArchitecture>},
    {"cores", number_of<&Functions::nvmlDeviceGetNumGpuCores>},
    {"memoryBusBits", number_of<&Functions::nvmlDeviceGetMemoryBusWidth>},
    {"pcieLink", pcie_link},
    {"virtualisation", number_of<&Functions::nvmlDeviceGetVirtualizationMode>},
    {"computeMode", number_of<&Functions::nvmlDeviceGetComputeMode>},
    {"persistence", switch_of<&Functions::nvmlDeviceGetPersistenceMode>},
    {"ecc", both_of<&Functions::nvmlDeviceGetEccMode>},
    {"migMode", both_of<&Functions::nvmlDeviceGetMigMode>},
    {"migDevices", mig_devices},
    {"migParent", mig_parent},
    {"migInstance", mig_instance},
    {},
};

}  // namespace kw
