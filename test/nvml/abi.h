// The part of NVML's C interface that a meter uses, by its published layout (64-bit Linux): status codes, value types and
// structures, each with its size held by a static_assert. Versioned structures carry sizeof | (version << 24). Written apart from
// native/meter/nvml_abi.h, so that a mistake in either shows.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kw::fake {

enum Status : int {
  kOk = 0,
  kUninitialized = 1,
  kInvalidArgument = 2,
  kNotSupported = 3,
  kNoPermission = 4,
  kNotFound = 6,
  kInsufficientSize = 7,
  kGpuIsLost = 15,
  kNoData = 21,
  kVersionMismatch = 25,
};

enum ValueType : int { kDouble, kUnsigned, kUnsignedLong, kUnsignedLongLong, kSignedLongLong, kSigned, kUnsignedShort };

enum Scope : uint32_t { kScopeGpu = 0, kScopeModule = 1, kScopeMemory = 2, kScopeGpuBase = 3 };

union Value {
  double d;
  uint32_t u32;
  uint64_t u64;
};

struct Memory {
  uint64_t total, free, used;
};
static_assert(sizeof(Memory) == 24);

struct MemoryV2 {
  uint32_t version;
  uint64_t total, reserved, free, used;
};
static_assert(sizeof(MemoryV2) == 40 && offsetof(MemoryV2, used) == 32);

struct Utilization {
  uint32_t gpu, memory;
};
static_assert(sizeof(Utilization) == 8);

struct Temperature {
  uint32_t version;
  int32_t sensor, celsius;
};
static_assert(sizeof(Temperature) == 12);

struct ProcessInfo {
  uint32_t pid;
  uint64_t bytes;
  uint32_t gpu_instance, compute_instance;
};
static_assert(sizeof(ProcessInfo) == 24 && offsetof(ProcessInfo, bytes) == 8);

struct FieldValue {
  uint32_t field, scope;
  int64_t timestamp_us, latency_us;
  int32_t type, status;
  Value value;
};
static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, value) == 32);

struct Sample {
  uint64_t timestamp_us;
  Value value;
};
static_assert(sizeof(Sample) == 16);

struct PciInfo {
  char bus_id_legacy[16];
  uint32_t domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
static_assert(sizeof(PciInfo) == 68 && offsetof(PciInfo, bus_id) == 36);

struct GpmMetric {
  uint32_t id;
  int32_t status;
  double value;
  const char* info[3];
};
static_assert(sizeof(GpmMetric) == 40);

/** Real headers end in an array of 98 to 333 metrics; only as many as `count` are read. */
struct GpmMetricsGet {
  uint32_t version, count;
  void *first, *second;
  GpmMetric metrics[1];
};
static_assert(offsetof(GpmMetricsGet, metrics) == 24);

struct GpmSupport {
  uint32_t version, supported;
};
static_assert(sizeof(GpmSupport) == 8);

struct Attributes {
  uint32_t multiprocessors, copy_engines, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices;
  uint64_t memory_mebibytes;
};
static_assert(sizeof(Attributes) == 40 && offsetof(Attributes, memory_mebibytes) == 32);

struct AccountingStats {
  uint32_t gpu, memory;
  uint64_t max_bytes, time_ms, start_us;
  uint32_t running, reserved[5];
};
static_assert(sizeof(AccountingStats) == 56 && offsetof(AccountingStats, running) == 32);

template <class T>
constexpr uint32_t version_of(uint32_t version) {
  return static_cast<uint32_t>(sizeof(T)) | (version << 24);
}
static_assert(version_of<MemoryV2>(2) == 0x02000028 && version_of<Temperature>(1) == 0x0100000c);

}  // namespace kw::fake
