// The timing loop: runs a schedule of timed blocks as one step of the stream, so that nothing else on it overlaps.
//
//   CPU      device: the clock around the calls, on the stream's thread.  stream: pushing the calls to a queue, until done.
//   library  device: events around a graph of the calls, or around the calls where they cannot be captured.
//            stream: the clock from the first launch until an event after the last is seen.
#include <chrono>
#include <cstdio>
#include <map>
#include <utility>
#include <vector>

#include "array.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "host_view.h"
#include "plan.h"

namespace kw {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Schedule {
  std::vector<std::vector<std::shared_ptr<Kernel>>> cases;
  std::vector<uint32_t> order, calls;
  bool device_clock = true;
};

struct Samples {
  std::vector<double> seconds, start;
  double end = 0;
  double steal_share = -1;
};

// One case's plans in turn, over all of its samples.
class Rotation {
 public:
  explicit Rotation(const std::vector<std::shared_ptr<Kernel>>& kernels) : kernels_(kernels) {}
  size_t position() const { return next_; }
  void skip(uint32_t calls) { next_ = (next_ + calls) % kernels_.size(); }
  Kernel& next() {
    Kernel& kernel = *kernels_[next_];
    if (++next_ == kernels_.size()) next_ = 0;
    return kernel;
  }

 private:
  const std::vector<std::shared_ptr<Kernel>>& kernels_;
  size_t next_ = 0;
};

// How one block of calls is timed; returns seconds for all of them.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual double run(size_t which, Rotation& rotation, uint32_t calls) = 0;
};

class ThreadTimer final : public Timer {
 public:
  double run(size_t, Rotation& rotation, uint32_t calls) override {
    const auto start = Clock::now();
    for (uint32_t i = 0; i < calls; ++i) rotation.next().launch();
    return since(start);
  }
};

class QueueTimer final : public Timer {
 public:
  double run(size_t, Rotation& rotation, uint32_t calls) override {
    const auto start = Clock::now();
    for (uint32_t i = 0; i < calls; ++i) queue_.push(rotation.next());
    queue_.wait();
    return since(start);
  }

 private:
  Queue queue_{"kernwatt-sample"};
};

// An event of a library.
class Event {
 public:
  Event(Stream& stream, bool timing)
      : device_(*stream.device), table_(device_.library().table()), stream_(stream.argument()) {
    device_.check(table_.event_create(device_.index(), timing, &event_));
  }
  ~Event() { table_.event_destroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record() { device_.check(table_.event_record(event_, stream_)); }
  void wait() { device_.check(table_.event_wait(event_)); }
  double seconds_until(const Event& end) const {
    double seconds = 0;
    device_.check(table_.event_seconds(event_, end.event_, &seconds));
    return seconds;
  }

 private:
  const Device& device_;
  const kw_table& table_;
  void* const stream_;
  void* event_ = nullptr;
};

class LaunchTimer final : public Timer {
 public:
  explicit LaunchTimer(Stream& stream) : end_(stream, false) {
    end_.record();
    end_.wait();
  }
  double run(size_t, Rotation& rotation, uint32_t calls) override {
    const auto start = Clock::now();
    for (uint32_t i = 0; i < calls; ++i) rotation.next().launch();
    end_.record();
    end_.wait();
    return since(start);
  }

 private:
  Event end_;
};

class EventTimer final : public Timer {
 public:
  explicit EventTimer(Stream& stream)
      : device_(*stream.device),
        table_(device_.library().table()),
        stream_(stream.argument()),
        start_(stream, true),
        end_(stream, true) {
    end_.record();
    end_.wait();
  }
  ~EventTimer() override {
    for (const auto& [key, graph] : graphs_) table_.graph_destroy(graph);
  }

  // A graph of each block that the schedule will time, launched once so that the device has it. A block of one call gains
  // nothing from a graph.
  void capture_all(const Schedule& schedule) {
    std::vector<Rotation> rotations(schedule.cases.begin(), schedule.cases.end());
    uint64_t captured = 0;
    for (const uint32_t which : schedule.order) {
      Rotation& rotation = rotations[which];
      const uint32_t calls = schedule.calls[which];
      const auto key = std::pair<size_t, size_t>(which, rotation.position());
      if (calls == 1 || captured + calls > kMostCaptured || graphs_.count(key) != 0) {
        rotation.skip(calls);
        continue;
      }
      void* graph = capture(rotation, calls);
      if (graph == nullptr) break;
      graphs_[key] = graph;
      captured += calls;
      device_.check(table_.graph_launch(graph, stream_));
    }
    end_.record();
    end_.wait();
  }

