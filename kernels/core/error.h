// Every failure below JavaScript is a kw::Error with a stable code; each boundary (addon, C interface) turns it into its own form.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

namespace kw {

// The order is the wire format of the C interface; src/errors.ts lists the same names, and contract.test.ts compares.
enum class Code : int32_t {
  OK,
  SHAPE,
  DTYPE,
  INDEX,
  UNSUPPORTED,
  DISPOSED,
  BUSY,
  OUT_OF_MEMORY,
  DEVICE_LOST,
  CUDA,
  NVML,
  LIBRARY,
  FILE,
  ARGUMENT,
  INTERNAL
};
inline constexpr const char* kCodeNames[] = {"OK",       "SHAPE",   "DTYPE",         "INDEX",       "UNSUPPORTED",
                                             "DISPOSED", "BUSY",    "OUT_OF_MEMORY", "DEVICE_LOST", "CUDA",
                                             "NVML",     "LIBRARY", "FILE",          "ARGUMENT",    "INTERNAL"};
inline constexpr int kCodeCount = sizeof(kCodeNames) / sizeof(kCodeNames[0]);

struct Error : std::runtime_error {
  Code code;
  Error(Code code, const std::string& message) : std::runtime_error(message), code(code) {}
};

}  // namespace kw
