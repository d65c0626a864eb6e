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
  // The CPU.
  Device(int threads, cpu::Isa isa);
  // Device `index` of a library; may take long.
  Device(const Library& library, int index);

  bool is_cpu() const { return library_ == nullptr; }
  // Of a library device.
  const Library& library() const { return *library_; }
  int index() const { return index_; }
  const kw_device_info& info() const { return info_; }
  std::string name() const { return info_.name; }
  // Of the CPU, until it is closed.
  ThreadPool& pool() { return *pool_; }

  void* allocate(uint64_t bytes);
  void release(void* data, uint64_t bytes) noexcept;
  void memory_info(uint64_t* free_bytes, uint64_t* total_bytes) const;
  Meter meter;

  bool usable() const { return usable_.load(std::memory_order_relaxed); }
  // Throws DISPOSED once closing, and the first cause once the device is lost.
  void check_usable(const char* where) const;
  // Work failed with DEVICE_LOST: everything later fails fast with this message.
  void lose(const std::string& message);

  // JavaScript thread. What closing must wait for and dispose of.
  void add(const std::shared_ptr<Stream>& stream);
  void add(Resource* resource);
  void remove(Resource* resource);
  // Begins closing: nothing new is accepted. Gives the streams to drain; false when already closing.
  bool begin_closing(std::vector<std::shared_ptr<Stream>>* streams);
  // Ends closing once they are drained.
  void end_closing();

 private:
  std::optional<Counted<&Counters::devices>> counted_{std::in_place};  // until closed
  const Library* const library_ = nullptr;
  const int index_ = 0;
  kw_device_info info_ = {};
  std::unique_ptr<ThreadPool> pool_;
  std::atomic<bool> usable_{true};
  mutable std::mutex mutex_;  // guards the rest
  bool closing_ = false;
  std::string lost_;
  std::vector<std::weak_ptr<Stream>> streams_;
  std::unordered_set<Resource*> resources_;
};

}  // namespace kw
