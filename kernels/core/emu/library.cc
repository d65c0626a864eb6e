// libkernwatt_emu.so: the table of core/abi.h over the emulator. A stream is a thread that works through a queue, so callers
// meet the asynchrony of a GPU; device memory is host memory between guard pages.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "../abi.h"
#include "../cuda/registry.h"
#include "../cuda/status.h"
#include "emu.h"
#include "submit.h"

namespace kw {
namespace {

// Few multiprocessors, so that problems small enough to emulate meet every choice that depends on their number.
struct Model {
  const char* name;
  const char* uuid;
  emu::Profile profile;
  int sm_count;
};
constexpr Model kModels[] = {
    {"emulated sm_90, 227 KB", "EMU-0", emu::kSm90, 2},
    {"emulated sm_80, 163 KB", "EMU-1", emu::kSm80, 2},
    {"emulated sm_89, 99 KB", "EMU-2", emu::kSm89, 2},
};
constexpr int kDevices = static_cast<int>(std::size(kModels));
constexpr uint64_t kDeviceBytes = uint64_t{2} << 30;

const Model& model(int device) {
  if (device < 0 || device >= kDevices)
    throw Error(Code::ARGUMENT,
                "emu: device is " + std::to_string(device) + ", expected 0 to " + std::to_string(kDevices - 1));
  return kModels[device];
}

// ---- streams, events, graphs -----------------------------------------------------------------------------------------

// What stopped a stream. Work queued after it is dropped until an event_wait has reported it; then the stream goes on.
struct Failure {
  Error error;
  std::atomic<bool> reported = false;
};

struct Event {
  std::mutex mutex;
  std::condition_variable done;
  uint64_t recorded = 0, reached = 0;
  std::shared_ptr<Failure> failure;  // of the stream, when the last record was reached
  StreamStatus* status = nullptr;    // of the stream of the last record
};
using EventHandle = std::shared_ptr<Event>;

class EmuStream {
 public:
  using Work = std::function<void(EmuStream&)>;
  struct Item {
    Work work;
    bool always;  // runs on a failed stream too
  };
  using Graph = std::vector<Item>;

