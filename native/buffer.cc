// Buffers and views, and alloc, free, wrap, wrapPointer, share, adopt.
#include "buffer.h"

#include <sys/random.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "../kernels/core/packed.h"
#include "array.h"
#include "channel.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "host_memory.h"
#include "stream.h"

namespace kw {

Buffer::Buffer(std::shared_ptr<Memory> memory, std::shared_ptr<Device> device, std::shared_ptr<Stream> after)
    : memory_(std::move(memory)), after_{std::move(after)}, device_(std::move(device)) {
  if (after_.stream) after_.number = after_.stream->latest();
  if (memory_->ours()) {
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
  others_.push_back(std::move(after_));
  std::shared_ptr<Stream> pending;
  bool alone = true;
  for (const Use& use : others_) {
    if (!use.stream || use.stream->done(use.number)) continue;
    use.stream->after(once([memory] {}));
    alone = alone && (!pending || pending == use.stream);
    pending = use.stream;
  }
  const bool shown = exposed && *exposed;  // JavaScript may still look at it
  if (pending && alone && !shown) pending->keep(memory);
  last_ = after_ = {};
  others_.clear();
  counted_.reset();
  return std::exchange(weight_, 0);
}

void Buffer::used_elsewhere(const std::shared_ptr<Stream>& stream, uint64_t number) {
  if (last_.stream) others_.push_back(std::move(last_));
  std::erase_if(others_, [&](const Use& use) { return use.stream == stream || use.stream->done(use.number); });
  last_ = {stream, number};
}

bool Buffer::still_attached() const {
  const Napi::HandleScope scope(env_);
  napi_value array = nullptr;
  void* data = nullptr;
  size_t length = 0;
  return napi_get_reference_value(env_, array_, &array) == napi_ok && array != nullptr &&
         napi_get_typedarray_info(env_, array, nullptr, &length, &data, nullptr, nullptr) == napi_ok &&
         data == memory_->data() && (length != 0 || memory_->bytes() == 0);
}

void Buffer::check_after(const Stream& stream, const char* where, const char* name) {
  if (after_.stream.get() == &stream) return;
  if (!after_.stream->done(after_.number)) {
    refuse(Code::ARGUMENT, where, name, "in memory that another stream still works on",
           "one that it has been waited for; await its mark() first");
  }
  after_ = {};
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
  return Channel::keep_alive(Environment::of(env).channel, value);
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
  if (view.format != 0) {
    if (offset == 0 && packed_bytes(view) <= bytes) return;
    refuse(Code::ARGUMENT, where, name, "a packed view beyond its buffer of " + std::to_string(bytes) + " bytes",
           "one of " + std::to_string(packed_bytes(view)) + " bytes from its start");
  }
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

View read_view(Napi::Value value, const Device& device, const char* where, const char* name, bool packed) {
  const Napi::Env env = value.Env();
  if (value.IsEmpty() || !value.IsObject()) refuse(Code::ARGUMENT, where, name, "no view", "a view of a buffer");
  View view;
  view.buffer = get_handle<Buffer>(Napi::Value(env, property(env, value, "buffer")), where);
  if (view.buffer->freed()) refuse(Code::DISPOSED, where, name, "in freed memory", "a live tensor");
  if (view.buffer->detached()) refuse(Code::DISPOSED, where, name, "over a detached ArrayBuffer", "one left in place");
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
  const napi_value format = property(env, value, "format");
  napi_valuetype type = napi_undefined;
  napi_typeof(env, format, &type);
  if (type != napi_undefined) tensor.format = static_cast<uint64_t>(whole_number(env, format, where, name, "format"));
  if (tensor.format != 0 && !packed) {
    refuse(Code::UNSUPPORTED, where, name, "packed in " + describe_format(tensor.format), "a plain tensor");
  }
  check_extent(tensor, offset, memory.bytes(), where, name);
  if (bits(tensor.dtype) < 8 && tensor.format == 0 && tensor.count() != 0 &&
      (offset % 2 != 0 || !is_contiguous(tensor))) {
    refuse(Code::ARGUMENT, where, name, "of 4-bit elements with gaps or from the middle of a byte",
           "a run of whole bytes");
  }
  const bool empty = std::find(tensor.shape, tensor.shape + tensor.rank, 0) != tensor.shape + tensor.rank;
  tensor.data = empty ? nullptr : static_cast<char*>(memory.data()) + offset * bits(tensor.dtype) / 8;
  return view;
}

View read_view(Napi::Value value, const Stream& stream, const char* where, const char* name, bool packed) {
  View view = read_view(value, *stream.device, where, name, packed);
  view.buffer->check_order(stream, where, name);
  return view;
}

namespace {

void tell_collector(napi_env env, int64_t change) {
  int64_t total;
  if (change != 0) napi_adjust_external_memory(env, change, &total);
}

Napi::Value buffer_handle(Napi::Env env, std::shared_ptr<Memory> memory, std::shared_ptr<Device> device,
                          std::shared_ptr<Stream> after = nullptr) {
  const auto buffer = std::make_shared<Buffer>(std::move(memory), std::move(device), std::move(after));
  const Napi::Value handle =
      make_handle<Buffer>(env, buffer, [](napi_env e, Buffer& collected) { tell_collector(e, -collected.weight()); });
  tell_collector(env, buffer->weight());
  return handle;
}

Napi::Value alloc(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device>& device = get_handle<Device>(info[0], "alloc");
  device->check_usable("alloc");
  const int64_t bytes = integer(info[1], "alloc", "bytes", 0, 9007199254740991.0);
  if (!info[2].IsUndefined()) {
    const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[2], "alloc");
    if (stream->device != device) refuse(Code::ARGUMENT, "alloc", "stream", "on another device", "one of this device");
    stream->check_usable("alloc");
    if (std::shared_ptr<Memory> memory = stream->reuse(bytes)) {
      return buffer_handle(info.Env(), std::move(memory), device, stream);
    }
  }
  return buffer_handle(info.Env(), std::make_shared<Memory>(device, bytes), device);
}

Napi::Value free_buffer(const Napi::CallbackInfo& info) {
  tell_collector(info.Env(), -get_handle<Buffer>(info[0], "free")->free());
  return info.Env().Undefined();
}

// Holds both until the memory is gone.
struct Wrapped {
  std::shared_ptr<void> value;
  std::shared_ptr<HostMemory> host;  // its ArrayBuffer may be detached, the memory stays
};

Napi::Value wrap(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device>& device = get_handle<Device>(info[0], "wrap");
  device->check_usable("wrap");
  if (!device->is_cpu()) refuse(Code::UNSUPPORTED, "wrap", "device", device->name(), "the CPU");
  const HostArray array = read_array(info[1], "wrap", "memory");
  const std::shared_ptr<void> kept = keep_alive(info.Env(), info[1]);
  auto held = std::make_shared<Wrapped>(kept, HostMemory::find(array.data, array.bytes));
  auto memory = std::make_shared<Memory>(device, array.data, array.bytes, std::move(held), Memory::kJavaScript);
  const Napi::Value handle = buffer_handle(info.Env(), std::move(memory), device);
  get_handle<Buffer>(handle, "wrap")->wraps(info.Env(), static_cast<napi_ref>(kept.get()));
  return handle;
}

Napi::Value wrap_pointer(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device>& device = get_handle<Device>(info[0], "wrapPointer");
  device->check_usable("wrapPointer");
  uint64_t address = 0;
  bool lossless = false;
  const napi_status status = napi_get_value_bigint_uint64(info.Env(), info[1], &address, &lossless);
  const int64_t bytes = integer(info[2], "wrapPointer", "bytes", 0, 9007199254740991.0);
  if (status != napi_ok || !lossless || address == 0 || address > UINT64_MAX - static_cast<uint64_t>(bytes)) {
    refuse(Code::ARGUMENT, "wrapPointer", "pointer", "no address of " + std::to_string(bytes) + " bytes", "one");
  }
  auto memory = std::make_shared<Memory>(device, reinterpret_cast<void*>(address), bytes,
                                         keep_alive(info.Env(), info[3]), Memory::kJavaScript);
  return buffer_handle(info.Env(), std::move(memory), device);
}

// Allocations that a token was made for, by its id. Nothing is held here: a token is good as long as a tensor over the
// allocation lives in any environment.
struct Shares {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<Memory>> by_id;

  static Shares& all() {
    static auto* shares = new Shares;
    return *shares;
  }
};

// Random, so that a token of another process or another run means nothing here. Not by std::random_device, which would ask
// for a newer glibc.
std::string new_id() {
  uint64_t random[2] = {};
  if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
    throw Error(Code::INTERNAL, "share: the system gives no random numbers");
  }
  char id[33];
  std::snprintf(id, sizeof(id), "%016llx%016llx", static_cast<unsigned long long>(random[0]),
                static_cast<unsigned long long>(random[1]));
  return id;
}

Napi::Value share(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Buffer>& buffer = get_handle<Buffer>(info[0], "share");
  if (buffer->freed()) refuse(Code::DISPOSED, "share", "buffer", "freed", "a live one");
  const std::shared_ptr<Memory>& memory = buffer->memory();
  if (memory->external()) {
    refuse(Code::ARGUMENT, "share", "tensor", "over memory of its caller",
           "one of the library's own; a SharedArrayBuffer can be posted as it is");
  }
  memory->share();
  Shares& shares = Shares::all();
  const std::lock_guard lock(shares.mutex);
  std::erase_if(shares.by_id, [](const auto& entry) { return entry.second.expired(); });
  std::string id = new_id();
  shares.by_id[id] = memory;
  return Napi::String::New(info.Env(), id);
}

Napi::Value adopt(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device>& device = get_handle<Device>(info[0], "adopt");
  device->check_usable("adopt");
  std::shared_ptr<Memory> memory;
  {
    Shares& shares = Shares::all();
    const std::lock_guard lock(shares.mutex);
    const auto found = shares.by_id.find(info[1].ToString());
    if (found != shares.by_id.end()) memory = found->second.lock();
  }
  if (!memory) {
    refuse(Code::DISPOSED, "adopt", "token", "of a tensor that is gone, or of another process",
           "one whose tensor lives; dispose it only after all have adopted it");
  }
  if (!memory->device()->same_memory(*device)) {
    refuse(Code::ARGUMENT, "adopt", "token", "of a tensor on " + memory->device()->name(), "one on " + device->name());
  }
  void* data = memory->data();
  const uint64_t bytes = memory->bytes();
  auto alias = std::make_shared<Memory>(device, data, bytes, std::move(memory), Memory::kShared);
  auto result = Napi::Object::New(info.Env());
  result.Set("buffer", buffer_handle(info.Env(), std::move(alias), device));
  result.Set("bytes", static_cast<double>(bytes));
  return result;
}

Napi::Value expose(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Buffer& buffer = *get_handle<Buffer>(info[0], "expose");
  if (buffer.freed()) refuse(Code::DISPOSED, "expose", "buffer", "freed", "a live one");
  if (!buffer.device()->is_cpu()) refuse(Code::UNSUPPORTED, "expose", "device", buffer.device()->name(), "cpu");
  const Memory& memory = *buffer.memory();
  buffer.exposed = std::make_shared<std::shared_ptr<Memory>>(buffer.memory());
  auto held = std::make_unique<Buffer::Exposed>(buffer.exposed);
  const auto gone = [](napi_env, void*, void* hint) { delete static_cast<Buffer::Exposed*>(hint); };
  napi_value array;
  const napi_status status =
      napi_create_external_arraybuffer(env, memory.data(), memory.bytes(), gone, held.get(), &array);
  if (status == napi_no_external_buffers_allowed) return env.Null();
  NAPI_THROW_IF_FAILED(env, status, Napi::Value());
  held.release();
  return Napi::Value(env, array);
}

Napi::Value conceal(const Napi::CallbackInfo& info) {
  Buffer& buffer = *get_handle<Buffer>(info[0], "conceal");
  const napi_status status = napi_detach_arraybuffer(info.Env(), info[1]);
  NAPI_THROW_IF_FAILED(info.Env(), status, Napi::Value());
  // Node runs the ArrayBuffer's own finalizer some turns later; the memory need not wait for it.
  if (buffer.exposed) buffer.exposed->reset();
  return info.Env().Undefined();
}

}  // namespace

void export_buffer(Napi::Object exports) {
  exported<alloc>(exports, "alloc");
  exported<free_buffer>(exports, "free");
  exported<wrap>(exports, "wrap");
  exported<wrap_pointer>(exports, "wrapPointer");
  exported<expose>(exports, "expose");
  exported<conceal>(exports, "conceal");
  exported<share>(exports, "share");
  exported<adopt>(exports, "adopt");
}

}  // namespace kw
