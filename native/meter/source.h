// What the sampler polls: one domain of energy, its counter and whatever else is read beside it. Failures are kept, never thrown.
#pragma once
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "counter.h"

namespace kw::meter {

// CLOCK_MONOTONIC in seconds, which is the clock of process.hrtime; or a moment that a test gives.
struct Clock {
  double fixed = std::numeric_limits<double>::quiet_NaN();
  double now() const;
};

// Why a reading failed: a state of src/measure/quantity.ts, and a sentence.
struct Trouble {
  const char* state;
  std::string reason;
};

// What a GPU says once it is found.
struct Facts {
  std::string label;  // its PCI address
  int index = -1;     // NVML's own; -1 where that is not known
  unsigned gpus = 0;  // of this machine
  bool mig = false;   // divided, or asked for as one of the parts
};

struct Status {
  uint64_t polls = 0, failures = 0, ticks = 0;
  Trouble trouble{nullptr, ""};  // of the last poll that failed; state null: none ever did
  bool answering = false;        // the last reading of the counter did not fail
  double first = 0, last = 0;    // of the counter's readings; equal before the second one
  double last_tick_after = 0;
  Facts facts;
  double value = 0;  // the counter's last raw reading, joules
};

struct Columns {
  std::map<std::string, std::vector<Reading>> series;
  std::map<std::string, Trouble> refused;  // columns that the last attempt could not read
  std::vector<Break> breaks;
  double thinned_before = 0;
};

class Source {
 public:
  virtual ~Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  // Reads what is due; when to come back. One thread at a time.
  double poll(const Clock& clock);
  double due() const { return due_; }
  Status status() const;
  // What was read from `from` to `to`, and some readings more on both sides.
  Columns columns(double from, double to) const;

 protected:
  explicit Source(Counter::Kind kind) : joules_per_count_(kind.joules_per_count), counter_(std::move(kind)) {}

  // Reads through the functions below; when to come back.
  virtual double read(const Clock& clock) = 0;

  // From read(): a reading of the counter, one of another column, one that failed, one of another column that failed.
  // `changes`: only those are kept.
  void count(double asked, double answered, uint64_t raw, double stamp = std::numeric_limits<double>::quiet_NaN());
  void put(const char* column, double asked, double answered, double value, bool changes = false);
  void fail(Trouble trouble);
  void refuse(const char* column, Trouble trouble);
  void set_facts(Facts facts);
  double next(double now) { return counter_.next(now); }

 private:
  const double joules_per_count_;
  mutable std::mutex mutex_;  // the polling thread writes under it, others read; never held while a meter is read
  Counter counter_;
  std::map<std::string, Series> series_;
  std::map<std::string, Trouble> refused_;
  Status status_;
  double due_ = 0;
};

// A counter in a file, whole numbers as text. range: as Counter::Kind.
std::unique_ptr<Source> file_source(std::string path, Counter::Kind kind);
// An event of a perf PMU on one CPU, all processes.
std::unique_ptr<Source> perf_source(uint32_t type, uint64_t config, int cpu, Counter::Kind kind);
// A GPU by PCI address, UUID or NVML's index as text; counts are millijoules. Opened by the first poll.
std::unique_ptr<Source> nvml_source(std::string gpu, Counter::Kind kind);

}  // namespace kw::meter
