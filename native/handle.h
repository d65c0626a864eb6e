// Native objects as JavaScript holds them: tagged externals owning a shared_ptr. Anything else passed in their place is
// refused with ARGUMENT. Also the few readers of plain values that several files need.
#pragma once
#include <napi.h>

#include <memory>
#include <string>

#include "export.h"

namespace kw {

class Device;
class Stream;
class Buffer;
class Plan;
// One random tag per kind of object.
template <class T>
struct HandleKind;
template <>
struct HandleKind<Device> {
  static constexpr const char* name = "device";
  static constexpr napi_type_tag tag = {0x6b77617474000001, 0x9f3ac2d1e85b7046};
};
template <>
struct HandleKind<Stream> {
  static constexpr const char* name = "stream";
  static constexpr napi_type_tag tag = {0x6b77617474000002, 0x4be19d0c7a26f358};
};
template <>
struct HandleKind<Buffer> {
  static constexpr const char* name = "buffer";
  static constexpr napi_type_tag tag = {0x6b77617474000003, 0xd2706f8b135ce49a};
};
template <>
struct HandleKind<Plan> {
  static constexpr const char* name = "plan";
  static constexpr napi_type_tag tag = {0x6b77617474000004, 0x1ac85e3fb9d04627};
};

// `collected` runs on the JavaScript thread when the handle is garbage collected.
template <class T>
Napi::Value make_handle(Napi::Env env, std::shared_ptr<T> object, void (*collected)(napi_env, T&) = nullptr) {
  struct Box {
    std::shared_ptr<T> object;
    void (*collected)(napi_env, T&);
  };
  auto* box = new Box{std::move(object), collected};
  const auto finalize = [](napi_env e, void* data, void*) {
    auto* held = static_cast<Box*>(data);
    if (held->collected != nullptr) held->collected(e, *held->object);
    delete held;
  };
  napi_value handle;
  napi_status status = napi_create_external(env, box, finalize, nullptr, &handle);
  if (status != napi_ok) delete box;
  NAPI_THROW_IF_FAILED(env, status, Napi::Value());
  status = napi_type_tag_object(env, handle, &HandleKind<T>::tag);
  NAPI_THROW_IF_FAILED(env, status, Napi::Value());
  return Napi::Value(env, handle);
}

template <class T>
const std::shared_ptr<T>& get_handle(Napi::Value value, const char* where) {
  const char* name = HandleKind<T>::name;
  napi_valuetype type;
  if (value.IsEmpty() || napi_typeof(value.Env(), value, &type) != napi_ok || type != napi_external) {
    refuse(Code::ARGUMENT, where, name, "no native object", std::string("a ") + name);
  }
  bool ours = false;
  void* box = nullptr;
  if (napi_check_object_type_tag(value.Env(), value, &HandleKind<T>::tag, &ours) != napi_ok || !ours ||
      napi_get_value_external(value.Env(), value, &box) != napi_ok) {
    refuse(Code::ARGUMENT, where, name, "another native object", std::string("a ") + name);
  }
  return *static_cast<std::shared_ptr<T>*>(box);  // the first member of Box
}

// A whole number within [low, high].
inline int64_t integer(Napi::Value value, const char* where, const char* name, double low, double high) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : low - 1;
  if (!(number >= low && number <= high) || number != static_cast<double>(static_cast<int64_t>(number))) {
    const std::string received = value.IsNumber() ? value.ToString().Utf8Value() : std::string("not a number");
    char expected[96];
    std::snprintf(expected, sizeof(expected), "a whole number from %.0f to %.0f", low, high);
    refuse(Code::ARGUMENT, where, name, received, expected);
  }
  return static_cast<int64_t>(number);
}

}  // namespace kw
