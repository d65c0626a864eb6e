// Host allocation that asks first whether the memory is there, and the counters of every device's allocator.
#include "memory.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "../kernels/core/cpu/features.h"
#include "../kernels/core/error.h"
#include "device.h"

namespace kw {
namespace {

// Left to the rest of the machine: an allocation that would go below it is refused.
constexpr int64_t kReserve = int64_t{128} << 20;
// Looking at what the system has left takes some 100 microseconds. Until the next look, small allocations may take
// kUnchecked, and within kFresh any allocation may take a quarter of what was found.
constexpr uint64_t kSmall = uint64_t{1} << 20;
constexpr int64_t kUnchecked = int64_t{32} << 20;
constexpr std::chrono::milliseconds kFresh{10};
constexpr uint64_t kHugePage = uint64_t{2} << 20;

std::atomic<int64_t> host_bytes{0};  // allocated here and not freed

int64_t resident_bytes() {
  long pages = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return int64_t{pages} * sysconf(_SC_PAGESIZE);
}

// Memory that a new allocation may use. The system counts a page as used only once it is touched, so what was allocated
// here and lies beyond the resident size is taken off.
int64_t to_be_had() {
  const auto available = static_cast<int64_t>(cpu::available_bytes());
  if (available == 0) return INT64_MAX;  // unknown: leave the decision to the system
  const int64_t untouched = std::max<int64_t>(0, host_bytes.load() - resident_bytes());
  return std::max<int64_t>(0, available - untouched - kReserve);
}

// What may be taken without looking.
struct Allowance {
  std::mutex mutex;
  int64_t small = 0, fresh = 0;
  std::chrono::steady_clock::time_point looked;
};

void reserve(uint64_t bytes) {
  static auto* allowance = new Allowance;
  const std::lock_guard lock(allowance->mutex);
  const auto wanted = static_cast<int64_t>(std::min<uint64_t>(bytes, INT64_MAX));
  if (bytes <= kSmall) {
    if ((allowance->small -= wanted) >= 0) return;
  } else if (std::chrono::steady_clock::now() - allowance->looked <= kFresh && wanted <= allowance->fresh) {
    allowance->fresh -= wanted;
    return;
  }
  const int64_t left = to_be_had();
  if (wanted > left) {
    throw Error(Code::OUT_OF_MEMORY, "alloc: bytes is " + std::to_string(bytes) + ", expected at most " +
                                         std::to_string(left) + ", the host memory to be had");
  }
  const int64_t rest = left - wanted;
  allowance->small = std::min(kUnchecked, rest / 4);
  allowance->fresh = rest / 4;
  allowance->looked = std::chrono::steady_clock::now();
}

}  // namespace

void check_host_memory(uint64_t bytes) { reserve(bytes); }

void* host_allocate(uint64_t bytes) {
  reserve(bytes);
  const uint64_t alignment = bytes >= kHugePage ? kHugePage : 64;
  const uint64_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(alignment, rounded);
  if (data == nullptr) {
    throw Error(Code::OUT_OF_MEMORY,
                "alloc: bytes is " + std::to_string(bytes) + ", expected what the system gives; it refused");
  }
  if (bytes >= kHugePage) madvise(data, rounded, MADV_HUGEPAGE);
  host_bytes.fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  return data;
}

void host_free(void* data, uint64_t bytes) {
  std::free(data);
  host_bytes.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed);
}

std::shared_ptr<void> allocate_host(uint64_t bytes) {
  const uint64_t size = std::max<uint64_t>(bytes, 1);
  return std::shared_ptr<void>(host_allocate(size), [size](void* data) { host_free(data, size); });
}

void Meter::advance(Clock::time_point now) const {
  const double passed = std::chrono::duration<double>(now - last_).count();
  reading_.seconds += passed;
  reading_.byte_seconds += static_cast<double>(reading_.current) * passed;
  last_ = now;
}

void Meter::add(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  advance(Clock::now());
  reading_.current += bytes;
  reading_.peak = std::max(reading_.peak, reading_.current);
  ++reading_.allocations;
  counters.bytes.fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed);
}

void Meter::remove(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  advance(Clock::now());
  reading_.current -= bytes;
  --reading_.allocations;
  counters.bytes.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed);
}

void Meter::change(uint64_t from, uint64_t to) {
  const std::lock_guard lock(mutex_);
  advance(Clock::now());
  reading_.current += to - from;
  reading_.peak = std::max(reading_.peak, reading_.current);
  counters.bytes.fetch_add(static_cast<int64_t>(to - from), std::memory_order_relaxed);
}

Meter::Reading Meter::read() const {
  const std::lock_guard lock(mutex_);
  advance(Clock::now());
  return reading_;
}

Memory::Memory(std::shared_ptr<Device> device, uint64_t bytes)
    : device_(std::move(device)), block_(device_->pool().take(bytes)), bytes_(bytes) {
  device_->meter.add(bytes);
}

Memory::Memory(std::shared_ptr<Device> device, void* data, uint64_t bytes, std::shared_ptr<void> held, Owner owner)
    : device_(std::move(device)), owner_(owner), block_{data, bytes}, bytes_(bytes), held_(std::move(held)) {}

Memory::~Memory() {
  if (!ours()) return;
  device_->pool().give(block_);
  device_->meter.remove(bytes_);
}

bool Memory::may_serve(uint64_t bytes) const { return ours() && !shared_ && device_->pool().fits(block_.bytes, bytes); }

void Memory::pass_on(uint64_t bytes) {
  device_->meter.change(bytes_, bytes);
  // Work that is queued may still use all of the former size.
  if (device_->is_cpu()) ASAN_UNPOISON_MEMORY_REGION(block_.data, bytes);
  bytes_ = bytes;
}

}  // namespace kw
