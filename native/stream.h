// A stream: work on one device in the order in which it was queued.
//
// On the CPU it is a Queue whose thread calls the kernel with the device's thread pool. On a library it is a stream of
// the library: launches happen on the calling thread, and a waiter thread waits for events, of which one is recorded
// only where somebody waits. Host steps on a library stream (strided writes, fills) run on a second thread, and what is
// queued behind one is launched from there, in order.
//
// Everything but with_memory(), fail(), attempt(), settle() and copy_now() is called on the JavaScript thread alone.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "channel.h"
#include "counters.h"
#include "device.h"
#include "queue.h"

namespace kw {

struct Failure {
  Code code;
  std::string message;
};

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  static std::shared_ptr<Stream> create(std::shared_ptr<Device> device, std::shared_ptr<Channel> channel);
  virtual ~Stream() = default;

  const std::shared_ptr<Device> device;
  const std::shared_ptr<Channel> channel;

  // What plan_enqueue takes: kw::ThreadPool* on the CPU, the library's stream elsewhere.
  virtual void* argument() = 0;

  // Queues a launch and returns its number. Throws BUSY when the queue is full. The launch must outlive its run.
  virtual uint64_t enqueue(Work& launch) = 0;
  // Queues work for a native thread: it sees everything queued before, and everything queued later sees its effect.
  virtual uint64_t step(std::unique_ptr<Work> work) = 0;
  // Runs work on a native thread once everything queued so far is done; later work does not wait for it.
  virtual void after(std::unique_ptr<Work> work) = 0;
  // The number of what was queued last.
  virtual uint64_t latest() const = 0;
  // Whether the work of that number is known to be done.
  virtual bool done(uint64_t number) const = 0;
  // Whether a launch of that number has been handed over, so that what it launched may be bound anew.
  virtual bool launched(uint64_t number) const = 0;
  // Whether everything queued is known to be done and every promise of it settled or posted.
  virtual bool idle() const = 0;
  // Blocks until everything queued is done.
  virtual void wait() = 0;

  // Library streams: queues a copy and returns its number. Host memory must stay until it is done.
  virtual uint64_t copy(void* dst, const void* src, uint64_t bytes, kw_copy_kind kind) = 0;
  // As copy, but blocks until it is done; for host steps.
  virtual void copy_now(void* dst, const void* src, uint64_t bytes, kw_copy_kind kind) = 0;

  // Throws DISPOSED or DEVICE_LOST where nothing can be queued.
  void check_usable(const char* where) const {
    if (closed_ || !device->usable()) refuse_use(where);
  }
  bool closed() const { return closed_; }
  // Accepts nothing from here on; `drained` runs on a native thread when all is done.
  void close(std::unique_ptr<Work> drained);

  // Runs body unless its environment is going away. external: it touches memory that belongs to JavaScript, which stays
  // until body returns.
  template <class Body>
  void with_memory(bool external, Body&& body) {
    if (channel->closing()) return;
    if (!external) return body();
    const JsLease lease(*channel);
    if (lease.held()) body();
  }

  // Keeps the first failure of queued work until a promise of this stream takes it.
  void fail(Code code, const std::string& message);
  std::optional<Failure> take_failure();
  // Runs body; what it throws becomes a failure of the stream.
  template <class Body>
  void attempt(Body&& body) noexcept {
    try {
      body();
    } catch (const Error& error) {
      fail(error.code, error.what());
    } catch (const std::bad_alloc&) {
      fail(Code::OUT_OF_MEMORY, "host memory is exhausted");
    } catch (const std::exception& error) {
      fail(Code::INTERNAL, error.what());
    }
  }

  // Native thread, at the promise's place in the stream: settles it with the first failure of the work before, or with
  // what body returns or throws.
  template <class Body>
  void settle(Promise& promise, Body&& body) noexcept {
    Promise::Value value;
    std::optional<Failure> failure = take_failure();
    if (!failure) {
      attempt([&] { value = body(); });
      failure = take_failure();
    }
    if (failure) {
      promise.reject(failure->code, failure->message);
    } else {
      promise.resolve(std::move(value));
    }
  }
  void settle(Promise& promise) noexcept {
    settle(promise, [] { return Promise::Value(); });
  }

  // Memory that nothing will use any more but work queued on this stream: it serves later work here without waiting.
  // The stream does not hold it; it goes back to the device's pool once that work is done.
  void keep(const std::shared_ptr<Memory>& memory);
  // Such memory for `bytes`; null where there is none.
  std::shared_ptr<Memory> reuse(uint64_t bytes);

  // Scratch memory shared by everything on this stream, at least that large; null for 0 bytes. It grows by replacement:
  // whoever holds an older, smaller block keeps it.
  std::shared_ptr<Memory> workspace(uint64_t bytes);

 protected:
  Stream(std::shared_ptr<Device> d, std::shared_ptr<Channel> c) : device(std::move(d)), channel(std::move(c)) {}
  // Everything is done and nothing more will come: gives back what the device holds for the stream.
  virtual void release() {}
  // Ends the stream's threads once they have run what is left.
  virtual void stop() = 0;

 private:
  [[noreturn]] void refuse_use(const char* where) const;

  std::optional<Counted<&Counters::streams>> counted_{std::in_place};  // until closed
  bool closed_ = false;
  std::shared_ptr<Memory> workspace_;
  std::vector<std::weak_ptr<Memory>> kept_;
  std::mutex failure_mutex_;
  std::optional<Failure> failure_;
};

}  // namespace kw
