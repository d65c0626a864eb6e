// The energy counter of a GPU by NVML, and beside it power, clock, busy share, temperature, throttling and processes, each
// at its own pace.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "nvml.h"
#include "source.h"

namespace kw::meter {
namespace {

// Between two readings, seconds. Drivers renew power every 20 to 100 ms.
constexpr double kPowerEvery = 0.02, kStateEvery = 0.1, kProcessesEvery = 1;
// They renew the busy share once in a sixth of a second to a second.
constexpr double kBusyEvery = 0.2;
// Between two attempts to open a GPU that is not there or was lost.
constexpr double kAgain = 1;

// Of nvmlDeviceGetFieldValues, with the factor to SI units. Throttling is named as in src/energy/recording.ts.
struct Field {
  uint32_t id;
  const char* column;
  double factor, every;
  bool changes;
};
constexpr Field kFields[] = {
    {nvml_field::kEnergy, "", 1, 0, true},
    {nvml_field::kPowerInstant, "powerInstant", 1e-3, kPowerEvery, false},
    {nvml_field::kPowerAverage, "powerAverage", 1e-3, kPowerEvery, false},
    {74, "throttle.swPowerCap", 1, kStateEvery, true},
    {75, "throttle.thermal", 1, kStateEvery, true},
    {76, "throttle.syncBoost", 1, kStateEvery, true},
    {77, "throttle.boardLimit", 1, kStateEvery, true},
    {78, "throttle.lowUtil", 1, kStateEvery, true},
    {79, "throttle.reliability", 1, kStateEvery, true},
    {269, "throttle.swThermal", 1, kStateEvery, true},
    {270, "throttle.hwThermal", 1, kStateEvery, true},
    {271, "throttle.hwPowerBrake", 1, kStateEvery, true},
};
constexpr size_t kFieldCount = std::size(kFields);

// What can be read, how often, and whether it is worth asking again: what was refused the first time is refused for good.
struct Item {
  double every;
  double due = 0;
  bool answered = false, given_up = false;

  bool wanted(double now) const { return !given_up && now >= due; }
  // Keeps the rhythm, so that items of one rhythm stay in one call.
  void took(double now) { due = std::max(due + every, now + every / 2); }
  void refused(NvmlState state) {
    const bool final = state == NvmlState::UNSUPPORTED || state == NvmlState::MISSING || state == NvmlState::DENIED;
    given_up = final && !answered;
  }
};

// Microseconds since 1970 by the clock of meters; NaN where the two clocks could not be read at the same moment, to within 0.1 ms.
double monotonic(int64_t microseconds) {
  if (microseconds <= 0) return NAN;
  const Clock clock;
  for (int attempt = 0; attempt < 3; ++attempt) {
    timespec wall{};
    const double before = clock.now();
    clock_gettime(CLOCK_REALTIME, &wall);
    const double after = clock.now();
    // Elsewhere the thread was interrupted in between.
    if (after - before > 1e-4) continue;
    const double now = static_cast<double>(wall.tv_sec) + 1e-9 * static_cast<double>(wall.tv_nsec);
    return 1e-6 * static_cast<double>(microseconds) - now + (before + after) / 2;
  }
  return NAN;
}

const char* state_name(NvmlState state) {
  return state == NvmlState::LOST ? "unavailable" : kNvmlStateNames[static_cast<int>(state)];
}

class NvmlSource final : public Source {
 public:
  NvmlSource(std::string gpu, Counter::Kind kind) : Source(std::move(kind)), gpu_(std::move(gpu)) {
    for (size_t i = 0; i < kFieldCount; ++i) items_[i].every = kFields[i].every;
  }