  double run(size_t which, Rotation& rotation, uint32_t calls) override {
    const auto graph = graphs_.find({which, rotation.position()});
    start_.record();
    if (graph != graphs_.end()) {
      device_.check(table_.graph_launch(graph->second, stream_));
      rotation.skip(calls);
    } else {
      for (uint32_t i = 0; i < calls; ++i) rotation.next().launch();
    }
    end_.record();
    end_.wait();
    return start_.seconds_until(end_);
  }

 private:
  // Launches captured in all; beyond it building graphs would take longer than they save.
  static constexpr uint64_t kMostCaptured = 65536;

  // Null where the library or the plan cannot be captured.
  void* capture(Rotation& rotation, uint32_t calls) {
    if (table_.graph_begin(stream_) != 0) return nullptr;
    bool launched = true;
    try {
      for (uint32_t i = 0; i < calls; ++i) rotation.next().launch();
    } catch (const Error&) {
      launched = false;
    }
    void* graph = nullptr;
    if (table_.graph_end(stream_, &graph) != 0) return nullptr;
    if (launched) return graph;
    table_.graph_destroy(graph);
    return nullptr;
  }

  const Device& device_;
  const kw_table& table_;
  void* const stream_;
  Event start_, end_;
  std::map<std::pair<size_t, size_t>, void*> graphs_;  // by case and position of the rotation
};

std::unique_ptr<Timer> make_timer(Stream& stream, const Schedule& schedule) {
  if (stream.device->is_cpu()) {
    if (schedule.device_clock) return std::make_unique<ThreadTimer>();
    return std::make_unique<QueueTimer>();
  }
  if (!schedule.device_clock) return std::make_unique<LaunchTimer>(stream);
  auto timer = std::make_unique<EventTimer>(stream);
  timer->capture_all(schedule);
  return timer;
}

// Time in clock ticks that the hypervisor took from this machine, and all time. False where the system does not say.
struct Ticks {
  unsigned long long stolen = 0, total = 0;
  bool known = false;
  Ticks() {
    FILE* file = std::fopen("/proc/stat", "r");
    if (file == nullptr) return;
    unsigned long long t[8] = {};
    known = std::fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", t, t + 1, t + 2, t + 3, t + 4, t + 5,
                        t + 6, t + 7) == 8;
    std::fclose(file);
    for (const unsigned long long part : t) total += part;
    stolen = t[7];
  }
};

Samples run_schedule(Stream& stream, const Schedule& schedule) {
  Samples samples;
  samples.seconds.reserve(schedule.order.size());
  samples.start.reserve(schedule.order.size());
  const std::unique_ptr<Timer> timer = make_timer(stream, schedule);
  std::vector<Rotation> rotations(schedule.cases.begin(), schedule.cases.end());
  const Ticks before;
  for (const uint32_t which : schedule.order) {
    if (stream.channel->closing()) throw Error(Code::INTERNAL, "sample: its environment is closing");
    const uint32_t calls = schedule.calls[which];
    samples.start.push_back(seconds_now());
    samples.seconds.push_back(timer->run(which, rotations[which], calls) / calls);
  }
  samples.end = seconds_now();
  const Ticks after;
  if (before.known && after.known && after.total > before.total) {
    samples.steal_share =
        static_cast<double>(after.stolen - before.stolen) / static_cast<double>(after.total - before.total);
  }
  return samples;
}

