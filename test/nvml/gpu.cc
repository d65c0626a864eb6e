// The simulation, see gpu.h. Counter and sensors are updated once in a tick and say nothing in between, as real ones.
#include "gpu.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <mutex>

namespace kw::fake {
namespace {

struct Reason {
  const char* name;
  uint32_t field;
  uint64_t bits;  // of the clock event reasons
};
constexpr Reason kReasons[] = {
    {"swPowerCap", 74, 0x4}, {"syncBoost", 76, 0x10},  {"boardLimit", 77, 0x0},  {"lowUtil", 78, 0x0},
    {"reliability", 79, 0},  {"swThermal", 269, 0x20}, {"hwThermal", 270, 0x48}, {"hwPowerBrake", 271, 0x88},
};
constexpr uint64_t kIdle = 0x1;

/** Standard normal, by the number of the tick: the same in every process. */
double normal(uint64_t seed, uint64_t index) {
  const auto uniform = [](uint64_t x) {  // splitmix64
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return (static_cast<double>((x ^ (x >> 31)) >> 11) + 0.5) * 0x1p-53;
  };
  const double radius = std::sqrt(-2 * std::log(uniform(seed * 0x100000001b3 + 2 * index)));
  return radius * std::cos(2 * M_PI * uniform(seed * 0x100000001b3 + 2 * index + 1));
}

/** Joules that the noise of all ticks up to each has added, kept while the scenario is the same. */
class Noise {
 public:
  template <class Energy>
  double until(const std::string& identity, int64_t tick, uint64_t seed, Energy energy) {
    const std::lock_guard lock(mutex_);
    if (identity != identity_) {
      identity_ = identity;
      sums_.assign(1, 0);
    }
    for (auto k = static_cast<int64_t>(sums_.size()); k <= tick; ++k)
      sums_.push_back(sums_.back() + energy(k) * normal(seed, static_cast<uint64_t>(k)));
    return sums_[static_cast<size_t>(std::max<int64_t>(tick, 0))];
  }

