#include "host_view.h"

#include "buffer.h"

namespace kw {
namespace {

// Elements of one share of the work.
constexpr int64_t kGrain = 64 << 10;

}  // namespace

uint64_t span_of(const TensorView& view, int64_t* first) {
  int64_t low = 0, high = 0;
  for (int i = 0; i < view.rank; ++i) {
    const int64_t reach = (view.shape[i] - 1) * view.stride[i];
    (reach < 0 ? low : high) += reach;
  }
  const int64_t size = size_of(element_of(view.dtype, "view"));
  *first = low * size;
  return view.count() == 0 ? 0 : (high - low + 1) * size;
}

HostView::HostView(const TensorView& view) : view_(view), size_(size_of(element_of(view.dtype, "view"))) {}

HostView::HostView(Stream& stream, const TensorView& view, Access access)
    : stream_(&stream), view_(view), size_(size_of(element_of(view.dtype, "view"))) {
  if (stream.device->is_cpu() || view.count() == 0) return;
  int64_t first = 0;
  bytes_ = span_of(view, &first);
  copy_ = allocate_host(bytes_);
  device_data_ = static_cast<char*>(view.data) + first;
  view_.data = static_cast<char*>(copy_.get()) - first;
  if (access == kRead || !is_contiguous(view)) stream.copy_now(copy_.get(), device_data_, bytes_, KW_TO_HOST);
}

void HostView::commit() {
  if (copy_) stream_->copy_now(device_data_, copy_.get(), bytes_, KW_TO_DEVICE);
}

void for_elements(Stream& stream, int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  // What the JavaScript thread does at once never waits for its turn with the threads.
  if (!stream.device->is_cpu() || count <= static_cast<int64_t>(kAtOnce)) return body(0, count);
  stream.device->threads().parallel_for(
      count, [&](int64_t begin, int64_t end, int) { body(begin, end); }, kGrain);
}

}  // namespace kw
