// CPU and library streams, and their part of the addon's exports.
#include "stream.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "export.h"
#include "exports.h"
#include "handle.h"

namespace kw {
namespace {

// Calls that may wait on a stream. The CUDA driver begins to block the caller somewhat above 1000 pending launches, and
// one call may launch several kernels; on the CPU it is memory alone.
constexpr uint64_t kCpuCapacity = 4096;
constexpr uint64_t kLibraryCapacity = 512;
// A library stream learns what is done from events; without a mark it records one after this many calls.
constexpr uint64_t kEventInterval = kLibraryCapacity / 4;

[[noreturn]] void refuse_busy(uint64_t waiting, uint64_t capacity) {
  refuse(Code::BUSY, "enqueue", "queued calls", std::to_string(waiting),
         "fewer than " + std::to_string(capacity) + "; await stream.mark() first");
}

class CpuStream final : public Stream {
 public:
  CpuStream(std::shared_ptr<Device> d, std::shared_ptr<Channel> c) : Stream(std::move(d), std::move(c)) {
    const std::vector<int>& cpus = device->threads().cpus();
    if (!cpus.empty()) queue_.push(once([cpu = cpus.front()] { tie_to_cpu(cpu); }));
  }

  void* argument() override { return &device->threads(); }
  uint64_t enqueue(Work& launch) override {
    if (queue_.waiting() >= kCpuCapacity) refuse_busy(queue_.waiting(), kCpuCapacity);
    return queue_.push(launch);
  }
  uint64_t step(std::unique_ptr<Work> work) override { return queue_.push(std::move(work)); }
  void after(std::unique_ptr<Work> work) override { queue_.push(std::move(work)); }
  uint64_t latest() const override { return queue_.pushed(); }
  bool done(uint64_t number) const override { return queue_.done(number); }
  bool launched(uint64_t number) const override { return done(number); }
  bool idle() const override { return queue_.waiting() == 0; }
  void wait() override { queue_.wait(); }
  uint64_t copy(void*, const void*, uint64_t, kw_copy_kind) override { no_library(); }
  void copy_now(void*, const void*, uint64_t, kw_copy_kind) override { no_library(); }

 protected:
  void stop() override { queue_.stop(); }

 private:
  [[noreturn]] static void no_library() { throw Error(Code::INTERNAL, "copy: the CPU has host memory only"); }

  Queue queue_{"kernwatt-stream"};
};

class LibraryStream final : public Stream {
 public:
  LibraryStream(std::shared_ptr<Device> d, std::shared_ptr<Channel> c)
      : Stream(std::move(d), std::move(c)), library_(device->library()) {
    device->check(library_.table().stream_create(device->index(), &handle_));
  }
  ~LibraryStream() override { LibraryStream::release(); }

  void* argument() override { return handle_; }

  uint64_t enqueue(Work& launch) override {
    const uint64_t waiting = submitted_ - completed_.load(std::memory_order_acquire);
    if (waiting >= kLibraryCapacity) refuse_busy(waiting, kLibraryCapacity);
    if (stepping()) {
      steps_->push(launch);
    } else {
      launch.run();
    }
    const uint64_t number = ++submitted_;
    if (submitted_ - recorded_ >= kEventInterval) after(once([] {}));
    return number;
  }

  uint64_t step(std::unique_ptr<Work> work) override {
    if (!steps_) steps_ = std::make_unique<Queue>("kernwatt-step");
    steps_->push(std::move(work));
    return ++submitted_;
  }

  void after(std::unique_ptr<Work> work) override {
    recorded_ = submitted_;
    // Closing has recorded the last event already; whatever comes after it waits for that one.
    const bool last = closed();
    if (stepping()) {
      steps_->push(once([self = self(), number = submitted_, last, work = std::move(work)]() mutable {
        self->wait_for(number, last ? nullptr : self->record(), std::move(work));
      }));
    } else {
      wait_for(submitted_, last ? nullptr : record(), std::move(work));
    }
  }

