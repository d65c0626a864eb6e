// ThreadPool: posting is one store and at most one futex call per worker that the job needs; workers the job does not
// need stay asleep.
#include "threads.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>

#include "error.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace kw {
namespace {

constexpr std::chrono::microseconds kSpin{40};  // about the gap between two phases of an operator, and cheap to waste

thread_local bool inside_job = false;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins for kSpin, then sleeps, until value differs from `old`; returns what it became. It gives way meanwhile: with a worker on every
// processor, whoever is to bring the next job could otherwise not run before the spin is over, and would find everyone asleep.
uint32_t await_change(std::atomic<uint32_t>& value, uint32_t old) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      const uint32_t now = value.load(std::memory_order_acquire);
      if (now != old) return now;
      pause();
    }
    std::this_thread::yield();
  } while (std::chrono::steady_clock::now() < deadline);
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

void name_thread(std::thread& thread, int index) {
#if defined(__linux__)
  const std::string name = "kernwatt-" + std::to_string(index);
  pthread_setname_np(thread.native_handle(), name.c_str());
#else
  (void)thread, (void)index;
#endif
}

}  // namespace

void ThreadPool::Turn::lock() {
  const uint32_t ticket = next_.fetch_add(1, std::memory_order_relaxed);
  for (uint32_t now = serving_.load(std::memory_order_acquire); now != ticket;) now = await_change(serving_, now);
}

void ThreadPool::Turn::unlock() {
  serving_.fetch_add(1, std::memory_order_release);
  serving_.notify_all();
}

void tie_to_cpu(int cpu) {
#if defined(__linux__)
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  sched_setaffinity(0, sizeof(one), &one);
#else
  (void)cpu;
#endif
}

std::shared_ptr<ThreadPool> ThreadPool::shared(int threads, cpu::Isa isa, const std::vector<int>& cpus) {
  static auto* mutex = new std::mutex;
  static auto* pools = new std::map<std::tuple<int, cpu::Isa, std::vector<int>>, std::weak_ptr<ThreadPool>>;
  const std::lock_guard lock(*mutex);
  std::erase_if(*pools, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<ThreadPool>& held = (*pools)[{threads, isa, cpus}];
  std::shared_ptr<ThreadPool> pool = held.lock();
  if (!pool) held = pool = std::make_shared<ThreadPool>(threads, isa, cpus);
  return pool;
}

ThreadPool::ThreadPool(int threads, cpu::Isa isa, std::vector<int> cpus)
    : threads_(threads), isa_(isa), cpus_(std::move(cpus)) {
  if (threads < 1 || threads > 1024) {
    throw Error(Code::ARGUMENT, "ThreadPool: threads is " + std::to_string(threads) + ", expected 1 to 1024");
  }
  const std::vector<int> allowed = cpus_.empty() ? std::vector<int>() : cpu::cpus();
  for (const int cpu : cpus_) {
    if (!std::binary_search(allowed.begin(), allowed.end(), cpu)) {
      throw Error(Code::ARGUMENT, "ThreadPool: affinity has CPU " + std::to_string(cpu) +
                                      ", expected CPUs that this process may run on");
    }
  }
  slots_ = std::make_unique<Slot[]>(threads - 1);
  for (int i = 1; i < threads; ++i) {
    try {
      slots_[i - 1].thread = std::thread([this, i] {
        if (!cpus_.empty()) tie_to_cpu(cpus_[i % cpus_.size()]);
        work(i);
      });
    } catch (const std::system_error& error) {
      stop(i - 1);
      throw Error(Code::OUT_OF_MEMORY, "ThreadPool: thread " + std::to_string(i + 1) + " of " +
                                           std::to_string(threads) + " could not be started: " + error.what());
    }
    name_thread(slots_[i - 1].thread, i);
  }
}

ThreadPool::~ThreadPool() { stop(threads_ - 1); }

void ThreadPool::stop(int workers) {
  stopping_.store(true, std::memory_order_relaxed);
  for (int i = 0; i < workers; ++i) {
    slots_[i].posted.fetch_add(1, std::memory_order_release);
    slots_[i].posted.notify_one();
    slots_[i].thread.join();
  }
}

void ThreadPool::work(int thread) {
  Slot& slot = slots_[thread - 1];
  inside_job = true;  // whatever runs on a worker is inside a job
  for (uint32_t seen = 0;;) {
    seen = await_change(slot.posted, seen);
    if (stopping_.load(std::memory_order_relaxed)) return;
    take(job_, thread);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }
}

// One thread's share of a job. Never throws: the first failure is kept and stops the others at their next chunk.
void ThreadPool::take(const Job& job, int thread) {
  try {
    if (job.grain == 0) {
      const int64_t each = job.n / job.parts, extra = job.n % job.parts;
      const int64_t begin = thread * each + std::min<int64_t>(thread, extra);
      const int64_t end = begin + each + (thread < extra);
      if (begin < end) job.call(job.body, begin, end, thread);
      return;
    }
    while (!failed_.load(std::memory_order_relaxed)) {
      const int64_t begin = next_.fetch_add(job.grain, std::memory_order_relaxed);
      if (begin >= job.n) return;
      job.call(job.body, begin, std::min(job.n, begin + job.grain), thread);
    }
  } catch (...) {
    if (!failed_.exchange(true)) failure_ = std::current_exception();
  }
}

void ThreadPool::run(int64_t n, int64_t grain, Call call, void* body) {
  if (inside_job) throw Error(Code::INTERNAL, "ThreadPool: parallel_for is called from inside parallel_for");
  if (n <= 0) return;
  const int64_t chunks = grain == 0 ? n : (n + grain - 1) / grain;
  const std::lock_guard lock(turn_);
  job_ = {call, body, n, grain, static_cast<int>(std::min<int64_t>(threads_, chunks))};
  next_.store(0, std::memory_order_relaxed);
  failed_.store(false, std::memory_order_relaxed);
  failure_ = nullptr;
  const uint32_t workers = job_.parts - 1;
  pending_.store(workers, std::memory_order_relaxed);
  for (uint32_t i = 0; i < workers; ++i) {
    slots_[i].posted.fetch_add(1, std::memory_order_release);
    slots_[i].posted.notify_one();
  }
  inside_job = true;
  take(job_, 0);
  inside_job = false;
  for (uint32_t left = pending_.load(std::memory_order_acquire); left != 0;) left = await_change(pending_, left);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace kw
