// The part of NVML's C interface that is bound: its structs with their published sizes and its functions with their signatures.
// Written down here because no header of NVIDIA's exists where this is built, and any driver may be found where it runs.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kw::nvml {

using Handle = struct nvmlDevice_st*;
using Sample = struct nvmlGpmSample_st*;
using Count = unsigned int;
using Wide = unsigned long long;

// nvmlReturn_t, as far as a caller does something about it. kNoFunction is ours: the library has no such symbol.
enum Status : int {
  kNoFunction = -1,
  kSuccess = 0,
  kInvalidArgument = 2,
  kNotSupported = 3,
  kNoPermission = 4,
  kNotFound = 6,
  kInsufficientSize = 7,
  kDriverNotLoaded = 9,
  kTimeout = 10,
  kLibraryNotFound = 12,
  kFunctionNotFound = 13,
  kGpuIsLost = 15,
  kResetRequired = 16,
  kOperatingSystem = 17,
  kVersionMismatch = 18,
  kArgumentVersion = 25,
  kDeprecated = 26,
  kNotReady = 27,
  kGpuNotFound = 28,
};

struct Memory {
  uint64_t total, free, used;  // used includes what the driver reserves
};
struct MemoryV2 {
  uint32_t version = 0x02000028;
  uint64_t total, reserved, free, used;
};
struct Utilization {
  uint32_t gpu, memory;
};
struct Temperature {
  uint32_t version = 0x0100000c;
  uint32_t sensor = 0;
  int32_t celsius;
};
struct Pci {
  char bus_id_legacy[16];
  uint32_t domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
};

union Value {
  double d;
  uint32_t u32;
  uint64_t u64;
  int64_t i64;
  int32_t i32;
  uint16_t u16;
};
// nvmlValueType_t; the third is unsigned long, as wide as u64 on every platform built for.
enum class ValueType : int32_t { DOUBLE, U32, UNSIGNED_LONG, U64, I64, I32, U16 };

// The number in a value; NaN for a type of later drivers.
double number(ValueType type, const Value& value);

struct FieldValue {
  uint32_t field, scope;
  int64_t timestamp_us, latency_us;
  ValueType type;
  int32_t status;
  Value value;
};
struct BufferSample {
  uint64_t timestamp_us;
  Value value;
};
struct GpmSupport {
  uint32_t version = 1;
  uint32_t supported;
};
struct GpmMetric {
  uint32_t id;
  int32_t status;
  double value;
  const char* info[3];
};
struct GpmMetrics {
  static constexpr int kMax = 333;  // of the newest header; older drivers read and write less of the array
  uint32_t version = 1;
  uint32_t count;
  Sample first, second;
  GpmMetric metrics[kMax];
};
struct Attributes {
  uint32_t multiprocessors, copy_engines, decoders, encoders, jpegs, ofas, gpu_slices, compute_slices;
  uint64_t memory_mib;
};
struct AccountingStats {
  uint32_t gpu_percent, memory_percent;
  uint64_t peak_bytes, milliseconds, start_us;
  uint32_t running, reserved[5];
};

static_assert(sizeof(Memory) == 24 && sizeof(MemoryV2) == 40 && offsetof(MemoryV2, total) == 8);
static_assert(sizeof(Utilization) == 8 && sizeof(Temperature) == 12);
static_assert(sizeof(Pci) == 68 && offsetof(Pci, bus_id) == 36);
static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, type) == 24 && offsetof(FieldValue, value) == 32);
static_assert(sizeof(BufferSample) == 16 && sizeof(GpmSupport) == 8);
static_assert(sizeof(GpmMetric) == 40 && offsetof(GpmMetrics, metrics) == 24);
static_assert(sizeof(GpmMetrics) == 24 + 40 * GpmMetrics::kMax);
static_assert(sizeof(Attributes) == 40 && sizeof(AccountingStats) == 56);