 private:
  double read(const Clock& clock) override {
    if (device_ == nullptr && !open()) return clock.now() + kAgain;
    const double now = clock.now();
    const bool counter = !items_[0].given_up && now >= counter_due_;
    if (by_field_) read_fields(clock, now, counter && energy_by_field_);
    if (counter && !energy_by_field_) read_energy(clock);
    if (power_.wanted(now) && power_by_function()) {
      ask(power_, clock, "powerAverage", [&] { return device_->power(); });
    }
    if (clock_.wanted(now)) ask(clock_, clock, "clock", [&] { return device_->clock(NvmlClock::SM); });
    if (busy_.wanted(now)) ask(busy_, clock, "busy", [&] { return busy_share(); });
    if (temperature_.wanted(now)) ask(temperature_, clock, "temperature", [&] { return device_->temperature(); });
    if (processes_.wanted(now)) ask(processes_, clock, "processes", [&] { return processes(); });
    const double after = clock.now();
    if (lost_) {
      lost_ = false;
      device_ = nullptr;
      return after + kAgain;
    }
    if (counter) counter_due_ = next(after);
    double due = items_[0].given_up ? after + kAgain : counter_due_;
    for (size_t i = 1; by_field_ && i < kFieldCount; ++i) {
      if (!items_[i].given_up) due = std::min(due, items_[i].due);
    }
    for (const Item* item : {&power_, &clock_, &busy_, &temperature_, &processes_}) {
      if (!item->given_up && (item != &power_ || power_by_function())) due = std::min(due, item->due);
    }
    return due;
  }

  bool open() {
    try {
      Nvml& nvml = Nvml::open();
      const bool is_index = !gpu_.empty() && gpu_.find_first_not_of("0123456789") == std::string::npos;
      NvmlDevice* device = is_index ? &nvml.device(static_cast<unsigned>(std::stoul(gpu_))) : &nvml.device(gpu_);
      const nvml::Functions& f = nvml.functions();
      Facts facts;
      facts.gpus = nvml.count();
      nvml::Count part = 0, mode = 0, pending = 0, index = 0;
      if (f.nvmlDeviceIsMigDeviceHandle(device->handle, &part) == 0 && part != 0) {
        // Energy and power exist for the whole GPU alone.
        nvml::Handle whole = nullptr;
        nvml.check(f.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device->handle, &whole),
                   "nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
        device = &nvml.device(whole);
      }
      facts.mig = part != 0 || (f.nvmlDeviceGetMigMode(device->handle, &mode, &pending) == 0 && mode != 0);
      if (f.nvmlDeviceGetIndex(device->handle, &index) == 0) facts.index = static_cast<int>(index);
      facts.label = device->label();
      set_facts(std::move(facts));
      device_ = device;
      return true;
    } catch (const NvmlError& error) {
      fail({state_name(error.state), error.what()});
    } catch (const std::exception& error) {
      fail({"unavailable", error.what()});
    }
    return false;
  }

  void read_fields(const Clock& clock, double now, bool counter) {
    std::vector<NvmlField> fields;
    std::vector<size_t> which;
    for (size_t i = 0; i < kFieldCount; ++i) {
      if (i == 0 ? !counter : !items_[i].wanted(now)) continue;
      fields.push_back({.field = kFields[i].id});
      which.push_back(i);
    }
    if (fields.empty()) return;
    const double asked = clock.now();
    try {
      device_->read(fields);
    } catch (const NvmlError& error) {
      if (error.state == NvmlState::LOST) return gone(error);
      // Without fields there are still functions for energy and power; where fields worked before, there will be fields again.
      if (!items_[0].answered) {
        by_field_ = energy_by_field_ = false;
      } else {
        fail({state_name(error.state), error.what()});
      }
      return;
    }
    const double answered = clock.now();
    for (size_t k = 0; k < fields.size(); ++k) {
      const NvmlField& field = fields[k];
      Item& item = items_[which[k]];
      if (field.state == NvmlState::OK) {
        item.answered = true;
        item.took(now);
        if (which[k] == 0) {
          count(asked, answered, static_cast<uint64_t>(std::llround(field.value)), monotonic(field.timestamp_us));
        } else {
          const Field& kind = kFields[which[k]];
          put(kind.column, asked, answered, field.value * kind.factor, kind.changes);
        }
        continue;
      }
      item.took(now);
      if (which[k] == 0) {
        energy_refused(field);
      } else {
        item.refused(field.state);
      }
    }
  }

