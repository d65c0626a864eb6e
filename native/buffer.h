// Memory as JavaScript holds it, and strided views of it. A Buffer knows which streams were given work that uses it: once
// freed, its memory goes back after that work, and nothing new can use it.
#pragma once
#include <napi.h>

#include <memory>
#include <optional>
#include <vector>

#include "../kernels/core/tensor.h"
#include "counters.h"
#include "device.h"
#include "memory.h"

namespace kw {

class Stream;

// JavaScript thread only.
class Buffer final : public Resource {
 public:
  // after: a stream that still has work queued on the memory from its former buffer; only it may use it until that is
  // done.
  Buffer(std::shared_ptr<Memory> memory, std::shared_ptr<Device> device, std::shared_ptr<Stream> after);
  ~Buffer() override;

  bool freed() const { return memory_ == nullptr; }
  // Over memory of JavaScript: the array, kept alive by the memory, and whether its ArrayBuffer was since transferred or
  // detached, which no part of Node before 24 lets us prevent altogether.
  void wraps(napi_env env, napi_ref array) {
    env_ = env;
    array_ = array;
  }
  bool detached() const { return array_ != nullptr && !still_attached(); }
  // Memory that an ArrayBuffer of ours shows to JavaScript: it stays until that is detached, freed or not.
  using Exposed = std::shared_ptr<std::shared_ptr<Memory>>;
  Exposed exposed;
  // Null once freed.
  const std::shared_ptr<Memory>& memory() const { return memory_; }
  const std::shared_ptr<Device>& device() const { return device_; }

  // Throws ARGUMENT where the stream's work would not come after what is queued on the memory.
  void check_order(const Stream& stream, const char* where, const char* name) {
    if (after_.stream) check_after(stream, where, name);
  }
  // Work `number` of the stream uses this buffer.
  void used(const std::shared_ptr<Stream>& stream, uint64_t number) {
    if (last_.stream == stream) {
      last_.number = number;
    } else {
      used_elsewhere(stream, number);
    }
  }

  // Idempotent. The memory serves again at once on the stream that alone has work queued on it, elsewhere once all work
  // on it is done. Returns the bytes that the garbage collector no longer needs to count.
  int64_t free();
  void dispose() override { free(); }

  // What V8 is told this buffer weighs: host memory in full, device memory by a sixty-fourth.
  int64_t weight() const { return weight_; }

 private:
  struct Use {
    std::shared_ptr<Stream> stream;
    uint64_t number = 0;
  };
  bool still_attached() const;
  void used_elsewhere(const std::shared_ptr<Stream>& stream, uint64_t number);
  void check_after(const Stream& stream, const char* where, const char* name);

  std::shared_ptr<Memory> memory_;
  napi_env env_ = nullptr;
  napi_ref array_ = nullptr;
  Use last_, after_;
  const std::shared_ptr<Device> device_;
  std::vector<Use> others_;
  int64_t weight_ = 0;
  std::optional<Counted<&Counters::buffers>> counted_{std::in_place};  // until freed
};

// A view read from JavaScript: where its elements are, and the buffer that holds them.
struct View {
  TensorView tensor;
  std::shared_ptr<Buffer> buffer;
};

// Reads a NativeView. Throws ARGUMENT, DTYPE, SHAPE, DISPOSED; `<where>: <name>...`. The view must lie within its buffer
// and the buffer on `device`, and work of `stream` may use it.
// packed: it may be stored for a kernel (kernels/core/packed.h); UNSUPPORTED otherwise.
View read_view(Napi::Value value, const Device& device, const char* where, const char* name, bool packed = false);
View read_view(Napi::Value value, const Stream& stream, const char* where, const char* name, bool packed = false);

// Row-major without gaps.
bool is_contiguous(const TensorView& view);
bool same_shape(const TensorView& a, const TensorView& b);

// Keeps a JavaScript value alive until the last holder, on whichever thread, lets go.
std::shared_ptr<void> keep_alive(Napi::Env env, Napi::Value value);

}  // namespace kw
