// NVIDIA's management library, opened at run time: one object per library file and process, and one per GPU. No Node in here, so
// that the sampler's thread and the addon's exports share it. Everything may be called from any thread.
//
// Units are SI: joules, watts, hertz, bytes, seconds. GPUs are found by PCI address, UUID or NVML's own index, never by an index of
// CUDA, which orders and hides them as it likes.
#pragma once
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../../kernels/core/error.h"
#include "nvml_abi.h"

namespace kw {

// What became of a query; src/nvml/errors.ts has the same words.
enum class NvmlState {
  OK,
  UNSUPPORTED,  // this GPU, driver or mode has no such thing
  DENIED,       // needs permission
  MISSING,      // this library has no such function, or no driver answers it
  UNAVAILABLE,  // no value at this moment
  LOST          // the GPU is gone until it is reset
};
inline constexpr const char* kNvmlStateNames[] = {"ok", "unsupported", "denied", "missing", "unavailable", "lost"};

// The state that a status means by itself.
NvmlState nvml_state(int status);

// A query without an answer. `what()` says which function answered what, for which GPU.
struct NvmlError : Error {
  NvmlState state;
  int status;            // nvmlReturn_t, or nvml::kNoFunction
  std::string function;  // the one that answered; empty when the library itself is missing
  NvmlError(NvmlState state, int status, std::string function, const std::string& message)
      : Error(Code::NVML, message), state(state), status(status), function(std::move(function)) {}
};

// One field of nvmlDeviceGetFieldValues: ids and scopes in, the rest out.
struct NvmlField {
  uint32_t field = 0;
  uint32_t scope = 0;  // 0 GPU, 1 module, 2 memory, 3 GPU without what serves all of it
  int status = 0;
  NvmlState state = NvmlState::UNAVAILABLE;
  double value = 0;          // in the field's own unit (mW, mJ, ns); only where state is OK
  int64_t timestamp_us = 0;  // since 1970, by the host's clock; 0 where the driver does not say
  int64_t latency_us = 0;    // how long this field took
};

// Ids of fields, after their names in NVML.
namespace nvml_field {
inline constexpr uint32_t kThrottle[] = {74, 75, 76, 77, 78, 79, 81, 269, 270, 271};  // nanoseconds, only growing
inline constexpr uint32_t kMemoryTemperature = 82;                                    // degrees Celsius
inline constexpr uint32_t kEnergy = 83;                                               // millijoules
inline constexpr uint32_t kPowerAverage = 185, kPowerInstant = 186;                   // milliwatts
}  // namespace nvml_field

// nvmlClockType_t.
enum class NvmlClock : int { GRAPHICS, SM, MEMORY, VIDEO };

class Nvml;

// One GPU, or one MIG device. Lives as long as the process.
class NvmlDevice {
 public:
  // One way of asking: the function's name and the call.
  struct Way {
    const char* function;
    std::function<int()> call;
  };

  NvmlDevice(const Nvml& nvml, nvml::Handle handle);

  const Nvml& nvml;
  const nvml::Handle handle;
  // The PCI address as 0000:17:00.0, or the UUID of a MIG device; what messages call this GPU.
  const std::string& label() const { return label_; }

  // What the sampler reads. Each throws NvmlError. used: the function that answered, where there are several ways.
  double energy(
      const char** used = nullptr) const;  // joules since the driver was loaded; steps of tens of milliseconds
  double power() const;                    // watts; an average over a second from Ampere on, A100 excepted
  double clock(NvmlClock which) const;
  double temperature(const char** used = nullptr) const;  // degrees Celsius
  // Bits of nvmlClocksEventReasons: why clocks are lower than they could be.
  uint64_t clock_events(const char** used = nullptr) const;
  // Several fields by one call. Throws only where the whole call fails; each field has a state of its own.
  void read(std::vector<NvmlField>& fields) const;

  // Asks in the first way that this library knows and this GPU supports, and returns its function's name. Throws NvmlError.
  // key: of what is asked, where it differs from the first function's name.
  const char* ask(std::initializer_list<Way> ways, const std::string& key = {}) const;
  template <class... Arguments, class... Given>
  Way way(const nvml::Function<nvml::Handle, Arguments...>& function, Given... given) const {
    return {function.name, [this, &function, given...] { return function(handle, given...); }};
  }

 private:
  std::string make_label() const;

  // The state of an answer to `key`. Drivers that are polled fast say `not supported` in passing, so of a query that worked it is
  // believed at the third time in a row.
  NvmlState judge(const std::string& key, int status) const;

  mutable std::mutex mutex_;
  mutable std::map<std::string, int> doubt_;  // by key: how often `not supported` is not yet believed
  const std::string label_;
};

class Nvml {
 public:
  // The library named by KERNWATT_NVML_LIBRARY, for tests; empty without it.
  static std::string named();
  // The library at `path`, or the driver's where that is empty. Opened and initialised on first use and never shut down, as the
  // energy counter may start again at 0 once nobody uses the driver. Throws NvmlError; the next call tries again.
  static Nvml& open(const std::string& path = named());
  // As open, but null with a reason.
  static Nvml* open(std::string& reason);

  const std::string path;  // as the loader was given it
  const nvml::Functions& functions() const { return functions_; }

  // How many GPUs the driver has; some may refuse to be opened.
  unsigned count() const;
  // By NVML's index.
  NvmlDevice& device(unsigned index);
  // By UUID (GPU-..., MIG-...) or PCI address. Throws ARGUMENT for anything else, NvmlError where there is no such GPU.
  NvmlDevice& device(const std::string& name);
  // Of a handle that NVML gave.
  NvmlDevice& device(nvml::Handle handle);

  // `Not Supported (3)`
  std::string text(int status) const;
  // label: of the GPU, or empty.
  NvmlError error(int status, const char* function, const std::string& label = {}) const;
  // Throws unless the call answers 0.
  void check(int status, const char* function) const {
    if (status != nvml::kSuccess) throw error(status, function);
  }

 private:
  Nvml(std::string path, void* library);

  nvml::Functions functions_;
  const char* (*error_string_)(int) = nullptr;
  std::mutex mutex_;
  std::map<nvml::Handle, std::unique_ptr<NvmlDevice>> devices_;
};

// Calls until the answer is neither `timeout` nor `not ready`, four times within 7 ms.
int nvml_patiently(const std::function<int()>& call);

// A PCI address in the kernel's spelling, 0000:17:00.0; empty when it is none.
std::string pci_address(const std::string& text);

}  // namespace kw
