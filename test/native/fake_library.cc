// A library of kernels for tests: the table of kernels/core/abi.h over plain threads, so that everything the addon does
// with a GPU library (streams, events, graphs, failures, losing the device) runs anywhere. Its gemm computes
// y[i] = alpha * x[i] and misbehaves on request:
//
//   beta   milliseconds a call takes
//   alpha  -1: the launch fails; -2: the call fails when it runs; -3: it loses the device; -4: it writes into x
//
// Device 0 has 256 MiB, device 1 has 1 MiB. Copies of the file behave by their name: *abi* speaks another abi, *mute* none,
// *args* has other arguments, *empty* has no device, *slow* takes half a second to wake its driver, *sm90* is of
// that architecture, *emulated* says so. device_info counts live events and streams in
// clock_khz and memory_clock_khz.
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../../kernels/core/plan.h"
#include "../../kernels/gemm/gemm.h"

namespace {

using Clock = std::chrono::steady_clock;
using kw::Code;
using kw::Error;
using kw::guarded;

constexpr uint64_t kTotal[] = {256 << 20, 1 << 20};
std::atomic<uint64_t> allocated[2];
std::atomic<int> events{0}, streams{0};
std::atomic<bool> lost{false};

bool named(const char* word) {
  Dl_info info;
  dladdr(reinterpret_cast<void*>(&named), &info);
  return std::strstr(info.dli_fname, word) != nullptr;
}

void check_alive() {
  static std::atomic<int> reports{0};
  if (lost.load()) throw Error(Code::DEVICE_LOST, "fake: the device is lost, report " + std::to_string(++reports));
}

struct Event {
  std::mutex mutex;
  std::condition_variable reached_one;
  uint64_t recorded = 0, reached = 0;
  Clock::time_point at;
  std::string failure;
};

struct Stream {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  std::vector<std::function<void()>>* graph = nullptr;  // being captured
  bool closing = false;
  std::string failure;  // of a call that ran; the stream's thread alone
  std::thread thread{[this] { loop(); }};

  ~Stream() {
    {
      const std::lock_guard lock(mutex);
      closing = true;
    }
    changed.notify_all();
    thread.join();
  }
  void push(std::function<void()> work) {
    if (graph != nullptr) return graph->push_back(std::move(work));
    const std::lock_guard lock(mutex);
    queue.push_back(std::move(work));
    changed.notify_all();
  }
  void loop() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return closing || !queue.empty(); });
      if (queue.empty()) return;
      const std::function<void()> work = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      work();
      lock.lock();
    }
  }
};

Stream* stream_of(void* stream) { return static_cast<Stream*>(stream); }

class FakePlan {
 public:
  static std::string declines(const kw::GemmArgs& args, const kw_device_info&) {
    return args.activation == kw::Activation::none ? "" : "fake: it has no activations";
  }
  FakePlan(const kw::GemmArgs& args, const kw_device_info&) : args_(args) {}
  uint64_t workspace() const { return 4096; }
  void rebind(const kw::GemmArgs& args, void* workspace) {
    if (workspace == nullptr) throw Error(Code::INTERNAL, "fake: it was given no workspace");
    if (args.y.count() > 1 << 20) throw Error(Code::UNSUPPORTED, "fake: y is larger than its capacity");
    args_ = args;
  }
  void enqueue(void* stream) {
    check_alive();
    if (args_.alpha == -1) throw Error(Code::CUDA, "fake: the launch failed");
    stream_of(stream)->push([args = args_, stream = stream_of(stream)] {
      std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(args.beta));
      if (args.alpha == -2) stream->failure = "fake: the call failed";
      if (args.alpha == -3) lost.store(true);
      if (args.alpha == -4) static_cast<float*>(args.x.data)[0] = -4;
      if (args.alpha < 0) return;
      const auto* x = static_cast<const float*>(args.x.data);
      for (int64_t i = 0; i < args.y.count(); ++i) static_cast<float*>(args.y.data)[i] = args.alpha * x[i];
    });
  }
  // With the address of x, which is one of host memory here.
  std::string explain() const {
    return R"({"variant":"fake","x":")" + std::to_string(reinterpret_cast<uintptr_t>(args_.x.data)) + "\"}";
  }

 private:
  kw::GemmArgs args_;
};

const kw_op kGemm = [] {
  kw_op op = kw::make_op<kw::GemmArgs, FakePlan>("gemm");
  if (named("args")) op.args_size = 8;
  return op;
}();
const kw_op* const kOps[] = {&kGemm};

int32_t device_count(int32_t* count) {
  return guarded([&] {
    if (named("empty")) throw Error(Code::CUDA, "fake: no driver");
    static std::once_flag awake;
    if (named("slow")) std::call_once(awake, [] { std::this_thread::sleep_for(std::chrono::milliseconds(500)); });
    *count = 2;
  });
}

