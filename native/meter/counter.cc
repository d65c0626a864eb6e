// Counter: wraps, resets, and the rhythm of ticks.
#include "counter.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace kw::meter {
namespace {

// More than anything draws that has such a counter, watts: what tells a wrap from a reset.
constexpr double kMostWatts = 2000;
// Counters publish in steps, so that one may carry more than the time between two readings, seconds.
constexpr double kSlack = 0.1;
// A reading of 0 in between is a driver that did not answer, as often as it may happen in a row.
constexpr int kZeros = 3;
// Breaks kept; a counter with more is of no use.
constexpr size_t kBreaks = 1024;
// Looking this many times sooner than necessary is as good as looking always.
constexpr double kMostCaution = 64;
// A stamp is believed after so often, and to so many seconds: clocks are set while programs run.
constexpr int kStamps = 5;
constexpr double kStampSlack = 5e-4;
// A counter that has not ticked for so long is looked at this much more rarely.
constexpr double kStill = 1, kStillFactor = 20;

std::string text(const char* format, double a, double b) {
  char buffer[128];
  std::snprintf(buffer, sizeof(buffer), format, a, b);
  return buffer;
}

template <size_t n>
double median(std::array<double, n> values, size_t count) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(count / 2);
  std::nth_element(values.begin(), middle, values.begin() + static_cast<ptrdiff_t>(count));
  return *middle;
}

}  // namespace

void Counter::broken(double until, std::string reason) {
  if (breaks_.size() == kBreaks) breaks_.erase(breaks_.begin());
  breaks_.push_back({asked_, until, std::move(reason)});
  connected_ = false;
}

int64_t Counter::step(double answered, uint64_t raw) {
  const double unit = kind_.joules_per_count, range = static_cast<double>(kind_.range) * unit;
  const double elapsed = answered - asked_;
  if (kind_.range != 0 && elapsed * kMostWatts > range) {
    broken(answered, text("no reading for %.1f s, in which ", elapsed, 0) + kind_.name + " may have wrapped unseen");
    return -1;
  }
  if (raw >= raw_) return static_cast<int64_t>(raw - raw_);
  if (kind_.range != 0 && raw_ <= kind_.range) {
    const uint64_t wrapped = raw + kind_.range - raw_;
    if (static_cast<double>(wrapped) * unit <= std::max(elapsed, kSlack) * kMostWatts) {
      return static_cast<int64_t>(wrapped);
    }
  }
  const std::string values =
      text("%.6g J to %.6g J", static_cast<double>(raw_) * unit, static_cast<double>(raw) * unit);
  broken(answered, kind_.name + " went back from " + values + " and did not wrap: it was reset");
  return -1;
}

// Drivers either carry the time of the counter's last tick or that of the call; only the first stands still between ticks.
bool Counter::believes(double stamp, bool ticked) {
  if (std::isnan(stamp)) return false;
  const bool moved = std::abs(stamp - stamp_) > kStampSlack;
  stamp_ = stamp;
  if (moved != ticked) {
    stood_ = moved_ = 0;
  } else {
    ++(ticked ? moved_ : stood_);
  }
  return stood_ >= kStamps && moved_ >= kStamps;
}

void Counter::read(double asked, double answered, uint64_t raw, double stamp) {
  if (any_ && raw == 0 && raw_ != 0 && kind_.range == 0 && ++zeros_ < kZeros) return;
  zeros_ = 0;
  last_latency_ = answered - asked;
  latency_ += (last_latency_ - latency_) * (any_ ? 0.1 : 1);
  double after = -INFINITY, before = INFINITY;
  if (!any_) {
    any_ = true;
    first_ = answered;
    believes(stamp, true);
  } else {
    const int64_t counts = step(answered, raw);
    const bool stamped = believes(stamp, counts > 0) && counts > 0 && stamp > asked_ && stamp < answered;
    if (counts > 0) {
      counts_ += static_cast<uint64_t>(counts);
      ++ticks_;
      if (stamped) after = stamp - kStampSlack, before = stamp + kStampSlack;
      const bool paused = asked - answered_ > 2 * interval();
      if (paused) {
        // The tick was there already at the first look: it came early, or this thread was woken late. Look sooner from now on.
        caution_ = std::min(caution_ * (asked - planned_ < interval() ? 2 : 1.3), kMostCaution);
      } else {
        caution_ = std::max(0.99 * caution_, 1.0);
      }
      learn(stamped ? stamp : (asked_ + answered) / 2);
      last_tick_after_ = std::max(asked_, after);
    }
  }
  raw_ = raw;
  asked_ = asked;
  answered_ = answered;
  series_.push_change(asked, answered, static_cast<double>(counts_) * kind_.joules_per_count, after, before);
}

// One slow reading says little (this thread may just have been interrupted), and one fast one that the slowness is over.
double Counter::interval() const { return std::max(kind_.interval, 3 * std::min(latency_, last_latency_)); }

void Counter::learn(double tick) {
  if (connected_) {
    spacings_[learnt_++ % kSpacings] = tick - last_tick_;
    const size_t count = std::min(learnt_, kSpacings);
    if (count >= 5) {
      period_ = median(spacings_, count);
      std::array<double, kSpacings> deviations{};
      for (size_t i = 0; i < count; ++i) deviations[i] = std::abs(spacings_[i] - period_);
      jitter_ = median(deviations, count);
    }
  }
  last_tick_ = tick;
  connected_ = true;
}

double Counter::next(double now) { return planned_ = plan(now); }

double Counter::plan(double now) const {
  const double interval = this->interval();
  if (any_ && now - std::max(last_tick_, first_) > std::max(kStill, 3 * period_)) {
    return now + std::max(interval, kStillFactor * kind_.interval);
  }
  const double guard = caution_ * std::max({2 * interval, 4 * jitter_, 0.02 * period_});
  if (period_ == 0 || guard > period_ / 2) return now + interval;
  return std::max(now + interval, last_tick_ + period_ - guard);
}

}  // namespace kw::meter
