// Typed arrays of JavaScript as host memory.
#pragma once
#include <napi.h>

#include "../kernels/core/host/convert.h"

namespace kw {

struct HostArray {
  void* data = nullptr;
  uint64_t bytes = 0;
  int64_t length = 0;
  Element element = Element::u8;
};

// Throws ARGUMENT for anything but a typed array of numbers over memory of fixed length.
HostArray read_array(Napi::Value value, const char* where, const char* name);

}  // namespace kw