  EmuStream(int device, StreamStatus* status) : device_(device), status_(status), thread_([this] { loop(); }) {}
  ~EmuStream() {
    {
      std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  int device() const { return device_; }
  StreamStatus* status() const { return status_; }

  void push(Item item) {
    {
      std::lock_guard lock(mutex_);
      if (!item.always && failure_ && !failure_->reported) throw failure_->error;
      (capture_ ? *capture_ : queue_).push_back(std::move(item));
    }
    changed_.notify_all();
  }

  void begin_capture() {
    std::lock_guard lock(mutex_);
    if (capture_) throw Error(Code::CUDA, "graph_begin: the stream is being captured already");
    capture_ = std::make_unique<std::deque<Item>>();
  }
  std::unique_ptr<Graph> end_capture() {
    std::lock_guard lock(mutex_);
    if (!capture_) throw Error(Code::CUDA, "graph_end: the stream is not being captured");
    auto graph = std::make_unique<Graph>(capture_->begin(), capture_->end());
    capture_.reset();
    return graph;
  }

  void drain() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
  }

  std::shared_ptr<Failure> failure() {
    std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  void loop() {
    emu::options().profile = kModels[device_].profile;
    if (KW_EMU_RACE) emu::options().race = true;
    std::unique_lock lock(mutex_);
    for (;;) {
      if (queue_.empty()) changed_.notify_all();  // to drain()
      changed_.wait(lock, [this] { return !queue_.empty() || closing_; });
      if (queue_.empty()) return;
      const Item item = std::move(queue_.front());
      queue_.pop_front();
      if (failure_ && failure_->reported) failure_.reset();
      if (failure_ && !item.always) continue;
      busy_ = true;
      lock.unlock();
      std::shared_ptr<Failure> failure;
      try {
        item.work(*this);
      } catch (const Error& error) {
        failure = std::make_shared<Failure>(error);
      } catch (const std::exception& error) {
        failure = std::make_shared<Failure>(Error(Code::INTERNAL, error.what()));
      }
      lock.lock();
      if (failure) failure_ = std::move(failure);
      busy_ = false;
    }
  }

  const int device_;
  StreamStatus* const status_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  std::unique_ptr<std::deque<Item>> capture_;
  std::shared_ptr<Failure> failure_;
  bool busy_ = false, closing_ = false;
  std::thread thread_;  // last: it uses the members above
};

// ---- memory ----------------------------------------------------------------------------------------------------------

// Never destroyed: streams may still be running when the process ends.
struct Library {
  std::mutex mutex;
  std::map<uintptr_t, uint64_t> allocations[kDevices];  // first byte -> bytes
  uint64_t used[kDevices] = {};
  std::set<EmuStream*> streams;
  std::vector<StreamStatus*> spare_statuses;  // of streams that are gone; never freed, as graphs may still point there
};
Library& library() {
  static Library& instance = *new Library;
  return instance;
}

// cudaMemcpyAsync refuses memory that is not the device's; so does this.
void require_device_memory(int device, const void* p, uint64_t bytes, const char* name) {
  if (bytes == 0) return;
  const uintptr_t first = reinterpret_cast<uintptr_t>(p);
  Library& lib = library();
  std::lock_guard lock(lib.mutex);
  auto after = lib.allocations[device].upper_bound(first);
  if (after != lib.allocations[device].begin()) {
    const auto& [start, size] = *std::prev(after);
    if (first - start + bytes <= size) return;
  }
  char text[160];
  std::snprintf(text, sizeof(text), "copy: %s is %p with %llu bytes, expected memory of emulated device %d", name, p,
                static_cast<unsigned long long>(bytes), device);
  throw Error(Code::CUDA, text);
}

EmuStream& stream_of(void* stream) { return *static_cast<EmuStream*>(stream); }
EventHandle& event_of(void* event) { return *static_cast<EventHandle*>(event); }

// ---- the table -------------------------------------------------------------------------------------------------------

int32_t device_count(int32_t* count) {
  return guarded([&] {
    last_error().clear();
    *count = kDevices;
  });
}

int32_t device_info(int32_t device, kw_device_info* info) {
  return guarded([&] {
    const Model& m = model(device);
    *info = {};
    info->size = sizeof(*info);
    std::snprintf(info->name, sizeof(info->name), "%s", m.name);
    std::snprintf(info->uuid, sizeof(info->uuid), "%s", m.uuid);
    info->cc_major = m.profile.cc / 10;
    info->cc_minor = m.profile.cc % 10;
    info->sm_count = m.sm_count;
    info->emulated = 1;
    info->total_bytes = kDeviceBytes;
    info->smem_bytes = m.profile.smem_max;
  });
}

int32_t memory_info(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes) {
  return guarded([&] {
    model(device);
    std::lock_guard lock(library().mutex);
    *total_bytes = kDeviceBytes;
    *free_bytes = kDeviceBytes - library().used[device];
  });
}

int32_t alloc(int32_t device, uint64_t bytes, void** ptr) {
  return guarded([&] {
    model(device);
    Library& lib = library();
    std::lock_guard lock(lib.mutex);
    const uint64_t free = kDeviceBytes - lib.used[device];
    if (bytes > free)
      throw Error(Code::OUT_OF_MEMORY, "alloc: bytes is " + std::to_string(bytes) + ", expected at most the " +
                                           std::to_string(free) + " that emulated device " + std::to_string(device) +
                                           " has free");
    *ptr = emu::gmem_alloc(bytes ? bytes : 1);
    lib.allocations[device][reinterpret_cast<uintptr_t>(*ptr)] = bytes;
    lib.used[device] += bytes;
  });
}

// Waits for the device's queued work first, as cudaFree does.
int32_t release(int32_t device, void* ptr) {
  return guarded([&] {
    model(device);
    if (!ptr) return;
    Library& lib = library();
    std::lock_guard lock(lib.mutex);
    const auto found = lib.allocations[device].find(reinterpret_cast<uintptr_t>(ptr));
    if (found == lib.allocations[device].end())
      throw Error(Code::CUDA, "free: ptr is not an allocation of emulated device " + std::to_string(device));
    for (EmuStream* stream : lib.streams)
      if (stream->device() == device) stream->drain();
    emu::gmem_free(ptr);
    lib.used[device] -= found->second;
    lib.allocations[device].erase(found);
  });
}

int32_t host_alloc(uint64_t bytes, void** ptr) {
  return guarded([&] {
    *ptr = std::aligned_alloc(256, (bytes + 256) / 256 * 256);
    if (!*ptr) throw std::bad_alloc();
  });
}

int32_t host_free(void* ptr) {
  return guarded([&] { std::free(ptr); });
}

int32_t stream_create(int32_t device, void** stream) {
  return guarded([&] {
    model(device);
    emu::options();  // reads KERNWATT_EMU: a mistake in it is reported here, not in the stream's thread
    Library& lib = library();
    std::lock_guard lock(lib.mutex);
    if (lib.spare_statuses.empty())
      lib.spare_statuses.push_back(new (emu::gmem_alloc(sizeof(StreamStatus))) StreamStatus);
    auto made = std::make_unique<EmuStream>(device, lib.spare_statuses.back());
    lib.spare_statuses.pop_back();
    lib.streams.insert(made.get());
    *stream = made.release();
  });
}

int32_t stream_destroy(void* stream) {
  return guarded([&] {
    std::unique_ptr<EmuStream> closing(&stream_of(stream));
    closing->drain();
    std::lock_guard lock(library().mutex);
    library().streams.erase(closing.get());
    *closing->status() = {};
    library().spare_statuses.push_back(closing->status());
  });
}

int32_t copy(int32_t device, void* dst, const void* src, uint64_t bytes, int32_t kind, void* stream) {
  return guarded([&] {
    model(device);
    if (kind != KW_TO_HOST) require_device_memory(device, dst, bytes, "dst");
    if (kind != KW_TO_DEVICE) require_device_memory(device, src, bytes, "src");
    stream_of(stream).push({[=](EmuStream&) {
                              if (bytes) std::memcpy(dst, src, bytes);
                            },
                            false});
  });
}

int32_t event_create(int32_t device, int32_t, void** event) {
  return guarded([&] {
    model(device);
    *event = new EventHandle(std::make_shared<Event>());
  });
}

int32_t event_destroy(void* event) {
  return guarded([&] { delete &event_of(event); });
}

int32_t event_record(void* event, void* stream) {
  return guarded([&] {
    const EventHandle handle = event_of(event);
    uint64_t ticket;
    {
      std::lock_guard lock(handle->mutex);
      ticket = ++handle->recorded;
      handle->status = stream_of(stream).status();
    }
    stream_of(stream).push({[handle, ticket](EmuStream& at) {
                              std::shared_ptr<Failure> failure = at.failure();
                              std::lock_guard lock(handle->mutex);
                              handle->reached = std::max(handle->reached, ticket);
                              handle->failure = std::move(failure);
                              handle->done.notify_all();
                            },
                            true});
  });
}

int32_t event_wait(void* event) {
  return guarded([&] {
    const EventHandle handle = event_of(event);
    std::unique_lock lock(handle->mutex);
    handle->done.wait(lock, [&] { return handle->reached >= handle->recorded; });
    if (handle->failure) {
      handle->failure->reported = true;
      throw Error(handle->failure->error);
    }
    if (handle->status) raise(*handle->status);
  });
}

int32_t event_seconds(void*, void*, double*) {
  return guarded([] { throw Error(Code::UNSUPPORTED, "event_seconds: emulated time means nothing"); });
}

int32_t graph_begin(void* stream) {
  return guarded([&] { stream_of(stream).begin_capture(); });
}

int32_t graph_end(void* stream, void** graph) {
  return guarded([&] { *graph = stream_of(stream).end_capture().release(); });
}

int32_t graph_launch(void* graph, void* stream) {
  return guarded([&] {
    for (const EmuStream::Item& item : *static_cast<EmuStream::Graph*>(graph)) stream_of(stream).push(item);
  });
}

int32_t graph_destroy(void* graph) {
  return guarded([&] { delete static_cast<EmuStream::Graph*>(graph); });
}

// A launch without a stream runs at once; one with a stream joins its queue.
[[maybe_unused]] const bool kStreamsTakeLaunches = [] {
  emu::submit = [](void* stream, std::function<void()> work) {
    if (!stream) return work();
    stream_of(stream).push({[work = std::move(work)](EmuStream&) { work(); }, false});
  };
  return true;
}();

}  // namespace

StreamStatus* status_of(void* stream) { return stream ? stream_of(stream).status() : nullptr; }

// prepare() checks a kernel's needs against the calling thread's profile.
void use_device(int device) { emu::options().profile = model(device).profile; }

int use_device(const kw_device_info& info) {
  for (int device = 0; device < kDevices; ++device) {
    if (std::strcmp(kModels[device].uuid, info.uuid) != 0) continue;
    use_device(device);
    return device;
  }
  throw Error(Code::ARGUMENT, std::string("plan_create: device uuid is '") + info.uuid +
                                  "', expected one that device_info of this library gave");
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
      .trace = [](int32_t) { return ""; },
  };
  return &table;
}