int32_t device_info(int32_t device, kw_device_info* info) {
  return guarded([&] {
    std::strcpy(info->name, "fake");
    info->sm_count = 1;
    info->total_bytes = kTotal[device];
    info->emulated = named("emulated");
    if (named("sm90")) info->cc_major = 9;
    info->clock_khz = events.load();
    info->memory_clock_khz = streams.load();
  });
}

int32_t memory_info(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes) {
  return guarded([&] {
    check_alive();
    *total_bytes = kTotal[device];
    *free_bytes = kTotal[device] - allocated[device].load();
  });
}

// Each block begins with its size.
int32_t alloc(int32_t device, uint64_t bytes, void** ptr) {
  return guarded([&] {
    check_alive();
    if (allocated[device].fetch_add(bytes) + bytes > kTotal[device]) {
      allocated[device].fetch_sub(bytes);
      throw Error(Code::OUT_OF_MEMORY, "fake: out of memory");
    }
    auto* block = static_cast<uint64_t*>(std::aligned_alloc(64, (bytes + 127) / 64 * 64));
    *block = bytes;
    *ptr = block + 8;
  });
}

int32_t release(int32_t device, void* ptr) {
  uint64_t* block = static_cast<uint64_t*>(ptr) - 8;
  allocated[device].fetch_sub(*block);
  std::free(block);
  return 0;
}

int32_t host_alloc(uint64_t bytes, void** ptr) {
  *ptr = std::malloc(bytes);
  return 0;
}

int32_t host_free(void* ptr) {
  std::free(ptr);
  return 0;
}

int32_t stream_create(int32_t, void** stream) {
  return guarded([&] {
    check_alive();
    *stream = new Stream;
    ++streams;
  });
}

int32_t stream_destroy(void* stream) {
  delete stream_of(stream);
  --streams;
  return 0;
}

int32_t copy(int32_t, void* dst, const void* src, uint64_t bytes, int32_t, void* stream) {
  return guarded([&] {
    check_alive();
    stream_of(stream)->push([=] { std::memcpy(dst, src, bytes); });
  });
}

int32_t event_create(int32_t, int32_t, void** event) {
  *event = new Event;
  ++events;
  return 0;
}

int32_t event_destroy(void* event) {
  delete static_cast<Event*>(event);
  --events;
  return 0;
}

int32_t event_record(void* handle, void* stream) {
  return guarded([&] {
    check_alive();
    auto* event = static_cast<Event*>(handle);
    {
      const std::lock_guard lock(event->mutex);
      ++event->recorded;
    }
    stream_of(stream)->push([event, stream = stream_of(stream)] {
      const std::lock_guard lock(event->mutex);
      event->failure = std::exchange(stream->failure, "");
      event->at = Clock::now();
      ++event->reached;
      event->reached_one.notify_all();
    });
  });
}

int32_t event_wait(void* handle) {
  return guarded([&] {
    auto* event = static_cast<Event*>(handle);
    std::unique_lock lock(event->mutex);
    event->reached_one.wait(lock, [event] { return event->reached == event->recorded; });
    check_alive();
    if (!event->failure.empty()) throw Error(Code::CUDA, std::exchange(event->failure, ""));
  });
}

int32_t event_seconds(void* start, void* end, double* seconds) {
  const auto passed = static_cast<Event*>(end)->at - static_cast<Event*>(start)->at;
  *seconds = std::chrono::duration<double>(passed).count();
  return 0;
}

using Graph = std::vector<std::function<void()>>;

int32_t graph_begin(void* stream) {
  stream_of(stream)->graph = new Graph;
  return 0;
}

int32_t graph_end(void* stream, void** graph) {
  *graph = std::exchange(stream_of(stream)->graph, nullptr);
  return 0;
}

int32_t graph_launch(void* graph, void* stream) {
  for (const std::function<void()>& work : *static_cast<Graph*>(graph)) stream_of(stream)->push(work);
  return 0;
}

int32_t graph_destroy(void* graph) {
  delete static_cast<Graph*>(graph);
  return 0;
}

const char* last_error() { return kw::last_error().c_str(); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const kw_table* kw_cuda_table(int32_t) {
  static const kw_table table = {sizeof(kw_table),
                                 named("abi") ? 99 : KW_ABI,
                                 "fake",
                                 last_error,
                                 device_count,
                                 device_info,
                                 memory_info,
                                 alloc,
                                 release,
                                 host_alloc,
                                 host_free,
                                 stream_create,
                                 stream_destroy,
                                 copy,
                                 event_create,
                                 event_destroy,
                                 event_record,
                                 event_wait,
                                 event_seconds,
                                 graph_begin,
                                 graph_end,
                                 graph_launch,
                                 graph_destroy,
                                 1,
                                 kOps,
                                 [](int32_t) { return ""; }};
  return named("mute") ? nullptr : &table;
}
