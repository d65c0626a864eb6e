// The threads that CPU operators run on. A pool has a fixed number of threads, the calling thread being one of them,
// and carries the instruction set its operators may use. Workers spin for some microseconds between jobs and then
// sleep.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "cpu/features.h"

namespace kw {

class ThreadPool {
 public:
  // threads: total, calling thread included, at least 1. cpus: thread i is tied to the i-th of these CPUs, or to one of
  // them where there are fewer; the caller ties itself to the first. Throws ARGUMENT, also for a CPU that this process
  // may not use, or OUT_OF_MEMORY when the system refuses a thread; then none is left running.
  explicit ThreadPool(int threads, cpu::Isa isa = cpu::best(), std::vector<int> cpus = {});
  ~ThreadPool();  // joins; no job may be running
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // The pool of these properties that this process has already, or a new one: as many pools as a process has devices
  // would keep that many times its cores busy. It ends with its last holder.
  static std::shared_ptr<ThreadPool> shared(int threads, cpu::Isa isa, const std::vector<int>& cpus);

  int threads() const { return threads_; }
  cpu::Isa isa() const { return isa_; }
  const std::vector<int>& cpus() const { return cpus_; }

  // Calls fn(begin, end, thread) until [0, n) is covered, and returns when all calls have. thread is 0 (the caller) to
  // threads() - 1, and no two calls at a time have the same one. grain 0 gives each thread one even, contiguous range;
  // otherwise whoever is free takes the next `grain` items. Several callers take turns, first come, first served. The
  // first exception is rethrown here once every thread has stopped. Calling it from inside fn throws INTERNAL.
  template <class Fn>
  void parallel_for(int64_t n, Fn&& fn, int64_t grain = 0) {
    using Body = std::remove_reference_t<Fn>;
    run(
        n, grain,
        [](void* body, int64_t begin, int64_t end, int thread) { (*static_cast<Body*>(body))(begin, end, thread); },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using Call = void (*)(void* body, int64_t begin, int64_t end, int thread);

  struct Job {
    Call call = nullptr;
    void* body = nullptr;
    int64_t n = 0, grain = 0;
    int parts = 1;
  };

  // A lock that is granted in the order in which it was asked for: a caller waits for at most one job of each other.
  class Turn {
   public:
    void lock();
    void unlock();

   private:
    std::atomic<uint32_t> next_{0};
    alignas(64) std::atomic<uint32_t> serving_{0};
  };

  // One per worker, on its own cache line. The count of jobs handed to it; the last one is to leave.
  struct alignas(64) Slot {
    std::atomic<uint32_t> posted{0};
    std::thread thread;
  };

  void run(int64_t n, int64_t grain, Call call, void* body);
  void work(int thread);
  void take(const Job& job, int thread);
  void stop(int workers);

  const int threads_;
  const cpu::Isa isa_;
  const std::vector<int> cpus_;
  Turn turn_;  // one job at a time
  Job job_;
  std::atomic<bool> stopping_{false};
  std::unique_ptr<Slot[]> slots_;
  alignas(64) std::atomic<int64_t> next_{0};      // first item nobody has taken
  alignas(64) std::atomic<uint32_t> pending_{0};  // workers still in the job
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;
};

// Ties the calling thread to one CPU (Linux); without effect where the system refuses.
void tie_to_cpu(int cpu);

}  // namespace kw
