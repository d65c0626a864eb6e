#include "pool.h"

#include <sanitizer/asan_interface.h>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "../kernels/core/error.h"
#include "device.h"

namespace kw {
namespace {

constexpr uint64_t kSmallest = 512;
constexpr uint64_t kLarge = uint64_t{2} << 20;  // beyond it, sizes are multiples of it: the granule of a GPU

}  // namespace

Pool::Pool(Device& device, uint64_t keep, uint64_t limit, bool exact)
    : device_(device), exact_(exact), keep_(exact ? 0 : keep) {
  reading_.limit = limit;
}

// Eight sizes for each power of two, so that at most an eighth is wasted.
uint64_t Pool::rounded(uint64_t bytes) const {
  if (exact_) return bytes;
  if (bytes <= kSmallest) return kSmallest;
  const uint64_t step = bytes > kLarge ? kLarge : std::max<uint64_t>(std::bit_floor(bytes) / 8, 256);
  return (bytes + step - 1) / step * step;
}

bool Pool::fits(uint64_t block, uint64_t request) const {
  if (exact_ || request > reading_.limit) return false;
  const uint64_t size = rounded(request);
  return block >= request && block <= size + size / 8;
}

bool Pool::reserve(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes > reading_.limit - reading_.reserved) return false;
  reading_.reserved += bytes;
  reading_.peak = std::max(reading_.peak, reading_.reserved);
  return true;
}

void Pool::unreserve(uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  reading_.reserved -= bytes;
}

Block Pool::take(uint64_t bytes) {
  if (bytes == 0) return {};
  {
    const std::lock_guard lock(mutex_);
    const auto found = free_.lower_bound(bytes);
    if (found != free_.end() && fits(found->first, bytes)) {
      const Block block{found->second, found->first};
      free_.erase(found);
      kept_ -= block.bytes;
      if (device_.is_cpu()) ASAN_UNPOISON_MEMORY_REGION(block.data, bytes);
      return block;
    }
  }
  uint64_t size = rounded(std::min(bytes, UINT64_MAX / 2));
  if (!reserve(size)) {
    trim();
    if (!reserve(size)) {
      size = bytes;  // the last that the limit leaves may be less than a rounded size
      if (!reserve(size)) {
        const Reading now = read();
        throw Error(Code::OUT_OF_MEMORY, "alloc: bytes is " + std::to_string(bytes) + ", expected at most " +
                                             std::to_string(now.limit - now.reserved) + ", what the memoryLimit of " +
                                             std::to_string(now.limit) + " leaves on " + device_.name());
      }
    }
  }
  Block block{nullptr, size};
  try {
    try {
      block.data = device_.allocate(size);
    } catch (const Error& error) {
      if (error.code != Code::OUT_OF_MEMORY || (trim() == 0 && size == bytes)) throw;
      // Once more without what was kept, and without rounding.
      unreserve(size - bytes);
      size = block.bytes = bytes;
      block.data = device_.allocate(size);
    }
  } catch (...) {
    unreserve(size);
    throw;
  }
  if (device_.is_cpu()) ASAN_POISON_MEMORY_REGION(static_cast<char*>(block.data) + bytes, size - bytes);
  return block;
}

void Pool::give(Block block) noexcept {
  if (block.data == nullptr) return;
  {
    const std::lock_guard lock(mutex_);
    if (kept_ + block.bytes <= keep_) {
      try {
        free_.emplace(block.bytes, block.data);
        kept_ += block.bytes;
        if (device_.is_cpu()) ASAN_POISON_MEMORY_REGION(block.data, block.bytes);
        return;
      } catch (const std::bad_alloc&) {
        // Then it is not kept.
      }
    }
    reading_.reserved -= block.bytes;
  }
  device_.release(block.data, block.bytes);
}

uint64_t Pool::trim() noexcept {
  std::multimap<uint64_t, void*> unused;
  uint64_t bytes = 0;
  {
    const std::lock_guard lock(mutex_);
    unused.swap(free_);
    bytes = std::exchange(kept_, 0);
  }
  for (const auto& [size, data] : unused) device_.release(data, size);
  unreserve(bytes);
  return bytes;
}

void Pool::close() noexcept {
  {
    const std::lock_guard lock(mutex_);
    keep_ = 0;
  }
  trim();
}

Pool::Reading Pool::read() const {
  const std::lock_guard lock(mutex_);
  return reading_;
}

}  // namespace kw
