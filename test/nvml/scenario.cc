// Reading scenarios, see scenario.h.
#include "scenario.h"

#include <cmath>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <mutex>
#include <sstream>

namespace kw::fake {
namespace {

double clock_seconds(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

constexpr double kVirtualEpoch = 1.7e9;

}  // namespace

std::vector<std::string> split(const std::string& list, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(list);
  for (std::string part; std::getline(stream, part, separator);)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

Curve::Curve(const std::string& text, double period) : period_(period) {
  for (const std::string& step : split(text)) {
    const size_t colon = step.find(':');
    if (colon == std::string::npos)
      steps_.emplace_back(0, std::atof(step.c_str()));
    else
      steps_.emplace_back(std::atof(step.c_str()), std::atof(step.c_str() + colon + 1));
  }
  if (steps_.empty()) steps_.emplace_back(0, 0);
}

double Curve::at(double t) const {
  if (period_ > 0) t -= period_ * std::floor(t / period_);
  double value = steps_.front().second;
  for (const auto& [from, level] : steps_)
    if (t >= from) value = level;
  return value;
}

/** Over [0, t] of the curve as written; the first level also stands before its time. */
double Curve::within(double t) const {
  double area = steps_.front().second * std::min(t, steps_.front().first);
  for (size_t i = 0; i < steps_.size(); ++i) {
    const double to = i + 1 < steps_.size() ? std::min(t, steps_[i + 1].first) : t;
    if (to > steps_[i].first) area += steps_[i].second * (to - steps_[i].first);
  }
  return area;
}

double Curve::integral(double t) const {
  if (period_ <= 0) return within(t) - within(0);
  const double whole = std::floor(t / period_);
  return whole * (within(period_) - within(0)) + within(t - whole * period_) - within(0);
}

Scenario::Scenario(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find('=');
    if (equals == std::string::npos || line[0] == '#') continue;
    const std::string key = line.substr(0, equals);
    values_[key] = line.substr(equals + 1);
    if (key != "now") identity_ += line + '\n';
  }
}

std::shared_ptr<const Scenario> Scenario::current() {
  static std::mutex mutex;
  static std::string known;
  static std::shared_ptr<const Scenario> scenario(new Scenario(""));
  std::string text;
  if (const char* path = std::getenv("KERNWATT_FAKE_NVML")) {
    std::ifstream file(path);
    std::ostringstream content;
    content << file.rdbuf();
    text = content.str();
  }
  const std::lock_guard lock(mutex);
  if (text != known) {
    scenario.reset(new Scenario(text));
    known = text;
  }
  return scenario;
}

const std::string* Scenario::text(const std::string& key, int gpu) const {
  auto found = values_.find("gpu" + std::to_string(gpu) + "." + key);
  if (found == values_.end()) found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

double Scenario::number(const std::string& key, double otherwise, int gpu) const {
  const std::string* value = text(key, gpu);
  return value ? std::atof(value->c_str()) : otherwise;
}

Curve Scenario::curve(const std::string& key, const std::string& otherwise, int gpu) const {
  const std::string* value = text(key, gpu);
  return Curve(value ? *value : otherwise, number("period", 0, gpu));
}

bool Scenario::lists(const std::string& key, std::string_view name, int gpu) const {
  const std::string* value = text(key, gpu);
  if (value)
    for (const std::string& one : split(*value))
      if (one == name) return true;
  return false;
}

std::optional<std::string> Scenario::entry(const std::string& key, std::string_view name, char separator,
                                           int gpu) const {
  const std::string* value = text(key, gpu);
  if (value)
    for (const std::string& one : split(*value)) {
      const size_t at = one.rfind(separator);
      if (at != std::string::npos && std::string_view(one).substr(0, at) == name) return one.substr(at + 1);
    }
  return std::nullopt;
}

double Scenario::now() const {
  const std::string* fixed = text("now");
  return fixed ? std::atof(fixed->c_str()) : clock_seconds(CLOCK_MONOTONIC);
}

int64_t Scenario::epoch_us(double t) const {
  const double begin = text("now") ? kVirtualEpoch : clock_seconds(CLOCK_REALTIME) - clock_seconds(CLOCK_MONOTONIC);
  return static_cast<int64_t>(std::llround(1e6 * (begin + t)));
}

}  // namespace kw::fake