 private:
  std::mutex mutex_;
  std::string identity_;
  std::vector<double> sums_{0};
};

Noise& noise_of(int gpu) {
  static std::mutex mutex;
  static std::map<int, Noise> all;
  const std::lock_guard lock(mutex);
  return all[gpu];
}

uint32_t milliwatts(double watts) { return static_cast<uint32_t>(std::lround(1e3 * std::max(watts, 0.0))); }

}  // namespace

bool Gpu::lost() const {
  const std::string* at = scenario_.text("lost_at", index_);
  return at && now_ >= std::atof(at->c_str());
}

std::string Gpu::uuid(int instance) const {
  char text[64];
  const char* form =
      instance ? "MIG-fa4e0000-0000-4000-8000-0000000%02d%03d" : "GPU-fa4e0000-0000-4000-8000-0000000%02d%03d";
  std::snprintf(text, sizeof(text), form, instance, index_);
  return text;
}

std::string Gpu::pci_bus_id() const {
  char text[32];
  std::snprintf(text, sizeof(text), "00000000:%02X:00.0", pci_bus());
  return text;
}

double Gpu::updated() const {
  // Ticks are whole numbers of a period; a quotient of two decimal fractions may fall just short of one.
  return tick() * std::floor(now_ / tick() + 1e-9);
}

double Gpu::joules(double from, double to) const {
  const Curve power = scenario_.curve("power", "250", index_);
  return power.integral(to) - power.integral(from);
}

uint64_t Gpu::millijoules() const {
  double base = scenario_.number("base_mj", 5e6, index_), from = scenario_.number("origin", 0, index_);
  const double until = updated();
  const std::string* reset = scenario_.text("reset_at", index_);
  if (reset && until >= std::atof(reset->c_str())) {
    base = 0;
    from = std::atof(reset->c_str());
  }
  double counted = 0;
  if (scenario_.number("stuck", 0, index_) == 0 && until > from) {
    counted = joules(from, until);
    const double noise = scenario_.number("noise", 0, index_);
    if (noise > 0) {
      const double step = tick();
      const auto seed =
          static_cast<uint64_t>(scenario_.number("seed", 1, index_)) + 977 * static_cast<uint64_t>(index_);
      const auto energy = [&](int64_t k) {
        return joules(from + step * static_cast<double>(k - 1), from + step * static_cast<double>(k));
      };
      const std::string identity = scenario_.identity() + "\nfrom " + std::to_string(from);
      counted += noise * noise_of(index_).until(identity, std::llround((until - from) / step), seed, energy);
    }
    counted *= scenario_.number("gain", 1, index_);
  }
  const double quantum = std::max(scenario_.number("quantum_mj", 1, index_), 1e-9);
  return static_cast<uint64_t>(base + quantum * std::floor(1e3 * std::max(counted, 0.0) / quantum + 1e-6));
}

uint32_t Gpu::instant_mw() const { return milliwatts(scenario_.curve("power", "250", index_).at(updated())); }

uint32_t Gpu::average_mw() const {
  const double span = scenario_.number("power_average_s", 1, index_), until = updated();
  return span > 0 ? milliwatts(joules(until - span, until) / span) : instant_mw();
}

std::vector<Sample> Gpu::power_samples(uint64_t after_us) const {
  const Curve power = scenario_.curve("power", "250", index_);
  std::vector<Sample> samples;
  for (int back = 119; back >= 0; --back) {
    const double at = updated() - back * tick();
    Sample sample{static_cast<uint64_t>(scenario_.epoch_us(at)), {.u64 = 0}};
    sample.value.u32 = milliwatts(power.at(at));
    if (at >= 0 && sample.timestamp_us > after_us) samples.push_back(sample);
  }
  return samples;
}

uint64_t Gpu::throttled_ns(const std::string& reason) const {
  const std::string* spans = scenario_.text("throttle", index_);
  double seconds = 0;
  for (const std::string& span : spans ? split(*spans) : std::vector<std::string>()) {
    const size_t colon = span.find(':'), dash = span.find('-', colon);
    if (colon == std::string::npos || dash == std::string::npos || span.substr(0, colon) != reason) continue;
    const double from = std::atof(span.c_str() + colon + 1), to = std::atof(span.c_str() + dash + 1);
    seconds += std::max(std::min(now_, to) - from, 0.0);
  }
  return static_cast<uint64_t>(std::llround(1e9 * seconds));
}

uint64_t Gpu::clock_reasons() const {
  uint64_t bits = level("utilisation", "100") == 0 ? kIdle : 0;
  const std::string* spans = scenario_.text("throttle", index_);
  for (const std::string& span : spans ? split(*spans) : std::vector<std::string>()) {
    const size_t colon = span.find(':'), dash = span.find('-', colon);
    if (colon == std::string::npos || dash == std::string::npos) continue;
    if (now_ < std::atof(span.c_str() + colon + 1) || now_ >= std::atof(span.c_str() + dash + 1)) continue;
    for (const Reason& reason : kReasons)
      if (span.substr(0, colon) == reason.name) bits |= reason.bits;
  }
  return bits;
}

uint32_t Gpu::clock_mhz() const { return level("clock", "1980"); }

uint32_t Gpu::level(const std::string& key, const char* otherwise) const {
  return static_cast<uint32_t>(std::lround(scenario_.curve(key, otherwise, index_).at(now_)));
}

uint64_t Gpu::used_bytes() const {
  return static_cast<uint64_t>(scenario_.curve("memory_used", "1073741824", index_).at(now_));
}

int Gpu::field_status(const FieldValue& field) const {
  const std::string name = "field:" + std::to_string(field.field);
  if (scenario_.lists("deny", name, index_)) return kNoPermission;
  if (scenario_.lists("unsupported", name, index_)) return kNotSupported;
  const auto code = scenario_.entry("fail", name, '=', index_);
  return code ? std::atoi(code->c_str()) : kOk;
}

void Gpu::answer(FieldValue& f) const {
  f.timestamp_us = scenario_.epoch_us(scenario_.text("stamp") ? updated() : now_);
  f.latency_us = 1;
  f.type = kUnsigned;
  f.value.u64 = 0;
  f.status = field_status(f);
  if (f.status != kOk) return;
  const auto wide = [&](uint64_t value) {
    f.type = kUnsignedLongLong;
    f.value.u64 = value;
  };
  if ((f.field == 185 || f.field == 186) && f.scope == kScopeMemory) {
    const uint32_t all = f.field == 185 ? average_mw() : instant_mw();
    f.value.u32 = static_cast<uint32_t>(std::lround(all * scenario_.number("memory_power", 0.1, index_)));
    return;
  }
  if (f.scope != kScopeGpu) {
    f.status = kNotSupported;
    return;
  }
  for (const Reason& reason : kReasons)
    if (reason.field == f.field) return wide(throttled_ns(reason.name));
  switch (f.field) {
    case 75:
      return wide(throttled_ns("swThermal") + throttled_ns("hwThermal"));
    case 81:
      return wide(0);
    case 83:
    case 191:
      return wide(millijoules());
    case 82:
      f.value.u32 = level("memory_temperature", "48");
      return;
    case 185:
      f.value.u32 = average_mw();
      return;
    case 186:
      f.value.u32 = instant_mw();
      return;
    case 187:
      f.value.u32 = 200000;
      return;
    case 188:
    case 189:
    case 190:
    case 192:
      f.value.u32 = kPowerLimit;
      return;
    case 193:
      f.type = kSigned;
      f.value.u32 = static_cast<uint32_t>(-8);
      return;
    case 194:
      f.type = kSigned;
      f.value.u32 = static_cast<uint32_t>(-2);
      return;
    case 195:
      f.type = kSigned;
      f.value.u32 = 0;
      return;
    case 196:
      f.type = kSigned;
      f.value.u32 = 0;
      return;
    default:
      f.status = kNotSupported;
  }
}

}  // namespace kw::fake
