// A library of kernels opened at run time (kernels/core/abi.h): libkernwatt_cuda.so, libkernwatt_emu.so.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../kernels/core/abi.h"
#include "../kernels/core/error.h"
#include "../kernels/core/host/table.h"

namespace kw {

// The first error after which a device takes no more work.
class Loss {
 public:
  bool happened() const { return happened_.load(std::memory_order_relaxed); }
  // Empty before.
  std::string cause() const;
  void happen(const std::string& cause);

 private:
  std::atomic<bool> happened_{false};
  mutable std::mutex mutex_;
  std::string cause_;
};

class Library {
 public:
  // Opened once per path in this process and never closed: its threads and contexts outlive every environment. Throws
  // LIBRARY with the loader's or the library's reason.
  static const Library& open(const std::string& path);

  const kw_table& table() const { return *table_; }
  // Null when the library has no such operator.
  const kw_op* find(const std::string& op) const { return find_op(*table_, op); }
  // Page-locked host memory of at most kMostStaging bytes, which is slow to come by, so a block let go is kept for the
  // next caller.
  static constexpr uint64_t kMostStaging = 16 << 20;
  std::shared_ptr<void> staging(uint64_t bytes) const;
  // Whether a device is lost, for everything that opened it: what ends a GPU's context ends it for the whole process.
  // Lives as long as the process.
  Loss& loss(int index) const;
  // Throws what a failed call of the table means. Device::check is for calls that concern one device.
  void check(int32_t status) const {
    if (status != 0) fail(status);
  }
  [[noreturn]] void fail(int32_t status) const;

 private:
  explicit Library(const kw_table* table) : table_(table) {}

  const kw_table* table_;
  mutable std::mutex mutex_;
  mutable std::map<int, Loss> losses_;
  mutable std::map<uint64_t, std::vector<void*>> free_staging_;  // by size, a power of two
};

}  // namespace kw
