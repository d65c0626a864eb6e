// One cumulative counter of energy: joules that only grow out of raw readings that wrap and are reset, when it ticks, and when to
// look at it next.
#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "series.h"

namespace kw::meter {

// A stretch of time over which a counter tells nothing.
struct Break {
  double from, to;
  std::string reason;
};

class Counter {
 public:
  struct Kind {
    std::string name;  // as messages call it: a path, or what the driver calls it
    double joules_per_count;
    uint64_t range = 0;      // raw readings start again at 0 after this one; 0: they do not wrap, or nobody knows
    double interval = 1e-3;  // between two polls when a tick is due, seconds
  };
  explicit Counter(Kind kind) : kind_(std::move(kind)) {}

  // A reading, asked for and answered at these seconds of one clock that never goes back. stamp: when, by that clock, the source says
  // that the counter took this value; NaN where it does not say.
  void read(double asked, double answered, uint64_t raw, double stamp = std::numeric_limits<double>::quiet_NaN());
  // When to read again. A counter that ticks regularly and rarely is left alone until its next tick is near.
  double next(double now);

  const Series& series() const { return series_; }
  const std::vector<Break>& breaks() const { return breaks_; }
  uint64_t ticks() const { return ticks_; }
  // The poll before the last tick: every reading up to this moment showed the value before.
  double last_tick_after() const { return last_tick_after_; }
  double first_seconds() const { return first_; }
  double last_seconds() const { return answered_; }
  uint64_t raw() const { return raw_; }

 private:
  // Counts since the reading before, or -1 after a break.
  int64_t step(double answered, uint64_t raw);
  void broken(double until, std::string reason);
  // Whether stamps tell when the counter ticked, from what they did so far.
  bool believes(double stamp, bool ticked);
  void learn(double tick);
  double plan(double now) const;
  // Between two polls; slow readings may take a quarter of the time at most.
  double interval() const;

  const Kind kind_;
  Series series_;
  std::vector<Break> breaks_;
  uint64_t raw_ = 0, counts_ = 0, ticks_ = 0;
  double first_ = 0, asked_ = 0, answered_ = 0;
  double latency_ = 0, last_latency_ = 0;  // of readings, running mean and the last, seconds
  bool any_ = false;
  double stamp_ = 0;
  int stood_ = 0, moved_ = 0;  // stamps that stood still with the counter, and that moved with it
  int zeros_ = 0;
  double last_tick_after_ = -std::numeric_limits<double>::infinity(), last_tick_ = last_tick_after_;
  double planned_ = 0;      // what next() said last; for the polling thread alone
  bool connected_ = false;  // no break since last_tick_
  // The last times between ticks, and what follows from them; period_ is 0 until it is known.
  static constexpr size_t kSpacings = 15;
  std::array<double, kSpacings> spacings_{};
  size_t learnt_ = 0;
  double period_ = 0, jitter_ = 0, caution_ = 1;
};

}  // namespace kw::meter