  // Field 83 is younger than the function that tells the same.
  void energy_refused(const NvmlField& field) {
    const NvmlError error = device_->nvml.error(
        field.status, ("nvmlDeviceGetFieldValues, field " + std::to_string(field.field)).c_str(), device_->label());
    if (error.state == NvmlState::LOST) return gone(error);
    if (items_[0].answered) return fail({state_name(field.state), error.what()});
    energy_by_field_ = false;
  }

  void read_energy(const Clock& clock) {
    const double asked = clock.now();
    if (const std::optional<double> joules = value(items_[0], nullptr, [&] { return device_->energy(); })) {
      count(asked, clock.now(), static_cast<uint64_t>(std::llround(*joules * 1e3)));
    }
  }

  // Averaged over a second on most GPUs, so taken only where neither field is there.
  bool power_by_function() const { return !by_field_ || (items_[1].given_up && items_[2].given_up); }

  template <class Body>
  void ask(Item& item, const Clock& clock, const char* column, Body body) {
    const double asked = clock.now();
    item.took(asked);
    if (const std::optional<double> answer = value(item, column, body)) put(column, asked, clock.now(), *answer);
  }

  // column: what the answer is for; null: for the counter itself.
  template <class Body>
  std::optional<double> value(Item& item, const char* column, Body body) {
    try {
      const double answer = body();
      item.answered = true;
      return answer;
    } catch (const NvmlError& error) {
      if (error.state == NvmlState::LOST) {
        gone(error);
      } else {
        item.refused(error.state);
        Trouble trouble{state_name(error.state), error.what()};
        if (column == nullptr) {
          fail(std::move(trouble));
        } else {
          refuse(column, std::move(trouble));
        }
      }
    }
    return std::nullopt;
  }

  // Share of the driver's own last window, a sixth of a second to a second, in which any kernel of any process ran.
  double busy_share() const {
    nvml::Utilization now = {};
    device_->ask({device_->way(device_->nvml.functions().nvmlDeviceGetUtilizationRates, &now)});
    return now.gpu / 1e2;
  }

  // How many processes have work on it, this one included. Their ids are not looked at: containers see those of the host, or not.
  double processes() const {
    const nvml::Functions& f = device_->nvml.functions();
    nvml::Count count = 0;
    const auto counted = [&](const auto& function) {
      return device_->way(function, &count, static_cast<void*>(nullptr));
    };
    const auto patient = [&](NvmlDevice::Way way) {
      return NvmlDevice::Way{way.function, [call = std::move(way.call)] {
                               const int status = call();
                               return status == nvml::kInsufficientSize ? static_cast<int>(nvml::kSuccess) : status;
                             }};
    };
    device_->ask({patient(counted(f.nvmlDeviceGetComputeRunningProcesses_v3)),
                  patient(counted(f.nvmlDeviceGetComputeRunningProcesses_v2)),
                  patient(counted(f.nvmlDeviceGetComputeRunningProcesses))});
    return count;
  }

  void gone(const NvmlError& error) {
    lost_ = true;
    fail({state_name(error.state), error.what()});
  }

  const std::string gpu_;
  NvmlDevice* device_ = nullptr;  // lives as long as the process
  Item items_[kFieldCount];
  Item power_{kPowerEvery}, clock_{kStateEvery}, busy_{kBusyEvery}, temperature_{kStateEvery},
      processes_{kProcessesEvery};
  bool by_field_ = true, energy_by_field_ = true, lost_ = false;
  double counter_due_ = 0;
};

}  // namespace

std::unique_ptr<Source> nvml_source(std::string gpu, Counter::Kind kind) {
  return std::make_unique<NvmlSource>(std::move(gpu), std::move(kind));
}

}  // namespace kw::meter
