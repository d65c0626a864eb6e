// Queue: a vector that producers append to and the thread takes whole, so that both rarely meet at the mutex.
#include "queue.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <string>
#include <system_error>
#include <thread>

#include "../kernels/core/error.h"

namespace kw {
namespace {

// How long the thread looks for more work before it sleeps: waking it costs the producer a system call and the work
// some tens of microseconds, about what a busy JavaScript loop takes to queue the next call.
constexpr std::chrono::microseconds kSpin{20};

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

struct Queue::State {
  std::mutex mutex;
  std::condition_variable wake;   // the thread sleeps on it
  std::condition_variable ended;  // wait() sleeps on it
  std::vector<Work*> pending;     // guarded by mutex, as are the next three
  bool sleeping = false;
  bool stopping = false;
  bool stopped = false;
  std::atomic<uint64_t> pushed{0};
  alignas(64) std::atomic<uint64_t> completed{0};
  std::atomic<int> waiters{0};

  void loop();
  void run(Work& work);
  void spin() const;
};

void Queue::State::loop() {
  std::vector<Work*> taken;
  std::unique_lock lock(mutex);
  for (;;) {
    if (pending.empty()) {
      lock.unlock();
      spin();
      lock.lock();
      sleeping = true;
      wake.wait(lock, [this] { return !pending.empty() || stopping; });
      sleeping = false;
      if (pending.empty()) {
        stopped = true;
        return;
      }
    }
    taken.swap(pending);
    lock.unlock();
    for (Work* work : taken) {
      run(*work);
      if (waiters.load() != 0) {
        const std::lock_guard ending(mutex);
        ended.notify_all();
      }
    }
    taken.clear();
    lock.lock();
  }
}

void Queue::State::run(Work& work) {
  work.run();
  work.finish();
  completed.fetch_add(1);
}

void Queue::State::spin() const {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  const uint64_t seen = completed.load(std::memory_order_relaxed);
  do {
    for (int i = 0; i < 16; ++i) {
      if (pushed.load(std::memory_order_relaxed) != seen) return;
      pause();
    }
    std::this_thread::yield();  // to the JavaScript thread, which may be ready on this very processor
  } while (std::chrono::steady_clock::now() < deadline);
}

Queue::Queue(const char* name) : state_(std::make_shared<State>()) {
  state_->pending.reserve(64);
  try {
    std::thread thread([state = state_] { state->loop(); });
    pthread_setname_np(thread.native_handle(), name);
    thread.detach();
  } catch (const std::system_error& error) {
    throw Error(Code::OUT_OF_MEMORY, std::string("stream: its thread could not be started: ") + error.what());
  }
}

Queue::~Queue() { stop(); }

void Queue::stop() {
  const std::lock_guard lock(state_->mutex);
  state_->stopping = true;
  state_->wake.notify_one();
}

uint64_t Queue::push(Work& work) {
  std::unique_lock lock(state_->mutex);
  const uint64_t number = state_->pushed.load(std::memory_order_relaxed) + 1;
  if (state_->stopped) {
    state_->pushed.store(number, std::memory_order_relaxed);
    lock.unlock();
    state_->run(work);
    return number;
  }
  state_->pending.push_back(&work);
  state_->pushed.store(number, std::memory_order_relaxed);
  const bool wake = state_->sleeping;
  state_->sleeping = false;  // one call is enough, however much is pushed before it wakes
  lock.unlock();
  if (wake) state_->wake.notify_one();
  return number;
}

uint64_t Queue::pushed() const { return state_->pushed.load(std::memory_order_relaxed); }

bool Queue::done(uint64_t number) const { return state_->completed.load(std::memory_order_acquire) >= number; }

uint64_t Queue::waiting() const { return pushed() - state_->completed.load(std::memory_order_acquire); }

void Queue::wait() const {
  const uint64_t number = pushed();
  if (done(number)) return;
  std::unique_lock lock(state_->mutex);
  state_->waiters.fetch_add(1);
  state_->ended.wait(lock, [&] { return state_->completed.load() >= number; });
  state_->waiters.fetch_sub(1);
}

}  // namespace kw
