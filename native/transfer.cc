// write, read, copy and hash: between JavaScript's arrays and tensors of any device.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "array.h"
#include "buffer.h"
#include "export.h"
#include "exports.h"
#include "format.h"
#include "handle.h"
#include "host_memory.h"
#include "host_view.h"

namespace kw {
namespace {

// The array's elements and what they are: the view's stored bits when raw, numbers otherwise. Of 4-bit elements the view
// is their bytes.
HostArray read_elements(Napi::Value value, const TensorView& view, bool raw, const char* where, const char* name) {
  HostArray array = read_array(value, where, name);
  const Element stored = element_of(view.dtype, where);
  if (raw) {
    array.element = stored;
    array.length = static_cast<int64_t>(array.bytes) / size_of(stored);
    if (array.length * size_of(stored) != static_cast<int64_t>(array.bytes)) array.length = -1;
  }
  if (array.length != view.count()) {
    refuse(Code::SHAPE, where, name, "of " + std::to_string(array.bytes) + " bytes",
           std::to_string(view.count()) + " elements" + (raw ? " as stored" : ""));
  }
  return array;
}

void scatter(Stream& stream, const void* from, Element element, const HostView& host) {
  const Walk<1> elements = walk(host.view());
  const auto* data = static_cast<const char*>(from);
  const Element stored = element_of(host.view().dtype, "write");
  for_elements(stream, elements.count(), [&](int64_t begin, int64_t end) {
    elements(begin, end, [&](int64_t first, int64_t length, const int64_t* offset) {
      convert(data + first * size_of(element), element, 1, host.at(offset[0]), stored, elements.step(0), length);
    });
  });
}

// 4-bit elements, of which host is the bytes, as whole numbers.
void gather_nibbles(Stream& stream, const HostView& host, DType dtype, const HostArray& into) {
  for_elements(stream, into.length, [&](int64_t begin, int64_t end) {
    unpack_nibbles(host.at(0), dtype, begin, end, static_cast<int8_t*>(into.data) + begin);
  });
}

void gather(Stream& stream, const HostView& host, void* into, Element element) {
  const Walk<1> elements = walk(host.view());
  auto* data = static_cast<char*>(into);
  const Element stored = element_of(host.view().dtype, "read");
  for_elements(stream, elements.count(), [&](int64_t begin, int64_t end) {
    elements(begin, end, [&](int64_t first, int64_t length, const int64_t* offset) {
      convert(host.at(offset[0]), stored, elements.step(0), data + first * size_of(element), element, 1, length);
    });
  });
}

void copy_elements(Stream& stream, const HostView& from, const HostView& to) {
  const Walk<2> elements(to.view(), {from.view().stride, to.view().stride});
  const Element read = element_of(from.view().dtype, "copy"), stored = element_of(to.view().dtype, "copy");
  for_elements(stream, elements.count(), [&](int64_t begin, int64_t end) {
    elements(begin, end, [&](int64_t, int64_t length, const int64_t* offset) {
      convert(from.at(offset[0]), read, elements.step(0), to.at(offset[1]), stored, elements.step(1), length);
    });
  });
}

// Whether the device's library copies to and from this memory without staging.
bool serves(const std::shared_ptr<HostMemory>& host, const Device& device) {
  return host && !device.is_cpu() && host->library() == &device.library();
}

Napi::Value write(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[0], "write");
  stream->check_usable("write");
  View to = read_view(info[1], *stream, "write", "view");
  const bool raw = info[3].ToBoolean();
  if (bits(to.tensor.dtype) < 8 && !raw) refuse(Code::DTYPE, "write", "data", "numbers", "4-bit elements as stored");
  to.tensor = as_bytes(to.tensor);
  const HostArray from = read_elements(info[2], to.tensor, raw, "write", "data");
  const std::shared_ptr<Memory>& memory = to.buffer->memory();
  if (from.length == 0) return info.Env().Undefined();
  if (at_once(*stream, from.bytes)) {
    scatter(*stream, from.data, from.element, HostView(to.tensor));
    return info.Env().Undefined();
  }
  const Element stored = element_of(to.tensor.dtype, "write");
  const uint64_t bytes = from.length * size_of(stored);
  // A host buffer's contents are taken when the stream comes to it.
  const std::shared_ptr<HostMemory> host = HostMemory::find(from.data, from.bytes);
  std::shared_ptr<void> staged;
  if (host) staged = {host, from.data};
  const bool in_place = serves(host, *stream->device) && from.element == stored;
  if (!stream->device->is_cpu() && is_contiguous(to.tensor) && (in_place || bytes <= kAtOnce)) {
    if (!in_place) {
      staged = allocate_host(bytes);
      convert(from.data, from.element, 1, staged.get(), stored, 1, from.length);
    }
    to.buffer->used(stream, stream->copy(to.tensor.data, staged.get(), bytes, KW_TO_DEVICE));
    stream->after(once([staged, memory] {}));
    return info.Env().Undefined();
  }
  if (!staged) {
    staged = allocate_host(from.bytes);
    std::memcpy(staged.get(), from.data, from.bytes);
  }
  const uint64_t number = stream->step(once([stream, staged, element = from.element, view = to.tensor, memory] {
    stream->attempt([&] {
      stream->with_memory(memory->external(), [&] {
        HostView host(*stream, view, HostView::kWrite);
        scatter(*stream, staged.get(), element, host);
        host.commit();
      });
    });
  }));
  to.buffer->used(stream, number);
  return info.Env().Undefined();
}

// A read or hash on its way.
struct Reading {
  const std::shared_ptr<Stream> stream;
  const std::shared_ptr<Memory> memory;
  Promise promise;

