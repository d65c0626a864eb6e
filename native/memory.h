// Memory of a device, counted exactly.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>

#include "counters.h"
#include "pool.h"

namespace kw {

class Channel;
class Device;

// The allocator's live counters: bytes now, at most, and integrated over time.
class Meter {
 public:
  struct Reading {
    uint64_t current = 0, peak = 0, allocations = 0;
    double byte_seconds = 0, seconds = 0;
  };

  void add(uint64_t bytes);
  void remove(uint64_t bytes);
  // An allocation has another size from here on.
  void change(uint64_t from, uint64_t to);
  Reading read() const;

 private:
  using Clock = std::chrono::steady_clock;
  void advance(Clock::time_point now) const;

  mutable std::mutex mutex_;
  mutable Reading reading_;
  mutable Clock::time_point last_ = Clock::now();
};

// One allocation of a device, given back to its pool when the last holder lets go, on whichever thread that is.
class Memory {
 public:
  // Whose memory it is.
  enum Owner {
    kOurs,
    kJavaScript,  // native threads need a JsLease to touch it
    kShared       // another allocation's, of this environment or another
  };

  // Throws OUT_OF_MEMORY with the bytes asked for and the bytes to be had; nothing has been touched then.
  Memory(std::shared_ptr<Device> device, uint64_t bytes);
  // Memory of somebody else, who is not ours; `held` keeps it alive.
  Memory(std::shared_ptr<Device> device, void* data, uint64_t bytes, std::shared_ptr<void> held, Owner owner);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* data() const { return block_.data; }
  uint64_t bytes() const { return bytes_; }
  const std::shared_ptr<Device>& device() const { return device_; }
  // Belongs to JavaScript: native threads need a JsLease to touch it.
  bool external() const { return owner_ == kJavaScript; }
  bool ours() const { return owner_ == kOurs; }

  // JavaScript thread. Others may use it from here on, at times that this environment knows nothing of.
  void share() { shared_ = true; }
  // Whether the stream that its last work is queued on may pass it on for `bytes`; pass_on then changes its size.
  bool may_serve(uint64_t bytes) const;
  void pass_on(uint64_t bytes);

 private:
  const std::shared_ptr<Device> device_;
  const Owner owner_ = kOurs;
  Block block_;
  uint64_t bytes_;
  bool shared_ = false;
  const std::shared_ptr<void> held_;
};

// Host memory outside any device's counters (staging). Throws OUT_OF_MEMORY likewise.
std::shared_ptr<void> allocate_host(uint64_t bytes);

// Throws OUT_OF_MEMORY where the host has not that much left; for memory that others allocate.
void check_host_memory(uint64_t bytes);

// 64-byte aligned or better; blocks of 2 MiB and more are aligned for huge pages. bytes is at least 1.
void* host_allocate(uint64_t bytes);
void host_free(void* data, uint64_t bytes);

}  // namespace kw
