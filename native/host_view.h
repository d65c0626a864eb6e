// Elements of any device's tensor as host memory, for the length of one host step, and loops over them.
#pragma once
#include <functional>
#include <memory>

#include "../kernels/core/host/convert.h"
#include "../kernels/core/tensor.h"
#include "stream.h"

namespace kw {

// On the CPU the view itself; elsewhere a copy of the memory it spans.
class HostView {
 public:
  enum Access {
    kRead,
    kWrite,  // every element of the view is written; gaps between them are kept
  };

  // Memory that is the host's already.
  explicit HostView(const TensorView& view);
  // Blocks until the elements are here. Throws what the device throws, OUT_OF_MEMORY for the copy.
  HostView(Stream& stream, const TensorView& view, Access access);
  // Brings what was written back to the device; blocks until it is there.
  void commit();

  const TensorView& view() const { return view_; }
  char* at(int64_t offset) const { return static_cast<char*>(view_.data) + offset * size_; }

 private:
  Stream* const stream_ = nullptr;
  TensorView view_;
  const int64_t size_;  // of an element
  std::shared_ptr<void> copy_;
  void* device_data_ = nullptr;
  uint64_t bytes_ = 0;
};

// Bytes from the first to the last element of a view, and the offset of its first byte from view.data (negative strides).
uint64_t span_of(const TensorView& view, int64_t* first);

// Covers [0, count) with calls body(begin, end): with the device's threads where it is the CPU and it pays, else at once.
void for_elements(Stream& stream, int64_t count, const std::function<void(int64_t, int64_t)>& body);

// On the CPU small work costs less than waking the stream's thread, and an idle stream has nothing it must wait for: then
// the JavaScript thread does it at once. bytes: those moved, or as many as would take as long to move.
constexpr uint64_t kAtOnce = 256 << 10;
inline bool at_once(const Stream& stream, uint64_t bytes) {
  return stream.device->is_cpu() && bytes <= kAtOnce && stream.idle();
}

}  // namespace kw
