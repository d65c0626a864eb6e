// Whether kernels for compute capability 9.0 may run on a device: one gate for every operator that has some. Host code, no CUDA.
#pragma once
#include <cstdlib>
#include <string>
#include <string_view>

#include "../abi.h"

namespace kw {

inline bool is_sm90(const kw_device_info& device) { return device.cc_major == 9 && device.cc_minor == 0; }

// Why they may not; empty where they may. Until a GPU has proved them (docs/gpu.md) they run only with KERNWATT_UNPROVED=1
// in the environment, in the emulator as well: what it runs without is what a GPU would.
inline std::string sm90_unavailable(const kw_device_info& device) {
  if (!is_sm90(device))
    return "compute capability is " + std::to_string(device.cc_major) + "." + std::to_string(device.cc_minor) +
           ", expected 9.0";
  const char* unproved = std::getenv("KERNWATT_UNPROVED");
  if (!unproved || std::string_view(unproved) != "1") return "no GPU has proved it yet; KERNWATT_UNPROVED=1 allows it";
  return "";
}

}  // namespace kw