  Reading(std::shared_ptr<Stream> s, std::shared_ptr<Memory> m, Napi::Env env, napi_value* result)
      : stream(std::move(s)), memory(std::move(m)), promise(stream->channel, env, result) {}
};

Napi::Value read(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[0], "read");
  stream->check_usable("read");
  View from = read_view(info[1], *stream, "read", "view");
  const DType dtype = from.tensor.dtype;
  const bool raw = info[3].ToBoolean(), nibbles = bits(dtype) < 8 && !raw;
  const HostArray into = nibbles ? read_array(info[2], "read", "into")
                                 : read_elements(info[2], as_bytes(from.tensor), raw, "read", "into");
  if (nibbles && (into.element != Element::i8 || into.length != from.tensor.count())) {
    refuse(Code::SHAPE, "read", "into", "of " + std::to_string(into.bytes) + " bytes",
           "an Int8Array of " + std::to_string(from.tensor.count()));
  }
  from.tensor = as_bytes(from.tensor);
  napi_value result;
  const auto reading = std::make_shared<Reading>(stream, from.buffer->memory(), info.Env(), &result);
  const std::shared_ptr<HostMemory> host = HostMemory::find(into.data, into.bytes);
  // view() gives the elements as host memory; the array belongs to JavaScript.
  const auto finish = [reading, into, host, dtype, nibbles, kept = keep_alive(info.Env(), info[2])](auto&& view) {
    reading->stream->settle(reading->promise, [&] {
      reading->stream->with_memory(true, [&] {
        if (nibbles) return gather_nibbles(*reading->stream, view(), dtype, into);
        gather(*reading->stream, view(), into.data, into.element);
      });
      return Promise::Value();
    });
  };
  if (at_once(*stream, into.bytes)) {
    finish([&] { return HostView(from.tensor); });
    stream->channel->drain();
    return Napi::Value(info.Env(), result);
  }
  int64_t first = 0;
  const uint64_t bytes = span_of(from.tensor, &first);
  if (serves(host, *stream->device) && is_contiguous(from.tensor) && bytes != 0 &&
      into.element == element_of(from.tensor.dtype, "read")) {
    from.buffer->used(stream, stream->copy(into.data, from.tensor.data, bytes, KW_TO_HOST));
    stream->after(once([reading, host] { reading->stream->settle(reading->promise); }));
  } else if (!stream->device->is_cpu() && bytes <= Library::kMostStaging) {
    // The copy goes into the stream now, so that work queued later does not wait for the conversion.
    const std::shared_ptr<void> staged = stream->device->library().staging(bytes);
    TensorView view = from.tensor;
    view.data = static_cast<char*>(staged.get()) - first;
    if (bytes != 0) {
      const auto* data = static_cast<char*>(from.tensor.data) + first;
      from.buffer->used(stream, stream->copy(staged.get(), data, bytes, KW_TO_HOST));
    }
    stream->after(once([finish, staged, view] { finish([&] { return HostView(view); }); }));
  } else {
    const uint64_t number = stream->step(once(
        [finish, stream, view = from.tensor] { finish([&] { return HostView(*stream, view, HostView::kRead); }); }));
    from.buffer->used(stream, number);
  }
  return Napi::Value(info.Env(), result);
}

