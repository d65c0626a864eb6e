// Live objects of this process, for leak tests: each returns to its baseline once everything is released.
#pragma once
#include <atomic>
#include <cstdint>

namespace kw {

struct Counters {
  std::atomic<int64_t> devices{0}, streams{0}, buffers{0}, bytes{0}, plans{0}, pending{0}, host_buffers{0};
};
inline Counters counters;

// Counts the object it is a member of.
template <std::atomic<int64_t> Counters::*member>
struct Counted {
  Counted() { (counters.*member).fetch_add(1, std::memory_order_relaxed); }
  ~Counted() { (counters.*member).fetch_sub(1, std::memory_order_relaxed); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
};

}  // namespace kw