  uint64_t latest() const override { return submitted_; }
  bool done(uint64_t number) const override { return completed_.load(std::memory_order_acquire) >= number; }
  // Libraries copy a launch's arguments.
  bool launched(uint64_t) const override { return !stepping(); }
  bool idle() const override { return done(submitted_) && !stepping() && waits_.waiting() == 0; }

  void wait() override {
    if (steps_) steps_->wait();
    after(once([] {}));
    waits_.wait();
  }

  uint64_t copy(void* dst, const void* src, uint64_t bytes, kw_copy_kind kind) override {
    const auto start = [self = self(), dst, src, bytes, kind] {
      self->attempt([&] { self->start_copy(dst, src, bytes, kind); });
    };
    if (stepping()) {
      steps_->push(once(start));
    } else {
      start();
    }
    return ++submitted_;
  }

  void copy_now(void* dst, const void* src, uint64_t bytes, kw_copy_kind kind) override {
    start_copy(dst, src, bytes, kind);
    void* event = take_event();
    int32_t status = library_.table().event_record(event, handle_);
    if (status == 0) status = library_.table().event_wait(event);
    give_event(event);
    device->check(status);
  }

 protected:
  void stop() override {
    if (steps_) steps_->stop();
    waits_.stop();
  }
  void release() override {
    const std::lock_guard lock(events_mutex_);
    for (void* event : events_) library_.table().event_destroy(event);
    events_.clear();
    if (handle_ != nullptr) library_.table().stream_destroy(handle_);
    handle_ = nullptr;
  }

 private:
  std::shared_ptr<LibraryStream> self() { return std::static_pointer_cast<LibraryStream>(shared_from_this()); }
  bool stepping() const { return steps_ && steps_->waiting() != 0; }

  void start_copy(void* dst, const void* src, uint64_t bytes, kw_copy_kind kind) {
    device->check(library_.table().copy(device->index(), dst, src, bytes, kind, handle_));
  }

  // The next two: JavaScript thread or, while it is stepping, the step thread.
  void* record() {
    void* event = nullptr;
    attempt([&] {
      event = take_event();
      device->check(library_.table().event_record(event, handle_));
    });
    return event;
  }

  void wait_for(uint64_t number, void* event, std::unique_ptr<Work> work) {
    waits_.push(once([self = self(), event, number, work = std::move(work)] {
      if (event != nullptr) self->attempt([&] { self->device->check(self->library_.table().event_wait(event)); });
      self->give_event(event);
      self->completed_.store(std::max(number, self->completed_.load()), std::memory_order_release);
      work->run();
    }));
  }

  void* take_event() {
    {
      const std::lock_guard lock(events_mutex_);
      if (!events_.empty()) {
        void* event = events_.back();
        events_.pop_back();
        return event;
      }
    }
    void* event = nullptr;
    device->check(library_.table().event_create(device->index(), 0, &event));
    return event;
  }

  void give_event(void* event) {
    if (event == nullptr) return;
    const std::lock_guard lock(events_mutex_);
    events_.push_back(event);
  }

