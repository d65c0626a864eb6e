// A stand-in for libnvidia-ml.so.1: one GPU of constant power whose energy counter moves in ticks, as real ones do.
//
//   FAKE_NVML_TICK_MS (20)   between two steps of the counter         FAKE_NVML_WATTS (250)   power
//   FAKE_NVML_GAIN (1)       what the counter counts, over the true joules
//
// GPM samples can be taken but not read (no permission), the memory scope exists for power alone, fields 269-271 do not exist,
// and nvmlDeviceGetNumGpuCores and others are missing: each is a state that a meter must tell apart.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace {

constexpr int kOk = 0, kNotSupported = 3, kNoPermission = 4, kTooSmall = 7;
constexpr int kUnsigned = 1, kUnsignedLongLong = 3;

struct FieldValue {
  uint32_t field, scope;
  int64_t timestamp_us, latency_us;
  int32_t type, status;
  uint64_t value;
};

struct Sample {
  uint64_t timestamp_us, value;
};

double option(const char* name, double otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atof(text) : otherwise;
}

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double watts() { return option("FAKE_NVML_WATTS", 250); }

uint64_t millijoules() {
  const double tick = option("FAKE_NVML_TICK_MS", 20) / 1e3;
  const double counted = static_cast<double>(static_cast<uint64_t>(now() / tick)) * tick;
  return static_cast<uint64_t>(1e3 * watts() * option("FAKE_NVML_GAIN", 1) * counted);
}

void answer(FieldValue& f) {
  f.timestamp_us = static_cast<int64_t>(1e6 * now());
  f.status = kOk;
  f.type = kUnsigned;
  const bool power = f.field == 185 || f.field == 186;
  if (f.field == 83 && f.scope == 0) {
    f.type = kUnsignedLongLong;
    f.value = millijoules();
  } else if (power && f.scope == 0) {
    f.value = static_cast<uint64_t>(1e3 * watts());
  } else if (power && f.scope == 2) {
    f.value = static_cast<uint64_t>(1e2 * watts());
  } else if (f.field >= 74 && f.field <= 81) {
    f.type = kUnsignedLongLong;
    f.value = f.field == 74 ? static_cast<uint64_t>(0.5e9 * now()) : 0;  // half the time, in ns
  } else {
    f.status = kNotSupported;
  }
}

}  // namespace

extern "C" {

int nvmlInit_v2() { return kOk; }
const char* nvmlErrorString(int status) { return status == kNoPermission ? "No Permission" : "Not Supported"; }

int nvmlDeviceGetHandleByIndex_v2(unsigned, void** device) {
  *device = device;
  return kOk;
}

int nvmlDeviceGetFieldValues(void*, int count, FieldValue* values) {
  for (int i = 0; i < count; ++i) answer(values[i]);
  return kOk;
}

int nvmlDeviceGetMaxClockInfo(void*, int type, unsigned* mhz) {
  *mhz = type == 2 ? 3201 : 1980;
  return kOk;
}

int nvmlDeviceGetSamples(void*, int, unsigned long long, int* type, unsigned* count, Sample* samples) {
  *type = kUnsigned;
  *count = 5;
  for (uint64_t i = 0; samples && i < 5; ++i) samples[i] = {1000 + 20000 * i, static_cast<uint64_t>(1e3 * watts())};
  return kOk;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned* count, void* processes) {
  if (*count < 1) return *count = 1, kTooSmall;
  *count = 1;
  const uint32_t pid = 4242;
  std::memcpy(processes, &pid, sizeof(pid));
  return kOk;
}

int nvmlGpmQueryDeviceSupport(void*, uint32_t* support) {
  support[1] = 1;
  return kOk;
}
int nvmlGpmSampleAlloc(void** sample) {
  *sample = sample;
  return kOk;
}
int nvmlGpmSampleFree(void*) { return kOk; }
int nvmlGpmSampleGet(void*, void*) { return kOk; }
int nvmlGpmMetricsGet(void*) { return kNoPermission; }
}
