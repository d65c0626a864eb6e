// What the fake GPU does: a file of `key=value` lines, read again at each call so that a test can change it meanwhile.
//
// A CURVE is `V` or `T:V,T:V,...`, piecewise constant over the clock; with `period=SECONDS` it repeats. A NAME is a function
// (`nvmlDeviceGetPowerUsage`), `field:83` or `gpm:5`. `gpu1.KEY` overrides KEY for the second GPU. Seconds are CLOCK_MONOTONIC,
// or stand still at `now`.
//
//   now=S             virtual time stands at S                     origin=S (0)         the driver was loaded; counters start
//   power=CURVE (250) true watts of the board                      power_average_s (1)  span of averaged power
//   tick_ms (20)      between two steps of counter and power       memory_power (0.1)   HBM's share of the power
//   quantum_mj (1)    unit of the counter                          base_mj (5000000)    the counter at `origin`
//   gain (1)          what the counter counts, over true joules    noise (0), seed (1)  relative, of each tick's energy
//   stuck=1           the counter does not move                    reset_at=S           it starts again at 0
//   throttle=REASON:FROM-TO,...  REASON: swPowerCap syncBoost boardLimit lowUtil reliability swThermal hwThermal hwPowerBrake
//   clock, memory_clock, temperature, memory_temperature, utilisation, memory_utilisation, memory_used: CURVES (MHz, C, %, bytes)
//   gpm=ID:V,...      percentages by metric id                     processes=PID:BYTES,...  `na` where bytes are not known
//   process_bytes (24)  of one entry of the process list           mig=N (0)            the GPU is divided into N instances
//   gpus=N (1)        with PCI ids and UUIDs of their own          lost_at=S            everything about a device fails from then on
//   deny=NAME,...     no permission (4)                            unsupported=NAME,... not supported (3)
//   fail=NAME=CODE,.. any other status                             slow_ms=NAME:MS,...  real milliseconds that a call takes
//   struct_version=old  structures of version 2 are refused (25)   log=FILE             a line `function thread` for each call
//   stamp=tick        fields carry the time of their tick (default: of the call)
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kw::fake {

/** A piecewise constant function of time and its exact integral. */
class Curve {
 public:
  Curve(const std::string& text, double period);
  double at(double t) const;
  /** Over [0, t]; negative where t is. */
  double integral(double t) const;

 private:
  double within(double t) const;
  std::vector<std::pair<double, double>> steps_;
  double period_;
};

class Scenario {
 public:
  /** The file that KERNWATT_FAKE_NVML names, or all defaults without it. Parsed again only when its text changed. */
  static std::shared_ptr<const Scenario> current();

  const std::string* text(const std::string& key, int gpu = 0) const;
  double number(const std::string& key, double otherwise, int gpu = 0) const;
  Curve curve(const std::string& key, const std::string& otherwise, int gpu = 0) const;
  /** Whether the comma-separated list `key` holds `name`. */
  bool lists(const std::string& key, std::string_view name, int gpu = 0) const;
  /** What stands behind `name` and `separator` in the comma-separated list `key`. */
  std::optional<std::string> entry(const std::string& key, std::string_view name, char separator, int gpu = 0) const;

  double now() const;
  /** Microseconds since 1970 of an instant of the clock; virtual time begins at 2023-11-14. */
  int64_t epoch_us(double t) const;
  /** Changes with everything but the time. */
  const std::string& identity() const { return identity_; }

 private:
  explicit Scenario(const std::string& text);
  std::map<std::string, std::string> values_;
  std::string identity_;
};

/** `a,b,c` without the commas. */
std::vector<std::string> split(const std::string& list, char separator = ',');

}  // namespace kw::fake