Napi::Value copy(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[0], "copy");
  stream->check_usable("copy");
  View from = read_view(info[1], *stream, "copy", "src", true);
  View to = read_view(info[2], *stream, "copy", "dst", true);
  if (!same_shape(from.tensor, to.tensor)) refuse(Code::SHAPE, "copy", "src", "of another shape", "that of dst");
  if (from.tensor.dtype != to.tensor.dtype && std::min(bits(from.tensor.dtype), bits(to.tensor.dtype)) < 8) {
    refuse(Code::DTYPE, "copy", "src", name(from.tensor.dtype),
           std::string("the dtype of dst, ") + name(to.tensor.dtype));
  }
  const int64_t bytes = bytes_of(to.tensor.dtype, to.tensor.count());
  if (bytes == 0) return info.Env().Undefined();
  const bool packed = from.tensor.format != 0 || to.tensor.format != 0;
  if (!packed) from.tensor = as_bytes(from.tensor), to.tensor = as_bytes(to.tensor);
  if (!packed && at_once(*stream, bytes)) {
    copy_elements(*stream, HostView(from.tensor), HostView(to.tensor));
    return info.Env().Undefined();
  }
  if (!packed && !stream->device->is_cpu() && from.tensor.dtype == to.tensor.dtype && is_contiguous(from.tensor) &&
      is_contiguous(to.tensor)) {
    const uint64_t number = stream->copy(to.tensor.data, from.tensor.data, bytes, KW_ON_DEVICE);
    from.buffer->used(stream, number);
    to.buffer->used(stream, number);
    return info.Env().Undefined();
  }
  const std::shared_ptr<Memory>&source = from.buffer->memory(), &target = to.buffer->memory();
  const uint64_t number = stream->step(once([stream, packed, from = from.tensor, to = to.tensor, source, target] {
    stream->attempt([&] {
      stream->with_memory(source->external() || target->external(), [&] {
        if (packed) return copy_packed(*stream, from, to);
        HostView host(*stream, to, HostView::kWrite);
        copy_elements(*stream, HostView(*stream, from, HostView::kRead), host);
        host.commit();
      });
    });
  }));
  from.buffer->used(stream, number);
  to.buffer->used(stream, number);
  return info.Env().Undefined();
}

// An array and the element type it stores; throws unless it has `count` elements.
char* array_of(Napi::Value value, Napi::Value dtype, int64_t count, const char* name, Element* element) {
  const HostArray array = read_array(value, "convert", name);
  *element = element_of(static_cast<DType>(dtype.ToNumber().Int32Value()), "convert");
  if (count < 0 || count > static_cast<int64_t>(array.bytes) / size_of(*element)) {
    refuse(Code::SHAPE, "convert", name, "of " + std::to_string(array.bytes) + " bytes",
           std::to_string(count) + " elements");
  }
  return static_cast<char*>(array.data);
}

Napi::Value convert_now(const Napi::CallbackInfo& info) {
  const int64_t count = info[4].ToNumber().Int64Value();
  Element from, to;
  const char* source = array_of(info[0], info[1], count, "from", &from);
  char* target = array_of(info[2], info[3], count, "into", &to);
  convert(source, from, 1, target, to, 1, count);
  return info.Env().Undefined();
}

// FNV-1a, 64 bits (Fowler, Noll, Vo). The last byte counts for its bits in `last`.
uint64_t hash_elements(const HostView& host, unsigned char last) {
  const Walk<1> elements = walk(host.view());
  const int64_t size = size_of(element_of(host.view().dtype, "hash"));
  uint64_t hash = 0xcbf29ce484222325;
  int64_t left = elements.count() * size;
  elements(0, elements.count(), [&](int64_t, int64_t length, const int64_t* offset) {
    for (int64_t i = 0; i < length; ++i) {
      const auto* bytes = reinterpret_cast<const unsigned char*>(host.at(offset[0] + i * elements.step(0)));
      for (int64_t b = 0; b < size; ++b) hash = (hash ^ (--left == 0 ? bytes[b] & last : bytes[b])) * 0x100000001b3;
    }
  });
  return hash;
}

Napi::Value hash(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[0], "hash");
  stream->check_usable("hash");
  View from = read_view(info[1], *stream, "hash", "view");
  // An odd number of 4-bit elements leaves half a byte that is nobody's.
  const unsigned char last = bits(from.tensor.dtype) < 8 && from.tensor.count() % 2 != 0 ? 0x0f : 0xff;
  from.tensor = as_bytes(from.tensor);
  napi_value result;
  const auto reading = std::make_shared<Reading>(stream, from.buffer->memory(), info.Env(), &result);
  const uint64_t number = stream->step(once([reading, last, view = from.tensor] {
    reading->stream->settle(reading->promise, [&]() -> Promise::Value {
      uint64_t hash = 0;
      reading->stream->with_memory(reading->memory->external(), [&] {
        hash = hash_elements(HostView(*reading->stream, view, HostView::kRead), last);
      });
      char text[17];
      std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash));
      return [text = std::string(text)](Napi::Env env) { return Napi::String::New(env, text); };
    });
  }));
  from.buffer->used(stream, number);
  return Napi::Value(info.Env(), result);
}

}  // namespace

void export_transfer(Napi::Object exports) {
  exported<write>(exports, "write");
  exported<read>(exports, "read");
  exported<copy>(exports, "copy");
  exported<convert_now>(exports, "convert");
  exported<hash>(exports, "hash");
}

}  // namespace kw
