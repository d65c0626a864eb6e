// libkernwatt_cuda.so: the table of core/abi.h over the CUDA runtime. Links neither libcuda nor a shared cudart, so it
// opens on a machine without a driver and says there what is missing.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "../abi.h"
#include "check.h"
#include "registry.h"
#include "status.h"
#include "trace.h"

namespace kw {
namespace {

constexpr int kOldestMajor = 8;  // the library carries code for compute capability 8.0 and up

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Why there is no device, in words that say which of driver and device is missing.
std::string no_device_reason(cudaError_t status) {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  const std::string cause = " [" + describe("cudaGetDeviceCount", status) + "]";
  if (driver == 0) return "no NVIDIA driver: libcuda.so.1 is not installed or not visible here" + cause;
  if (driver / 1000 < CUDART_VERSION / 1000)
    return "the NVIDIA driver supports CUDA " + version_text(driver) + ", expected at least " +
           std::to_string(CUDART_VERSION / 1000) + ".0; update the driver" + cause;
  if (status == cudaErrorNoDevice || status == cudaSuccess)
    return "the NVIDIA driver is installed, but it offers no device to this process (see CUDA_VISIBLE_DEVICES)" + cause;
  return "the NVIDIA driver is installed, but CUDA does not start" + cause;
}

int visible_devices(std::string* reason) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return count;
  cudaGetLastError();
  if (reason) *reason = no_device_reason(status);
  return 0;
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  if (cudaDeviceGetAttribute(&value, which, device) == cudaSuccess) return value;
  cudaGetLastError();
  return 0;
}

void format_uuid(const cudaUUID_t& uuid, char (&out)[48]) {
  unsigned char b[16];
  std::memcpy(b, uuid.bytes, 16);
  std::snprintf(out, sizeof(out), "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

int32_t device_count(int32_t* count) {
  return guarded([&] {
    last_error().clear();
    *count = visible_devices(&last_error());
  });
}

int32_t device_info(int32_t device, kw_device_info* info) {
  return guarded([&] {
    cudaDeviceProp prop;
    cuda_check("cudaGetDeviceProperties", cudaGetDeviceProperties(&prop, device));
    if (prop.major < kOldestMajor)
      throw Error(Code::UNSUPPORTED, std::string("device_info: compute capability of ") + prop.name + " is " +
                                         std::to_string(prop.major) + "." + std::to_string(prop.minor) +
                                         ", expected at least " + std::to_string(kOldestMajor) + ".0");
    *info = {};
    info->size = sizeof(*info);
    std::snprintf(info->name, sizeof(info->name), "%.127s", prop.name);
    format_uuid(prop.uuid, info->uuid);
    cuda_check("cudaDeviceGetPCIBusId", cudaDeviceGetPCIBusId(info->pci, sizeof(info->pci), device));
    info->cc_major = prop.major;
    info->cc_minor = prop.minor;
    info->sm_count = prop.multiProcessorCount;
    info->total_bytes = prop.totalGlobalMem;
    info->smem_bytes = prop.sharedMemPerBlockOptin;
    info->llc_bytes = static_cast<uint64_t>(prop.l2CacheSize);
    cuda_check("cudaDriverGetVersion", cudaDriverGetVersion(&info->driver_version));
    cuda_check("cudaRuntimeGetVersion", cudaRuntimeGetVersion(&info->runtime_version));
    info->clock_khz = attribute(cudaDevAttrClockRate, device);
    info->memory_clock_khz = attribute(cudaDevAttrMemoryClockRate, device);
    info->memory_bus_bits = attribute(cudaDevAttrGlobalMemoryBusWidth, device);
  });
}

int32_t memory_info(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes) {
  return guarded([&] {
    use_device(device);
    size_t free = 0, total = 0;
    cuda_check("cudaMemGetInfo", cudaMemGetInfo(&free, &total));
    *free_bytes = free;
    *total_bytes = total;
  });
}

int32_t alloc(int32_t device, uint64_t bytes, void** ptr) {
  return guarded([&] {
    use_device(device);
    const std::string call = "cudaMalloc(" + std::to_string(bytes) + " bytes)";
    cuda_check(call.c_str(), cudaMalloc(ptr, std::max<uint64_t>(bytes, 1)));
  });
}

int32_t release(int32_t device, void* ptr) {
  return guarded([&] {
    use_device(device);
    cuda_check("cudaFree", cudaFree(ptr));
  });
}

int32_t host_alloc(uint64_t bytes, void** ptr) {
  return guarded([&] {
    const std::string call = "cudaHostAlloc(" + std::to_string(bytes) + " bytes)";
    cuda_check(call.c_str(), cudaHostAlloc(ptr, std::max<uint64_t>(bytes, 1), cudaHostAllocPortable));
  });
}

int32_t host_free(void* ptr) {
  return guarded([&] { cuda_check("cudaFreeHost", cudaFreeHost(ptr)); });
}

// Page-locked memory, at the same address on both sides. An event remembers the stream it was last recorded on. The word
// of a stream that is gone goes to the next one and is never freed, as graphs may still point there.
struct Statuses {
  std::mutex mutex;
  std::unordered_map<void*, StreamStatus*> of_stream, of_event;
  std::vector<StreamStatus*> spare;
};
Statuses& statuses() {
  static Statuses& instance =
      *new Statuses;  // never destroyed: other threads may still be running when the process ends
  return instance;
}

int32_t stream_create(int32_t device, void** stream) {
  return guarded([&] {
    use_device(device);
    Statuses& all = statuses();
    std::lock_guard lock(all.mutex);
    if (all.spare.empty()) {
      void* memory = nullptr;
      cuda_check("cudaHostAlloc(status)",
                 cudaHostAlloc(&memory, sizeof(StreamStatus), cudaHostAllocMapped | cudaHostAllocPortable));
      all.spare.push_back(new (memory) StreamStatus);
    }
    cudaStream_t made = nullptr;
    cuda_check("cudaStreamCreateWithFlags", cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    all.of_stream[made] = all.spare.back();
    all.spare.pop_back();
    *stream = made;
  });
}

// Waits for the stream, whose kernels may still write its status.
int32_t stream_destroy(void* stream) {
  return guarded([&] {
    const cudaError_t finished = cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
    const cudaError_t destroyed = cudaStreamDestroy(static_cast<cudaStream_t>(stream));
    {
      Statuses& all = statuses();
      std::lock_guard lock(all.mutex);
      const auto found = all.of_stream.find(stream);
      if (found != all.of_stream.end()) {
        *found->second = {};
        all.spare.push_back(found->second);
        all.of_stream.erase(found);
      }
    }
    cuda_check("cudaStreamSynchronize", finished);
    cuda_check("cudaStreamDestroy", destroyed);
  });
}

int32_t copy(int32_t device, void* dst, const void* src, uint64_t bytes, int32_t kind, void* stream) {
  return guarded([&] {
    use_device(device);
    const cudaMemcpyKind direction = kind == KW_TO_DEVICE ? cudaMemcpyHostToDevice
                                     : kind == KW_TO_HOST ? cudaMemcpyDeviceToHost
                                                          : cudaMemcpyDeviceToDevice;
    cuda_check("cudaMemcpyAsync", cudaMemcpyAsync(dst, src, bytes, direction, static_cast<cudaStream_t>(stream)));
  });
}

int32_t event_create(int32_t device, int32_t timing, void** event) {
  return guarded([&] {
    use_device(device);
    cudaEvent_t made = nullptr;
    cuda_check("cudaEventCreateWithFlags",
               cudaEventCreateWithFlags(&made, cudaEventBlockingSync | (timing ? 0u : cudaEventDisableTiming)));
    *event = made;
  });
}

int32_t event_destroy(void* event) {
  return guarded([&] {
    {
      std::lock_guard lock(statuses().mutex);
      statuses().of_event.erase(event);
    }
    cuda_check("cudaEventDestroy", cudaEventDestroy(static_cast<cudaEvent_t>(event)));
  });
}

int32_t event_record(void* event, void* stream) {
  return guarded([&] {
    cuda_check("cudaEventRecord", cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)));
    Statuses& all = statuses();
    std::lock_guard lock(all.mutex);
    const auto found = all.of_stream.find(stream);
    if (found != all.of_stream.end()) all.of_event[event] = found->second;
  });
}

int32_t event_wait(void* event) {
  return guarded([&] {
    cuda_check("cudaEventSynchronize", cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
    StreamStatus* status = nullptr;
    {
      std::lock_guard lock(statuses().mutex);
      const auto found = statuses().of_event.find(event);
      if (found != statuses().of_event.end()) status = found->second;
    }
    if (status) raise(*status);
  });
}

int32_t event_seconds(void* start, void* end, double* seconds) {
  return guarded([&] {
    float ms = 0;
    cuda_check("cudaEventElapsedTime",
               cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(start), static_cast<cudaEvent_t>(end)));
    *seconds = static_cast<double>(ms) * 1e-3;
  });
}

// Only this thread's calls are captured, so other threads go on using other streams.
int32_t graph_begin(void* stream) {
  return guarded([&] {
    cuda_check("cudaStreamBeginCapture",
               cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeThreadLocal));
  });
}

int32_t graph_end(void* stream, void** graph) {
  return guarded([&] {
    cudaGraph_t captured = nullptr;
    cuda_check("cudaStreamEndCapture", cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &captured));
    cudaGraphExec_t runnable = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&runnable, captured, 0);
    cudaGraphDestroy(captured);
    cuda_check("cudaGraphInstantiate", status);
    *graph = runnable;
  });
}

