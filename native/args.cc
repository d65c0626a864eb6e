// Reading arguments by schema, and describing the schema to JavaScript.
#include "args.h"

#include <algorithm>
#include <cmath>

#include "export.h"
#include "handle.h"

namespace kw {
namespace {

constexpr const char* kKindNames[] = {"in", "in?", "inout", "out", "f32", "i64", "bool", "choice"};

void read_scalar(Arguments& arguments, const Field& field, Napi::Value value, const char* op) {
  switch (field.kind) {
    case FieldKind::f32:
      if (!value.IsNumber()) refuse(Code::ARGUMENT, op, field.name, "not a number", "one");
      return store_field(arguments.bytes, field, value.As<Napi::Number>().FloatValue());
    case FieldKind::i64:
      return store_field(arguments.bytes, field,
                         integer(value, op, field.name, -9007199254740991.0, 9007199254740991.0));
    case FieldKind::boolean:
      if (!value.IsBoolean()) refuse(Code::ARGUMENT, op, field.name, "not a boolean", "true or false");
      return store_field(arguments.bytes, field, value.As<Napi::Boolean>().Value());
    default:
      return store_field(arguments.bytes, field,
                         static_cast<int32_t>(integer(value, op, field.name, 0, field.choices.count - 1)));
  }
}

}  // namespace

bool Arguments::external() const {
  return std::any_of(buffers.begin(), buffers.end(), [](const std::shared_ptr<Buffer>& buffer) {
    return !buffer->freed() && buffer->memory()->external();
  });
}

Arguments read_arguments(const Schema& schema, Napi::Value value, const Device& device, const char* op,
                         const Stream* stream) {
  if (value.IsEmpty() || !value.IsObject()) refuse(Code::ARGUMENT, op, "arguments", "no object", "an object");
  const auto object = value.As<Napi::Object>();
  Arguments arguments;
  arguments.bytes = schema.defaults;
  for (const Field& field : schema.fields) {
    const Napi::Value given = object.Get(field.name);
    if (given.IsUndefined()) {
      if (is_required(field)) refuse(Code::ARGUMENT, op, field.name, "missing", "a tensor");
    } else if (is_tensor(field)) {
      View view = read_view(given, device, op, field.name, true);
      if (stream != nullptr) view.buffer->check_order(*stream, op, field.name);
      store_field(arguments.bytes, field, view.tensor);
      arguments.buffers.push_back(std::move(view.buffer));
    } else {
      read_scalar(arguments, field, given, op);
    }
  }
  return arguments;
}

Napi::Array describe_fields(Napi::Env env, const Schema& schema) {
  auto fields = Napi::Array::New(env);
  for (const Field& field : schema.fields) {
    auto entry = Napi::Object::New(env);
    entry.Set("name", field.name);
    entry.Set("kind", kKindNames[static_cast<int>(field.kind)]);
    if (field.kind == FieldKind::choice) {
      auto choices = Napi::Array::New(env);
      for (int i = 0; i < field.choices.count; ++i) choices.Set(i, field.choices.names[i]);
      entry.Set("choices", choices);
    }
    fields.Set(fields.Length(), entry);
  }
  return fields;
}

}  // namespace kw
