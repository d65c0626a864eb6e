// JavaScript object -> kernel argument struct, for every operator at once. An operator's KW_FIELDS line is the only list
// of its fields: describe<Args>() turns it into offsets and kinds, and everything after works on those.
#pragma once
#include <napi.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "../kernels/core/fields.h"
#include "../kernels/core/tensor.h"
#include "buffer.h"

namespace kw {

enum class FieldKind { in, in_optional, out, f32, i64, boolean, choice };

struct Field {
  const char* name;
  FieldKind kind;
  size_t offset;
  ChoiceNames choices;  // of a choice
};

struct Schema {
  uint64_t size = 0;                // of the Args struct
  std::vector<std::byte> defaults;  // a default-constructed Args struct
  std::vector<Field> fields;
};

inline FieldKind kind_of(const ConstTensor&) { return FieldKind::in; }
inline FieldKind kind_of(const OptionalConstTensor&) { return FieldKind::in_optional; }
inline FieldKind kind_of(const Tensor&) { return FieldKind::out; }
inline FieldKind kind_of(float) { return FieldKind::f32; }
inline FieldKind kind_of(int64_t) { return FieldKind::i64; }
inline FieldKind kind_of(bool) { return FieldKind::boolean; }
template <class Enum>
  requires std::is_enum_v<Enum>
FieldKind kind_of(Enum) {
  static_assert(sizeof(Enum) == sizeof(int32_t), "choices are int32_t");
  return FieldKind::choice;
}

template <class Args>
Schema describe() {
  static_assert(std::is_trivially_copyable_v<Args>, "Args cross the C interface as bytes");
  Args args{};
  Schema schema;
  schema.size = sizeof(Args);
  const auto* bytes = reinterpret_cast<const std::byte*>(&args);
  schema.defaults.assign(bytes, bytes + sizeof(Args));
  for_each_field(args, [&](const char* name, auto& value) {
    using Value = std::remove_reference_t<decltype(value)>;
    Field field{name, kind_of(value), static_cast<size_t>(reinterpret_cast<const std::byte*>(&value) - bytes), {}};
    if constexpr (std::is_enum_v<Value>) field.choices = choice_names(Value{});
    schema.fields.push_back(field);
  });
  return schema;
}

// A filled Args struct and the buffers its views point into.
struct Arguments {
  std::vector<std::byte> bytes;
  std::vector<std::shared_ptr<Buffer>> buffers;

  const void* data() const { return bytes.data(); }
  // Belongs to JavaScript, at least in part (Memory::external).
  bool external() const;
};

// Fills an Args struct from { field: NativeView | number | boolean | choice index | undefined }. A scalar left out keeps
// its default. Throws ARGUMENT, SHAPE, DTYPE, DISPOSED as `<op>: <field> ...`.
Arguments read_arguments(const Schema& schema, Napi::Value object, const Device& device, const char* op);

// The field of an Args struct in bytes.
inline TensorView tensor_at(const void* args, const Field& field) {
  TensorView view;
  std::memcpy(&view, static_cast<const std::byte*>(args) + field.offset, sizeof(view));
  return view;
}

// NativeOp.fields of src/native.ts.
Napi::Array describe_fields(Napi::Env env, const Schema& schema);

}  // namespace kw
