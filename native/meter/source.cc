// Source: what a poll finds goes into columns under a mutex that nothing slow is done under.
#include "source.h"

#include <time.h>

#include <cmath>

namespace kw::meter {
namespace {

// Readings handed out on each side of what was asked for: enough ticks to know the rhythm of the counter.
constexpr size_t kMargin = 24;

}  // namespace

double Clock::now() const {
  if (!std::isnan(fixed)) return fixed;
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double Source::poll(const Clock& clock) {
  due_ = read(clock);
  const std::lock_guard lock(mutex_);
  ++status_.polls;
  return due_;
}

void Source::count(double asked, double answered, uint64_t raw, double stamp) {
  const std::lock_guard lock(mutex_);
  counter_.read(asked, answered, raw, stamp);
  status_.answering = true;
}

void Source::put(const char* column, double asked, double answered, double value, bool changes) {
  const std::lock_guard lock(mutex_);
  Series& series = series_[column];
  if (changes) {
    series.push_change(asked, answered, value);
  } else {
    series.push(answered, value);
  }
  if (!refused_.empty()) refused_.erase(column);
}

void Source::fail(Trouble trouble) {
  const std::lock_guard lock(mutex_);
  ++status_.failures;
  status_.answering = false;
  status_.trouble = std::move(trouble);
}

void Source::refuse(const char* column, Trouble trouble) {
  const std::lock_guard lock(mutex_);
  refused_[column] = std::move(trouble);
}

void Source::set_facts(Facts facts) {
  const std::lock_guard lock(mutex_);
  status_.facts = std::move(facts);
}

Status Source::status() const {
  const std::lock_guard lock(mutex_);
  Status status = status_;
  status.ticks = counter_.ticks();
  status.first = counter_.first_seconds();
  status.last = counter_.last_seconds();
  status.last_tick_after = counter_.last_tick_after();
  status.value = static_cast<double>(counter_.raw()) * joules_per_count_;
  return status;
}

Columns Source::columns(double from, double to) const {
  Columns result;
  const auto copy = [&](const std::string& name, const Series& series) {
    std::vector<Reading>& into = result.series[name];
    const auto [first, last] = series.range(from, to, kMargin);
    into.reserve(last - first);
    for (size_t i = first; i < last; ++i) into.push_back(series.at(i));
  };
  const std::lock_guard lock(mutex_);
  copy("counter", counter_.series());
  for (const auto& [name, series] : series_) copy(name, series);
  result.refused = refused_;
  result.breaks = counter_.breaks();
  result.thinned_before = counter_.series().thinned_before();
  return result;
}

}  // namespace kw::meter
