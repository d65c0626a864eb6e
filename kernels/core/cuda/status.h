// How a kernel reports a value it found in device memory and cannot use, such as a length beyond the tensor: it clamps the
// value, and leaves a record in its stream's status word, which lies where both sides can read it. The first record
// stays until the next event_wait on the stream raises it as INDEX and clears it. What a graph launches reports to the
// stream that it was captured on.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>

#include "../error.h"

namespace kw {

struct StreamStatus {
  uint32_t state = 0;   // 0: nothing, 1: being written, 2: complete
  int32_t index = 0;    // of the value within its tensor
  int32_t columns = 0;  // of a tensor of two dimensions, in whose rows `index` counts; 0: it has one
  int64_t value = 0, lowest = 0, highest = 0;
  const char* const* what = nullptr;  // host memory: the text "<operator>: <argument>"
};

// The word of a stream of this library's stream_create; null for any other stream. Kernels take it as an argument.
StreamStatus* status_of(void* stream);

// Called once the work on the stream is done.
inline void raise(StreamStatus& status) {
  std::atomic_ref<uint32_t> state(status.state);
  if (state.load(std::memory_order_acquire) != 2) return;
  const int32_t row = status.columns > 0 ? status.index / status.columns : 0;
  const std::string at = status.columns > 0
                             ? std::to_string(row) + ", " + std::to_string(status.index - row * status.columns)
                             : std::to_string(status.index);
  const std::string message = std::string(*status.what) + "[" + at + "] is " + std::to_string(status.value) +
                              ", expected " + std::to_string(status.lowest) + " to " + std::to_string(status.highest);
  state.store(0, std::memory_order_release);
  throw Error(Code::INDEX, message);
}

}  // namespace kw
