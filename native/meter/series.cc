// Series: rings of ever coarser readings, each fed by what falls out of the one before.
#include "series.h"

#include <algorithm>
#include <limits>

namespace kw::meter {

void Series::push_level(size_t level, Reading reading) {
  if (level == kLevels) return;
  if (level == levels_.size()) levels_.emplace_back();
  if (levels_[level].ring.size() < per_level_) {
    levels_[level].ring.push_back(reading);
    return;
  }
  Level& full = levels_[level];
  const Reading evicted = std::exchange(full.ring[full.oldest], reading);
  full.oldest = (full.oldest + 1) % per_level_;
  if (full.evicted++ % kEvery == 0) push_level(level + 1, evicted);
}

void Series::push(double seconds, double value) {
  push_level(0, {seconds, value});
  pushed_ = seconds;
  any_ = stored_ = true;
}

void Series::push_change(double asked, double answered, double value, double after, double before) {
  if (!any_) {
    push(answered, value);
  } else if (value != last_.value) {
    const double old = std::max(last_.seconds, after);
    if (old > pushed_) push(old, last_.value);
    push(std::max(pushed_, std::min(answered, before)), value);
  } else {
    stored_ = false;
  }
  last_ = {asked, value};
}

size_t Series::size() const {
  size_t total = any_ && !stored_ ? 1 : 0;
  for (const Level& level : levels_) total += level.ring.size();
  return total;
}

Reading Series::at(size_t index) const {
  for (size_t i = levels_.size(); i-- > 0;) {
    const Level& level = levels_[i];
    if (index < level.ring.size()) return level.ring[(level.oldest + index) % level.ring.size()];
    index -= level.ring.size();
  }
  return last_;
}

std::pair<size_t, size_t> Series::range(double from, double to, size_t margin) const {
  const size_t total = size();
  const auto first_after = [&](double when, bool inclusive) {
    size_t low = 0, high = total;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      const double seconds = at(middle).seconds;
      if (inclusive ? seconds <= when : seconds < when) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  const size_t first = first_after(from, false), last = first_after(to, true);
  return {first - std::min(first, margin), std::max(first, std::min(total, last + margin))};
}

double Series::thinned_before() const {
  if (levels_.size() < 2) return -std::numeric_limits<double>::infinity();
  return levels_[0].ring[levels_[0].oldest].seconds;
}

}  // namespace kw::meter