Napi::Float64Array to_array(Napi::Env env, const std::vector<double>& values) {
  auto array = Napi::Float64Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

Napi::Value describe(Napi::Env env, const Samples& samples) {
  auto result = Napi::Object::New(env);
  result.Set("seconds", to_array(env, samples.seconds));
  result.Set("start", to_array(env, samples.start));
  result.Set("end", samples.end);
  result.Set("stealShare", samples.steal_share);
  return result;
}

std::vector<uint32_t> read_numbers(Napi::Value value, const char* name, uint32_t low, uint32_t high) {
  const HostArray array = read_array(value, "sample", name);
  if (array.element != Element::u32) refuse(Code::ARGUMENT, "sample", name, "of another type", "a Uint32Array");
  const auto* data = static_cast<const uint32_t*>(array.data);
  std::vector<uint32_t> numbers(data, data + array.length);
  for (const uint32_t number : numbers) {
    if (number < low || number > high) {
      refuse(Code::ARGUMENT, "sample", name, std::to_string(number),
             std::to_string(low) + " to " + std::to_string(high));
    }
  }
  return numbers;
}

// The plans of every case; all on `stream`.
std::vector<std::vector<std::shared_ptr<Plan>>> read_cases(Napi::Value value, const std::shared_ptr<Stream>& stream) {
  if (!value.IsArray()) refuse(Code::ARGUMENT, "sample", "cases", "not an array", "an array of arrays of plans");
  const auto list = value.As<Napi::Array>();
  std::vector<std::vector<std::shared_ptr<Plan>>> cases(list.Length());
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value entry = list.Get(i);
    if (!entry.IsArray() || entry.As<Napi::Array>().Length() == 0) {
      refuse(Code::ARGUMENT, "sample", "cases[" + std::to_string(i) + "]", "empty", "an array of plans");
    }
    const auto plans = entry.As<Napi::Array>();
    for (uint32_t j = 0; j < plans.Length(); ++j) {
      const std::shared_ptr<Plan>& plan = get_handle<Plan>(plans.Get(j), "sample");
      if (plan->stream() != stream) refuse(Code::ARGUMENT, "sample", "plan", "on another stream", "on the one given");
      plan->kernel("sample");
      plan->check_buffers();
      cases[i].push_back(plan);
    }
  }
  return cases;
}

Napi::Value sample(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[0], "sample");
  stream->check_usable("sample");
  if (stream->device->info().emulated) {
    refuse(Code::UNSUPPORTED, "sample", "device", stream->device->name() + ", emulated", "one that can be timed");
  }
  if (!info[1].IsObject()) refuse(Code::ARGUMENT, "sample", "options", "no object", "an object");
  const auto options = info[1].As<Napi::Object>();
  const std::string clock = options.Get("clock").ToString();
  if (clock != "device" && clock != "stream") refuse(Code::ARGUMENT, "sample", "clock", clock, "device or stream");
  const auto cases = read_cases(options.Get("cases"), stream);
  Schedule schedule;
  schedule.device_clock = clock == "device";
  schedule.calls = read_numbers(options.Get("calls"), "calls", 1, UINT32_MAX);
  if (cases.empty() || schedule.calls.size() != cases.size()) {
    refuse(Code::ARGUMENT, "sample", "calls", std::to_string(schedule.calls.size()) + " numbers",
           "one for each of " + std::to_string(cases.size()) + " cases, at least 1");
  }
  schedule.order = read_numbers(options.Get("order"), "order", 0, static_cast<uint32_t>(cases.size() - 1));
  bool external = false;
  for (const std::vector<std::shared_ptr<Plan>>& plans : cases) {
    std::vector<std::shared_ptr<Kernel>>& kernels = schedule.cases.emplace_back();
    for (const std::shared_ptr<Plan>& plan : plans) {
      kernels.push_back(plan->kernel("sample"));
      external |= kernels.back()->external();
    }
  }
  napi_value result;
  auto promise = std::make_unique<Promise>(stream->channel, info.Env(), &result);
  const uint64_t number = stream->step(once([stream, external, promise = std::move(promise), schedule] {
    stream->settle(*promise, [&]() -> Promise::Value {
      Samples samples;
      stream->with_memory(external, [&] { samples = run_schedule(*stream, schedule); });
      return [samples = std::move(samples)](Napi::Env env) { return describe(env, samples); };
    });
  }));
  for (const std::vector<std::shared_ptr<Plan>>& plans : cases) {
    for (const std::shared_ptr<Plan>& plan : plans) plan->used(number);
  }
  return Napi::Value(info.Env(), result);
}

}  // namespace

void export_sample(Napi::Object exports) { exported<sample>(exports, "sample"); }

}  // namespace kw
