// Readings of one quantity over time in bounded memory. The newest are all kept; of older ones every fourth, of those every
// sixteenth, and so on: a cumulative counter loses no energy by that, only some knowledge of when it was used.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace kw::meter {

struct Reading {
  double seconds, value;
};

class Series {
 public:
  // per_level: readings kept of each age. 8192 polled every millisecond reach back 8 s, 33 s, 131 s ... and 50 hours in all.
  explicit Series(size_t per_level = 8192) : per_level_(per_level) {}

  // Seconds ascend from call to call.
  void push(double seconds, double value);
  // Stores readings around changes alone: the last with the old value, by when it was asked for, and the first with the new one,
  // by when it was there, so that the change lies in between; or within [after, before], where more is known about it.
  void push_change(double asked, double answered, double value, double after = -std::numeric_limits<double>::infinity(),
                   double before = std::numeric_limits<double>::infinity());

  size_t size() const;
  Reading at(size_t index) const;
  // Indices [first, last) of what was read from `from` to `to`, and of up to `margin` readings on each side.
  std::pair<size_t, size_t> range(double from, double to, size_t margin) const;
  // Everything before this moment has been thinned; -infinity where nothing has.
  double thinned_before() const;

 private:
  static constexpr size_t kEvery = 4, kLevels = 8;
  struct Level {
    std::vector<Reading> ring;
    size_t oldest = 0;
    uint64_t evicted = 0;
  };
  void push_level(size_t level, Reading reading);

  const size_t per_level_;
  std::vector<Level> levels_;  // the newest first
  // The last reading of push_change, and whether it is stored.
  Reading last_{};
  double pushed_ = 0;  // when the last stored one was there
  bool any_ = false, stored_ = false;
};

}  // namespace kw::meter
