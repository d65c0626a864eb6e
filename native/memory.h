// Memory of a device, counted exactly.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>

#include "counters.h"

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
  Reading read() const;

 private:
  using Clock = std::chrono::steady_clock;
  void advance(Clock::time_point now) const;

  mutable std::mutex mutex_;
  mutable Reading reading_;
  mutable Clock::time_point last_ = Clock::now();
};

// One allocation of a device, given back when the last holder lets go, on whichever thread that is.
class Memory {
 public:
  // Throws OUT_OF_MEMORY with the bytes asked for and the bytes to be had; nothing has been touched then.
  Memory(std::shared_ptr<Device> device, uint64_t bytes);
  // Memory of the caller; `owner` keeps it alive.
  Memory(std::shared_ptr<Device> device, void* data, uint64_t bytes, std::shared_ptr<void> owner);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  // Belongs to JavaScript: native threads need a JsLease to touch it.
  bool external() const { return owner_ != nullptr; }

 private:
  const std::shared_ptr<Device> device_;
  void* data_ = nullptr;
  const uint64_t bytes_;
  const std::shared_ptr<void> owner_;
};

// Host memory outside any device's counters (staging). Throws OUT_OF_MEMORY likewise.
std::shared_ptr<void> allocate_host(uint64_t bytes);

// 64-byte aligned or better; blocks of 2 MiB and more are aligned for huge pages. bytes is at least 1.
void* host_allocate(uint64_t bytes);
void host_free(void* data, uint64_t bytes);

}  // namespace kw
