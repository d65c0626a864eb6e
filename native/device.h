// A device as JavaScript sees it: where memory comes from and what its streams run on.
#pragma once
#include <napi.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "../kernels/core/abi.h"
#include "../kernels/core/threads.h"
#include "library.h"
#include "memory.h"

namespace kw {

class Stream;

// Something that closing its device disposes of, on the JavaScript thread.
class Resource {
 public:
  virtual ~Resource() = default;
  virtual void dispose() = 0;
};

class Device {
 public:
  // The CPU. memory_limit: bytes of its tensors and workspaces together, at most.
  Device(std::shared_ptr<ThreadPool> threads, uint64_t memory_limit);
  // Device `index` of a library; may take long.
  Device(const Library& library, int index, uint64_t memory_limit);

  bool is_cpu() const { return library_ == nullptr; }
  // Of a library device.
  const Library& library() const { return *library_; }
  int index() const { return index_; }
  const kw_device_info& info() const { return info_; }
  std::string name() const { return info_.name; }
  // Of the CPU, until it is closed.
  ThreadPool& threads() { return *threads_; }

  // Memory as the system or the library gives it; for the pool.
  void* allocate(uint64_t bytes);
  void release(void* data, uint64_t bytes) noexcept;
  // Whether both were opened on one device, so that an address means the same to both.
  bool same_memory(const Device& other) const { return library_ == other.library_ && index_ == other.index_; }
  void memory_info(uint64_t* free_bytes, uint64_t* total_bytes) const;
  Pool& pool() { return pool_; }
  Meter meter;

  bool usable() const { return !closing_.load(std::memory_order_relaxed) && !loss_.happened(); }
  // Throws DISPOSED once closing, and DEVICE_LOST with the first cause once the device is lost.
  void check_usable(const char* where) const;
  // Something failed with DEVICE_LOST: from here on everything fails fast with this message.
  void lose(const std::string& cause) const { loss_.happen(cause); }
  // Of a library device: throws what a failed call of the table means; one that says so loses the device.
  void check(int32_t status) const {
    if (status != 0) fail(status);
  }

  // JavaScript thread. What closing must wait for and dispose of.
  void add(const std::shared_ptr<Stream>& stream);
  void add(Resource* resource);
  void remove(Resource* resource);
  // Begins closing: nothing new is accepted. Gives the streams to drain; false when already closing.
  bool begin_closing(std::vector<std::shared_ptr<Stream>>* streams);
  // Ends closing once they are drained.
  void end_closing();

 private:
  [[noreturn]] void fail(int32_t status) const;

  std::optional<Counted<&Counters::devices>> counted_{std::in_place};  // until closed
  const Library* const library_ = nullptr;
  const int index_ = 0;
  Loss& loss_;
  kw_device_info info_ = {};
  std::shared_ptr<ThreadPool> threads_;
  std::atomic<bool> closing_{false};
  mutable std::mutex mutex_;  // guards the rest
  std::vector<std::weak_ptr<Stream>> streams_;
  std::unordered_set<Resource*> resources_;
  Pool pool_;  // last: emptying it needs the rest
};

}  // namespace kw
