// One simulated H200: what its counters and sensors say at an instant, computed from the true power of a scenario.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "abi.h"
#include "scenario.h"

namespace kw::fake {

constexpr uint64_t kTotalBytes = 150754820096, kReservedBytes = 622854144;  // 143771 MiB, 594 MiB
constexpr uint32_t kPowerLimit = 700000, kMaxClock = 1980;                  // mW, MHz

class Gpu {
 public:
  Gpu(const Scenario& scenario, int index) : scenario_(scenario), index_(index), now_(scenario.now()) {}

  bool lost() const;
  /** `instance` of a divided GPU from 1 on; 0 is all of it. */
  std::string uuid(int instance = 0) const;
  std::string pci_bus_id() const;
  uint32_t pci_bus() const { return 0x1b + 0x10 * static_cast<uint32_t>(index_); }
  int index() const { return index_; }
  int instances() const { return static_cast<int>(scenario_.number("mig", 0, index_)); }

  /** What one of the instances, which are equal, has of `bytes`; all of them where `instance` is 0. */
  uint64_t share(uint64_t bytes, int instance) const {
    return instance ? bytes / static_cast<uint64_t>(instances()) : bytes;
  }

  /** The counter, and its reading at the last tick. */
  uint64_t millijoules() const;
  uint32_t instant_mw() const;
  /** A boxcar over the last `power_average_s`. */
  uint32_t average_mw() const;
  /** Instant power at earlier ticks, oldest first. */
  std::vector<Sample> power_samples(uint64_t after_us) const;

  uint64_t throttled_ns(const std::string& reason) const;
  uint64_t clock_reasons() const;

  uint32_t clock_mhz() const;
  uint32_t level(const std::string& key, const char* otherwise) const;
  uint64_t used_bytes() const;
  /** The status and value of one field; the whole answer of nvmlDeviceGetFieldValues is made of these. */
  void answer(FieldValue& field) const;

 private:
  double tick() const { return scenario_.number("tick_ms", 20, index_) / 1e3; }
  /** The last instant at which counter and sensors were updated. */
  double updated() const;
  double joules(double from, double to) const;
  int field_status(const FieldValue& field) const;

  const Scenario& scenario_;
  int index_;
  double now_;
};

}  // namespace kw::fake
