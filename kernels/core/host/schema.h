// Any operator's Args struct by the names of its fields. An operator's KW_FIELDS line is the only list of them:
// describe<Args>() turns it into offsets and kinds, and everything after works on those.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "../fields.h"
#include "../tensor.h"

namespace kw {

enum class FieldKind { in, in_optional, inout, out, f32, i64, boolean, choice };

struct Field {
  const char* name;
  FieldKind kind;
  size_t offset;
  ChoiceNames choices;  // of a choice
};

// Has to be given to a kernel, and is what it leaves behind.
inline bool is_required(const Field& field) {
  return field.kind == FieldKind::in || field.kind == FieldKind::inout || field.kind == FieldKind::out;
}
inline bool is_result(const Field& field) { return field.kind == FieldKind::inout || field.kind == FieldKind::out; }
inline bool is_tensor(const Field& field) { return is_required(field) || field.kind == FieldKind::in_optional; }

struct Schema {
  uint64_t size = 0;                // of the Args struct
  std::vector<std::byte> defaults;  // a default-constructed Args struct
  std::vector<Field> fields;
};

inline FieldKind kind_of(const ConstTensor&) { return FieldKind::in; }
inline FieldKind kind_of(const OptionalConstTensor&) { return FieldKind::in_optional; }
inline FieldKind kind_of(const InOutTensor&) { return FieldKind::inout; }
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

// The field of an Args struct in bytes.
inline TensorView tensor_at(const void* args, const Field& field) {
  TensorView view;
  std::memcpy(&view, static_cast<const std::byte*>(args) + field.offset, sizeof(view));
  return view;
}

template <class Value>
void store_field(std::vector<std::byte>& args, const Field& field, const Value& value) {
  std::memcpy(args.data() + field.offset, &value, sizeof(value));
}

}  // namespace kw
