// Everything that JavaScript can ask NVML, by name: src/nvml/queries.ts has the same names, and the words for the numbers.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "nvml.h"

namespace kw {

// Counters of one GPU at one moment, for nvmlGpmMetricsGet. Allocated by the driver.
class GpmSample {
 public:
  explicit GpmSample(const NvmlDevice& device);
  ~GpmSample();
  GpmSample(const GpmSample&) = delete;
  GpmSample& operator=(const GpmSample&) = delete;

  const NvmlDevice& device;
  nvml::Sample sample = nullptr;
  std::chrono::steady_clock::time_point taken;
};

// What a query gives, before it is JavaScript's. Numbers are SI; null is what is not known.
struct NvmlValue {
  using List = std::vector<NvmlValue>;
  using Record = std::vector<std::pair<const char*, NvmlValue>>;
  std::variant<std::nullptr_t, bool, double, std::string, List, Record, NvmlDevice*, std::shared_ptr<GpmSample>> held;
};

struct NvmlAnswer {
  NvmlValue value;
  const char* function;  // of NVML, the one that answered
};

using NvmlArgument = std::variant<double, std::string, std::shared_ptr<GpmSample>>;

struct NvmlQuestion {
  Nvml& nvml;
  const NvmlDevice* device;  // null for the driver as a whole
  std::vector<NvmlArgument> arguments;

  // Throws ARGUMENT for what is not there or out of range.
  uint64_t whole(size_t index, const char* name, uint64_t high) const;
  const std::string& text(size_t index, const char* name) const;
  const std::shared_ptr<GpmSample>& sample(size_t index, const char* name) const;
};

struct NvmlQuery {
  const char* name;
  NvmlAnswer (*ask)(const NvmlQuestion&);
};

// Throws ARGUMENT for an unknown name, NvmlError.
NvmlAnswer nvml_ask(const char* name, const NvmlQuestion& question);

// By subject, ended by an entry without a name.
extern const NvmlQuery kNvmlSystem[];
extern const NvmlQuery kNvmlIdentity[];
extern const NvmlQuery kNvmlState[];
extern const NvmlQuery kNvmlPower[];
extern const NvmlQuery kNvmlProcesses[];
extern const NvmlQuery kNvmlGpm[];

// A device with what tells it from others.
NvmlValue nvml_describe(NvmlDevice& device);

// A number or null, where that there is none is no error of the whole query.
template <class Ask>
NvmlValue nvml_optional(Ask&& ask) {
  try {
    return {static_cast<double>(ask())};
  } catch (const NvmlError& error) {
    if (error.state == NvmlState::LOST) throw;
    return {nullptr};
  }
}

}  // namespace kw
