// Page-locked host memory that JavaScript sees as an ArrayBuffer: transfers read and write it in place, without staging.
#pragma once
#include <cstdint>
#include <memory>

#include "library.h"

namespace kw {

// Freed when the ArrayBuffer is gone (detached or collected) and no transfer uses it any more.
class HostMemory {
 public:
  // library: whose table page-locks it; null for plain memory of the CPU. Takes long: page-locking touches every page.
  // Throws OUT_OF_MEMORY.
  static std::shared_ptr<HostMemory> create(const Library* library, uint64_t bytes);
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  void* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  const Library* library() const { return library_; }

  // The block that these bytes lie in, whoever made it; null where they are in none.
  static std::shared_ptr<HostMemory> find(const void* data, uint64_t bytes);

 private:
  HostMemory(const Library* library, uint64_t bytes);

  const Library* const library_;
  const uint64_t bytes_;
  void* data_ = nullptr;
};

}  // namespace kw
