// Buffers and views, and alloc, free, wrap.
#include "buffer.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "array.h"
#include "channel.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "stream.h"

namespace kw {

Buffer::Buffer(std::shared_ptr<Memory> memory, std::shared_ptr<Device> device)
    : memory_(std::move(memory)), device_(std::move(device)) {
  if (!memory_->external()) {
    const auto bytes = static_cast<int64_t>(memory_->bytes());
    weight_ = device_->is_cpu() ? bytes : bytes / 64;
  }
  device_->add(this);
}

Buffer::~Buffer() { free(); }

int64_t Buffer::free() {
  if (freed()) return 0;
  device_->remove(this);
  const std::shared_ptr<Memory> memory = std::move(memory_);
  others_.push_back(std::move(last_));
  for (const Use& use : others_) {
    if (use.stream && !use.stream->done(use.number)) use.stream->after(once([memory] {}));
  }
  last_ = {};
  others_.clear();
  counted_.reset();
  return std::exchange(weight_, 0);
}

void Buffer::used_elsewhere(const std::shared_ptr<Stream>& stream, uint64_t number) {
  if (last_.stream) others_.push_back(std::move(last_));
  std::erase_if(others_, [&](const Use& use) { return use.stream == stream || use.stream->done(use.number); });
  last_ = {stream, number};
}

bool is_contiguous(const TensorView& view) {
  int64_t expected = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    if (view.shape[i] != 1 && view.stride[i] != expected) return false;
    expected *= view.shape[i];
  }
  return true;
}

bool same_shape(const TensorView& a, const TensorView& b) {
  return a.rank == b.rank && std::equal(a.shape, a.shape + a.rank, b.shape);
}

std::shared_ptr<void> keep_alive(Napi::Env env, Napi::Value value) {
  napi_ref reference;
  const napi_status status = napi_create_reference(env, value, 1, &reference);
  NAPI_THROW_IF_FAILED(env, status, nullptr);
  return std::shared_ptr<void>(reference, [channel = Environment::of(env).channel](void* held) {
    channel->post([held](napi_env e) { napi_delete_reference(e, static_cast<napi_ref>(held)); });
  });
}

namespace {

// Reading by the C interface: a view costs a dozen property reads, and the wrappers would add a third to each.
napi_value property(napi_env env, napi_value object, const char* name) {
  napi_value value = nullptr;
  const napi_status status = napi_get_named_property(env, object, name, &value);
  NAPI_THROW_IF_FAILED(env, status, nullptr);
  return value;
}

int64_t whole_number(napi_env env, napi_value value, const std::string& where, const char* name, const char* part) {
  double number = 0;
  if (napi_get_value_double(env, value, &number) != napi_ok || std::floor(number) != number ||
      std::fabs(number) > 9007199254740991.0) {
    refuse(Code::ARGUMENT, where, std::string(name) + "." + part, "not a whole number", "one");
  }
  return static_cast<int64_t>(number);
}

int read_dimensions(napi_env env, napi_value array, int64_t* into, const char* where, const char* name,
                    const char* part) {
  uint32_t length = 0;
  if (napi_get_array_length(env, array, &length) != napi_ok) {
    refuse(Code::ARGUMENT, where, std::string(name) + "." + part, "not an array", "an array of whole numbers");
  }
  if (length < 1 || length > kMaxRank) {
    refuse(Code::SHAPE, where, std::string(name) + "." + part, std::to_string(length) + " numbers",
           "1 to " + std::to_string(kMaxRank));
  }
  for (uint32_t i = 0; i < length; ++i) {
    napi_value element;
    const napi_status status = napi_get_element(env, array, i, &element);
    NAPI_THROW_IF_FAILED(env, status, 0);
    into[i] = whole_number(env, element, where, name, part);
  }
  return static_cast<int>(length);
}

// Bytes from the start of the buffer to the end of the view; throws where that is not within it.
void check_extent(const TensorView& view, int64_t offset, uint64_t bytes, const char* where, const char* name) {
  __int128 first = offset, last = offset;
  bool empty = false;
  for (int i = 0; i < view.rank; ++i) {
    if (view.shape[i] < 0) {
      refuse(Code::SHAPE, where, std::string(name) + ".shape", std::to_string(view.shape[i]), "0 or more");
    }
    empty |= view.shape[i] == 0;
    const __int128 reach = static_cast<__int128>(view.shape[i] - 1) * view.stride[i];
    (reach < 0 ? first : last) += reach;
  }
  if (empty) return;
  const __int128 end = ((last + 1) * bits(view.dtype) + 7) / 8;
  if (first < 0 || end > static_cast<__int128>(bytes)) {
    refuse(Code::ARGUMENT, where, name, "a view beyond its buffer of " + std::to_string(bytes) + " bytes",
           "one within it");
  }
}

}  // namespace

