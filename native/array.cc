#include "array.h"

#include "export.h"

namespace kw {
namespace {

// -1: not a type of number that conversions know. Some Node releases leave the type of a Float16Array unset.
int element_of(int type) {
  switch (type) {
    case napi_int8_array:
      return static_cast<int>(Element::i8);
    case napi_uint8_array:
    case napi_uint8_clamped_array:
      return static_cast<int>(Element::u8);
    case napi_int16_array:
      return static_cast<int>(Element::i16);
    case napi_uint16_array:
      return static_cast<int>(Element::u16);
    case napi_int32_array:
      return static_cast<int>(Element::i32);
    case napi_uint32_array:
      return static_cast<int>(Element::u32);
    case napi_float32_array:
      return static_cast<int>(Element::f32);
    case napi_float64_array:
      return static_cast<int>(Element::f64);
    default:
      return -1;
  }
}

}  // namespace

HostArray read_array(Napi::Value value, const char* where, const char* name) {
  if (value.IsEmpty() || !value.IsTypedArray()) refuse(Code::ARGUMENT, where, name, "no typed array", "one");
  const Napi::Env env = value.Env();
  int type = -1;
  size_t length = 0;
  HostArray array;
  napi_value buffer;
  const napi_status status = napi_get_typedarray_info(env, value, reinterpret_cast<napi_typedarray_type*>(&type),
                                                      &length, &array.data, &buffer, nullptr);
  NAPI_THROW_IF_FAILED(env, status, array);
  const int element = element_of(type);
  if (element < 0) {
    refuse(Code::ARGUMENT, where, name, "a typed array of another kind",
           "an array of 8, 16 or 32-bit integers or of 32 or 64-bit floats");
  }
  if (Napi::Object(env, buffer).Get("resizable").ToBoolean()) {
    refuse(Code::ARGUMENT, where, name, "over a resizable buffer", "memory of fixed length");
  }
  array.element = static_cast<Element>(element);
  array.length = static_cast<int64_t>(length);
  array.bytes = length * size_of(array.element);
  return array;
}

}  // namespace kw