int32_t graph_launch(void* graph, void* stream) {
  return guarded([&] {
    cuda_check("cudaGraphLaunch",
               cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), static_cast<cudaStream_t>(stream)));
  });
}

int32_t graph_destroy(void* graph) {
  return guarded(
      [&] { cuda_check("cudaGraphExecDestroy", cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph))); });
}

}  // namespace

StreamStatus* status_of(void* stream) {
  Statuses& all = statuses();
  std::lock_guard lock(all.mutex);
  const auto found = all.of_stream.find(stream);
  return found == all.of_stream.end() ? nullptr : found->second;
}

void use_device(int device) {
  int current = -1;
  if (cudaGetDevice(&current) == cudaSuccess && current == device) return;
  cuda_check("cudaSetDevice", cudaSetDevice(device));
}

namespace {

const char* trace(int32_t on) {
  static thread_local std::string text;
  text.clear();
  if (!on) {
    std::set<std::string> names;
    for (const void* kernel : launch_trace.kernels) {
      const char* name = nullptr;
      if (cudaFuncGetName(&name, kernel) == cudaSuccess && name) names.insert(name);
    }
    for (const std::string& name : names) text += name + '\n';
  }
  launch_trace.on = on != 0;
  launch_trace.kernels.clear();
  return text.c_str();
}

}  // namespace