View read_view(Napi::Value value, const Device& device, const char* where, const char* name) {
  const Napi::Env env = value.Env();
  if (value.IsEmpty() || !value.IsObject()) refuse(Code::ARGUMENT, where, name, "no view", "a view of a buffer");
  View view;
  view.buffer = get_handle<Buffer>(Napi::Value(env, property(env, value, "buffer")), where);
  if (view.buffer->freed()) refuse(Code::DISPOSED, where, name, "in freed memory", "a live tensor");
  if (view.buffer->device().get() != &device) {
    refuse(Code::ARGUMENT, where, name, "on " + view.buffer->device()->name(), "memory of " + device.name());
  }
  const int64_t dtype = whole_number(env, property(env, value, "dtype"), where, name, "dtype");
  if (dtype < 0 || dtype >= kDTypeCount) {
    refuse(Code::DTYPE, where, std::string(name) + ".dtype", std::to_string(dtype),
           "0 to " + std::to_string(kDTypeCount - 1));
  }
  TensorView& tensor = view.tensor;
  tensor.dtype = static_cast<DType>(dtype);
  tensor.rank = read_dimensions(env, property(env, value, "shape"), tensor.shape, where, name, "shape");
  if (read_dimensions(env, property(env, value, "stride"), tensor.stride, where, name, "stride") != tensor.rank) {
    refuse(Code::SHAPE, where, std::string(name) + ".stride", "of another length", "as long as shape");
  }
  const int64_t offset = whole_number(env, property(env, value, "offset"), where, name, "offset");
  const Memory& memory = *view.buffer->memory();
  check_extent(tensor, offset, memory.bytes(), where, name);
  const bool empty = std::find(tensor.shape, tensor.shape + tensor.rank, 0) != tensor.shape + tensor.rank;
  tensor.data = empty ? nullptr : static_cast<char*>(memory.data()) + offset * bits(tensor.dtype) / 8;
  return view;
}

namespace {

void tell_collector(napi_env env, int64_t change) {
  int64_t total;
  if (change != 0) napi_adjust_external_memory(env, change, &total);
}

Napi::Value buffer_handle(Napi::Env env, std::shared_ptr<Memory> memory, std::shared_ptr<Device> device) {
  const auto buffer = std::make_shared<Buffer>(std::move(memory), std::move(device));
  const Napi::Value handle =
      make_handle<Buffer>(env, buffer, [](napi_env e, Buffer& collected) { tell_collector(e, -collected.weight()); });
  tell_collector(env, buffer->weight());
  return handle;
}

Napi::Value alloc(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device>& device = get_handle<Device>(info[0], "alloc");
  device->check_usable("alloc");
  const int64_t bytes = integer(info[1], "alloc", "bytes", 0, 9007199254740991.0);
  return buffer_handle(info.Env(), std::make_shared<Memory>(device, bytes), device);
}

Napi::Value free_buffer(const Napi::CallbackInfo& info) {
  tell_collector(info.Env(), -get_handle<Buffer>(info[0], "free")->free());
  return info.Env().Undefined();
}

Napi::Value wrap(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device>& device = get_handle<Device>(info[0], "wrap");
  device->check_usable("wrap");
  if (!device->is_cpu()) refuse(Code::UNSUPPORTED, "wrap", "device", device->name(), "the CPU");
  const HostArray array = read_array(info[1], "wrap", "memory");
  auto memory = std::make_shared<Memory>(device, array.data, array.bytes, keep_alive(info.Env(), info[1]));
  return buffer_handle(info.Env(), std::move(memory), device);
}

}  // namespace

void export_buffer(Napi::Object exports) {
  exported<alloc>(exports, "alloc");
  exported<free_buffer>(exports, "free");
  exported<wrap>(exports, "wrap");
}

}  // namespace kw