// X(name, arguments of the function). All of them return nvmlReturn_t.
#define KW_NVML_FUNCTIONS(X)                                                    \
  X(nvmlInit_v2)                                                                \
  X(nvmlInitWithFlags, Count)                                                   \
  X(nvmlSystemGetDriverVersion, char*, Count)                                   \
  X(nvmlSystemGetNVMLVersion, char*, Count)                                     \
  X(nvmlSystemGetCudaDriverVersion_v2, int*)                                    \
  X(nvmlSystemGetCudaDriverVersion, int*)                                       \
  X(nvmlDeviceGetCount_v2, Count*)                                              \
  X(nvmlDeviceGetHandleByIndex_v2, Count, Handle*)                              \
  X(nvmlDeviceGetHandleByPciBusId_v2, const char*, Handle*)                     \
  X(nvmlDeviceGetHandleByUUID, const char*, Handle*)                            \
  X(nvmlDeviceGetIndex, Handle, Count*)                                         \
  X(nvmlDeviceGetName, Handle, char*, Count)                                    \
  X(nvmlDeviceGetUUID, Handle, char*, Count)                                    \
  X(nvmlDeviceGetPciInfo_v3, Handle, Pci*)                                      \
  X(nvmlDeviceGetVbiosVersion, Handle, char*, Count)                            \
  X(nvmlDeviceGetCudaComputeCapability, Handle, int*, int*)                     \
  X(nvmlDeviceGetArchitecture, Handle, Count*)                                  \
  X(nvmlDeviceGetNumGpuCores, Handle, Count*)                                   \
  X(nvmlDeviceGetMemoryBusWidth, Handle, Count*)                                \
  X(nvmlDeviceGetCurrPcieLinkGeneration, Handle, Count*)                        \
  X(nvmlDeviceGetCurrPcieLinkWidth, Handle, Count*)                             \
  X(nvmlDeviceGetMaxPcieLinkGeneration, Handle, Count*)                         \
  X(nvmlDeviceGetMaxPcieLinkWidth, Handle, Count*)                              \
  X(nvmlDeviceGetVirtualizationMode, Handle, int*)                              \
  X(nvmlDeviceGetPersistenceMode, Handle, int*)                                 \
  X(nvmlDeviceGetComputeMode, Handle, int*)                                     \
  X(nvmlDeviceGetEccMode, Handle, int*, int*)                                   \
  X(nvmlDeviceGetMigMode, Handle, Count*, Count*)                               \
  X(nvmlDeviceIsMigDeviceHandle, Handle, Count*)                                \
  X(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, Handle, Handle*)              \
  X(nvmlDeviceGetMaxMigDeviceCount, Handle, Count*)                             \
  X(nvmlDeviceGetMigDeviceHandleByIndex, Handle, Count, Handle*)                \
  X(nvmlDeviceGetGpuInstanceId, Handle, Count*)                                 \
  X(nvmlDeviceGetComputeInstanceId, Handle, Count*)                             \
  X(nvmlDeviceGetAttributes_v2, Handle, Attributes*)                            \
  X(nvmlDeviceGetMemoryInfo_v2, Handle, MemoryV2*)                              \
  X(nvmlDeviceGetMemoryInfo, Handle, Memory*)                                   \
  X(nvmlDeviceGetUtilizationRates, Handle, Utilization*)                        \
  X(nvmlDeviceGetClockInfo, Handle, int, Count*)                                \
  X(nvmlDeviceGetMaxClockInfo, Handle, int, Count*)                             \
  X(nvmlDeviceGetClock, Handle, int, int, Count*)                               \
  X(nvmlDeviceGetCurrentClocksEventReasons, Handle, Wide*)                      \
  X(nvmlDeviceGetCurrentClocksThrottleReasons, Handle, Wide*)                   \
  X(nvmlDeviceGetSupportedClocksEventReasons, Handle, Wide*)                    \
  X(nvmlDeviceGetSupportedClocksThrottleReasons, Handle, Wide*)                 \
  X(nvmlDeviceGetTemperatureV, Handle, Temperature*)                            \
  X(nvmlDeviceGetTemperature, Handle, int, Count*)                              \
  X(nvmlDeviceGetTemperatureThreshold, Handle, int, Count*)                     \
  X(nvmlDeviceGetPerformanceState, Handle, int*)                                \
  X(nvmlDeviceGetPowerUsage, Handle, Count*)                                    \
  X(nvmlDeviceGetTotalEnergyConsumption, Handle, Wide*)                         \
  X(nvmlDeviceGetEnforcedPowerLimit, Handle, Count*)                            \
  X(nvmlDeviceGetPowerManagementLimit, Handle, Count*)                          \
  X(nvmlDeviceGetPowerManagementDefaultLimit, Handle, Count*)                   \
  X(nvmlDeviceGetPowerManagementLimitConstraints, Handle, Count*, Count*)       \
  X(nvmlDeviceGetFieldValues, Handle, int, FieldValue*)                         \
  X(nvmlDeviceGetSamples, Handle, int, Wide, ValueType*, Count*, BufferSample*) \
  X(nvmlDeviceGetComputeRunningProcesses_v3, Handle, Count*, void*)             \
  X(nvmlDeviceGetComputeRunningProcesses_v2, Handle, Count*, void*)             \
  X(nvmlDeviceGetComputeRunningProcesses, Handle, Count*, void*)                \
  X(nvmlDeviceGetAccountingMode, Handle, int*)                                  \
  X(nvmlDeviceGetAccountingStats, Handle, Count, AccountingStats*)              \
  X(nvmlGpmQueryDeviceSupport, Handle, GpmSupport*)                             \
  X(nvmlGpmSampleAlloc, Sample*)                                                \
  X(nvmlGpmSampleFree, Sample)                                                  \
  X(nvmlGpmSampleGet, Handle, Sample)                                           \
  X(nvmlGpmMigSampleGet, Handle, Count, Sample)                                 \
  X(nvmlGpmMetricsGet, GpmMetrics*)

template <class... Arguments>
struct Function {
  const char* name;
  int (*pointer)(Arguments...) = nullptr;

  int operator()(Arguments... arguments) const {
    return pointer == nullptr ? static_cast<int>(kNoFunction) : pointer(arguments...);
  }
};

struct Functions {
#define KW_NVML_MEMBER(name, ...) Function<__VA_ARGS__> name{#name};
  KW_NVML_FUNCTIONS(KW_NVML_MEMBER)
#undef KW_NVML_MEMBER
};

}  // namespace kw::nvml