  const Library& library_;
  void* handle_ = nullptr;  // null once released
  uint64_t submitted_ = 0;  // calls queued, and how many of them the latest event covers
  uint64_t recorded_ = 0;
  std::atomic<uint64_t> completed_{0};
  std::mutex events_mutex_;
  std::vector<void*> events_;  // free for reuse
  std::unique_ptr<Queue> steps_;
  Queue waits_{"kernwatt-wait"};
};

}  // namespace

std::shared_ptr<Stream> Stream::create(std::shared_ptr<Device> device, std::shared_ptr<Channel> channel) {
  std::shared_ptr<Stream> stream;
  if (device->is_cpu()) {
    stream = std::make_shared<CpuStream>(device, std::move(channel));
  } else {
    stream = std::make_shared<LibraryStream>(device, std::move(channel));
  }
  device->add(stream);
  return stream;
}

void Stream::refuse_use(const char* where) const {
  device->check_usable(where);
  refuse(Code::DISPOSED, where, "stream", "closed", "an open one");
}

void Stream::close(std::unique_ptr<Work> drained) {
  counted_.reset();
  workspace_.reset();
  after(once([self = shared_from_this(), drained = std::move(drained)] {
    self->release();
    drained->run();
  }));
  closed_ = true;
  stop();
}

void Stream::fail(Code code, const std::string& message) {
  if (code == Code::DEVICE_LOST) device->lose(message);
  const std::lock_guard lock(failure_mutex_);
  if (!failure_) failure_ = Failure{code, message};
}

std::optional<Failure> Stream::take_failure() {
  const std::lock_guard lock(failure_mutex_);
  return std::exchange(failure_, std::nullopt);
}

namespace {

// Blocks that a stream remembers: those of one step of a model, of which the latest matter most.
constexpr size_t kMostKept = 64;

}  // namespace

void Stream::keep(const std::shared_ptr<Memory>& memory) {
  if (!memory->may_serve(memory->bytes())) return;
  std::erase_if(kept_, [](const std::weak_ptr<Memory>& held) { return held.expired(); });
  if (kept_.size() == kMostKept) kept_.erase(kept_.begin());
  kept_.push_back(memory);
}

std::shared_ptr<Memory> Stream::reuse(uint64_t bytes) {
  for (size_t i = kept_.size(); i-- > 0;) {
    std::shared_ptr<Memory> memory = kept_[i].lock();
    if (!memory || !memory->may_serve(bytes)) continue;
    kept_.erase(kept_.begin() + static_cast<ptrdiff_t>(i));
    memory->pass_on(bytes);
    return memory;
  }
  return nullptr;
}

std::shared_ptr<Memory> Stream::workspace(uint64_t bytes) {
  if (bytes == 0) return nullptr;
  if (!workspace_ || workspace_->bytes() < bytes) workspace_ = std::make_shared<Memory>(device, bytes);
  return workspace_;
}

namespace {

Napi::Value create_stream(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device> device = get_handle<Device>(info[0], "createStream");
  device->check_usable("createStream");
  return make_handle(info.Env(), Stream::create(device, Environment::of(info.Env()).channel));
}

Napi::Value destroy_stream(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream> stream = get_handle<Stream>(info[0], "destroyStream");
  if (stream->closed()) refuse(Code::DISPOSED, "destroyStream", "stream", "closed", "an open one");
  napi_value result;
  auto promise = std::make_unique<Promise>(stream->channel, info.Env(), &result);
  stream->close(once([promise = std::move(promise)] { promise->resolve(); }));
  return Napi::Value(info.Env(), result);
}

Napi::Value mark(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream> stream = get_handle<Stream>(info[0], "mark");
  stream->check_usable("mark");
  napi_value result;
  auto promise = std::make_unique<Promise>(stream->channel, info.Env(), &result);
  if (stream->idle()) {
    stream->settle(*promise);
    stream->channel->drain();
  } else {
    stream->after(once([stream, promise = std::move(promise)] { stream->settle(*promise); }));
  }
  return Napi::Value(info.Env(), result);
}

Napi::Value sync_now(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream> stream = get_handle<Stream>(info[0], "syncNow");
  stream->check_usable("syncNow");
  stream->wait();
  if (const std::optional<Failure> failure = stream->take_failure()) throw Error(failure->code, failure->message);
  return info.Env().Undefined();
}

}  // namespace

void export_stream(Napi::Object exports) {
  exported<create_stream>(exports, "createStream");
  exported<destroy_stream>(exports, "destroyStream");
  exported<mark>(exports, "mark");
  exported<sync_now>(exports, "syncNow");
}

}  // namespace kw
