// A thread of our own that runs work in the order in which it was pushed.
//
// The thread is detached and owns the queue's state together with the Queue: process.exit() and uncaught throws run no
// destructor of ours, and a thread that is still at work then must find its memory in place.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace kw {

// What a queue runs: pushing it allocates nothing.
class Work {
 public:
  virtual ~Work() = default;
  // Runs on the queue's thread, once per push. Must not throw.
  virtual void run() noexcept = 0;
  // Afterwards. One-shot work deletes itself here.
  virtual void finish() noexcept {}
};

// Work that is pushed once: calls body, then destroys it and all it holds.
template <class Body>
class Once final : public Work {
 public:
  explicit Once(Body body) : body_(std::move(body)) {}
  void run() noexcept override { body_(); }
  void finish() noexcept override { delete this; }

 private:
  Body body_;
};

template <class Body>
std::unique_ptr<Work> once(Body body) {
  return std::make_unique<Once<Body>>(std::move(body));
}

class Queue {
 public:
  // name: of the thread, at most 15 characters. Throws OUT_OF_MEMORY when the system refuses a thread.
  explicit Queue(const char* name);
  // As stop().
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // Returns the work's number, counted from 1. Work that outlives its runs (a plan) is pushed by reference. Once the
  // thread has ended, work runs on the caller: everything before it is done.
  uint64_t push(Work& work);
  uint64_t push(std::unique_ptr<Work> work) {
    const uint64_t number = push(*work);
    work.release();
    return number;
  }

  uint64_t pushed() const;
  bool done(uint64_t number) const;
  // Work pushed and not yet finished.
  uint64_t waiting() const;
  // Blocks until everything pushed before has finished.
  void wait() const;
  // Returns at once; the thread runs what is left, then ends.
  void stop();

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace kw