int use_device(const kw_device_info& info) {
  static const std::vector<std::string> uuids = [] {  // devices do not come or go within a process
    std::vector<std::string> found;
    for (int device = 0, count = visible_devices(nullptr); device < count; ++device) {
      cudaDeviceProp prop;
      cuda_check("cudaGetDeviceProperties", cudaGetDeviceProperties(&prop, device));
      char uuid[48];
      format_uuid(prop.uuid, uuid);
      found.push_back(uuid);
    }
    return found;
  }();
  const auto match = std::find(uuids.begin(), uuids.end(), info.uuid);
  if (match == uuids.end())
    throw Error(Code::ARGUMENT, std::string("plan_create: device uuid is '") + info.uuid +
                                    "', expected one that device_info of this library gave");
  const int device = static_cast<int>(match - uuids.begin());
  use_device(device);
  return device;
}

}  // namespace kw

extern "C" __attribute__((visibility("default"))) const kw_table* kw_cuda_table(int32_t abi) {
  using namespace kw;
  if (abi != KW_ABI) return nullptr;
  static const std::vector<const kw_op*> ops = sorted_ops();
  static const kw_table table{
      .size = sizeof(kw_table),
      .abi = KW_ABI,
      .build = KW_BUILD,
      .last_error = [] { return last_error().c_str(); },
      .device_count = device_count,
      .device_info = device_info,
      .memory_info = memory_info,
      .alloc = alloc,
      .free = release,
      .host_alloc = host_alloc,
      .host_free = host_free,
      .stream_create = stream_create,
      .stream_destroy = stream_destroy,
      .copy = copy,
      .event_create = event_create,
      .event_destroy = event_destroy,
      .event_record = event_record,
      .event_wait = event_wait,
      .event_seconds = event_seconds,
      .graph_begin = graph_begin,
      .graph_end = graph_end,
      .graph_launch = graph_launch,
      .graph_destroy = graph_destroy,
      .op_count = ops.size(),
      .ops = ops.data(),
      .trace = trace,
  };
  return &table;
}
