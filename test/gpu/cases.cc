#include "cases.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <stdexcept>

#include "../../kernels/core/error.h"
#include "json.h"

namespace kw::check {
namespace {

constexpr double kExact = 9007199254740992.0;  // 2^53: whole numbers below are exact in double
constexpr double kMostElements = 1 << 30;      // of one buffer

// What is wrong with a line; read_cases puts file and line in front.
[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

const Json& member(const Json& object, const char* name, Json::Kind kind, const std::string& where) {
  const Json* found = object.find(name);
  if (found == nullptr) fail(where + " has no " + name);
  if (found->kind != kind)
    fail(where + "." + name + " is " + kJsonKinds[found->kind] + ", expected " + kJsonKinds[kind]);
  return *found;
}

// Whatever the program does not know would be left out of the check.
void know(const Json& object, std::initializer_list<std::string_view> names, const std::string& where) {
  for (const auto& [name, value] : object.members) {
    if (std::find(names.begin(), names.end(), name) == names.end()) fail(where + " has an unknown member " + name);
  }
}

int64_t whole(const Json& json, double low, double high, const std::string& where) {
  if (json.kind != Json::number) fail(where + " is " + kJsonKinds[json.kind] + ", expected a number");
  if (json.value != std::floor(json.value) || json.value < low || json.value > high) {
    fail(where + " is " + shortest(json.value) + ", expected a whole number from " + shortest(low) + " to " +
         shortest(high));
  }
  return static_cast<int64_t>(json.value);
}

// A number, or the name of one that JSON has not.
double real(const Json& json, const std::string& where) {
  if (json.kind == Json::number) return json.value;
  if (json.text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (json.text == "Infinity") return std::numeric_limits<double>::infinity();
  if (json.text == "-Infinity") return -std::numeric_limits<double>::infinity();
  fail(where + " is no number");
}

DType dtype_of(const std::string& name, const std::string& where) {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (name == kDTypeNames[i] && static_cast<DType>(i) != DType::mxfp4) return static_cast<DType>(i);
  }
  fail(where + ".dtype is " + name + ", expected an element type");
}

void store_parameter(std::vector<std::byte>& args, const Field& field, const Json& json) {
  const std::string where = std::string("params.") + field.name;
  switch (field.kind) {
    case FieldKind::f32:
      if (json.kind != Json::number) fail(where + " is no number");
      return store_field(args, field, static_cast<float>(json.value));
    case FieldKind::i64:
      return store_field(args, field, whole(json, -kExact, kExact, where));
    case FieldKind::boolean:
      if (json.kind != Json::boolean) fail(where + " is neither true nor false");
      return store_field(args, field, json.truth);
    default:
      for (int32_t i = 0; i < field.choices.count; ++i) {
        if (json.kind == Json::string && json.text == field.choices.names[i]) return store_field(args, field, i);
      }
      fail(where + " is " + (json.kind == Json::string ? json.text : kJsonKinds[json.kind]) + ", no choice of it");
  }
}

void read_parameters(const Json& given, const Json& preset, Case& c) {
  for (const auto& [name, value] : given.members) {
    const auto& fields = c.definition->schema.fields;
    if (std::none_of(fields.begin(), fields.end(), [&](const Field& f) { return name == f.name && !is_tensor(f); })) {
      fail("params has an unknown member " + name);
    }
  }
  for (const Field& field : c.definition->schema.fields) {
    if (is_tensor(field)) continue;
    const Json* value = given.find(field.name);
    if (value == nullptr) value = preset.find(field.name);
    if (value == nullptr) fail(std::string("params has no ") + field.name);
    store_parameter(c.args, field, *value);
  }
}

// Elements from the first to the last of a view.
int64_t extent_of(const TensorView& view) {
  double last = 0;
  for (int i = 0; i < view.rank; ++i) {
    if (view.shape[i] == 0) return 0;
    last += static_cast<double>(view.shape[i] - 1) * static_cast<double>(view.stride[i]);
  }
  return static_cast<int64_t>(std::min(last, kMostElements)) + 1;
}

Part part_of(const TensorView& whole_view, const Json& json, const std::string& where) {
  Part part{whole_view, 0};
  if (json.kind != Json::array || static_cast<int>(json.items.size()) != whole_view.rank) {
    fail(where + " is not one range for each dimension");
  }
  for (int i = 0; i < whole_view.rank; ++i) {
    const Json& range = json.items[i];
    if (range.kind != Json::array || range.items.size() != 2) fail(where + " has a range that is not [begin, end]");
    const int64_t end = whole(range.items[1], 0, static_cast<double>(whole_view.shape[i]), where);
    const int64_t begin = whole(range.items[0], 0, static_cast<double>(end), where);
    part.view.shape[i] = end - begin;
    part.offset += begin * whole_view.stride[i];
  }
  return part;
}

// What an input holds: one of seed, values, value and flags.
// fill: of the case, or the operand's own.
void read_contents(const Json& json, const Json& fill, Operand& operand, const std::string& where) {
  int given = 0;
  if (const Json* seed = json.find("seed")) {
    ++given;
    static constexpr const char* kNames[] = {"constant", "uniform", "normal", "integers"};
    const auto* name = fill.items.size() == 3 && fill.items[0].kind == Json::string
                           ? std::find(std::begin(kNames), std::end(kNames), fill.items[0].text)
                           : std::end(kNames);
    if (name == std::end(kNames)) fail("fill is not [distribution, a, b]");
    operand.distribution.emplace(static_cast<Distribution::Kind>(name - kNames),
                                 static_cast<uint64_t>(whole(*seed, 0, kExact, where + ".seed")),
                                 real(fill.items[1], "fill"), real(fill.items[2], "fill"));
  }
  if (const Json* value = json.find("value")) {
    ++given;
    operand.distribution.emplace(Distribution::kConstant, 0, real(*value, where + ".value"), 0);
  }
  if (const Json* flags = json.find("flags")) {
    ++given;
    operand.flags = static_cast<uint64_t>(whole(*flags, 0, kExact, where + ".flags"));
  }
  if (json.find("values") != nullptr) {
    ++given;
    operand.values.emplace();
    for (const Json& item : member(json, "values", Json::array, where).items) {
      operand.values->push_back(real(item, where + ".values"));
    }
    int64_t once = 1;
    for (int i = 0; i < operand.view.rank; ++i) {
      once *= operand.view.stride[i] == 0 ? std::min<int64_t>(operand.view.shape[i], 1) : operand.view.shape[i];
    }
    if (static_cast<int64_t>(operand.values->size()) != once) {
      fail(where + ".values has " + std::to_string(operand.values->size()) + " numbers, expected " +
           std::to_string(once));
    }
  }
  const int expected = operand.is_output() ? 0 : 1;
  if (given != expected) {
    fail(where + " has " + std::to_string(given) + " of seed, value, values and flags, expected " +
         std::to_string(expected));
  }
}

Operand read_operand(const Field& field, const Json& json, int64_t guard, const Json& fill) {
  const std::string where = std::string("operands.") + field.name;
  if (json.kind != Json::object) fail(where + " is " + kJsonKinds[json.kind] + ", expected an object");
  know(json, {"dtype", "shape", "stride", "offset", "fill", "seed", "value", "values", "flags", "unread"}, where);
  Operand operand;
  operand.field = &field;
  TensorView& view = operand.view;
  view.dtype = dtype_of(member(json, "dtype", Json::string, where).text, where);
  const std::vector<Json>& shape = member(json, "shape", Json::array, where).items;
  if (shape.empty() || shape.size() > kMaxRank) fail(where + ".shape does not have 1 to 8 dimensions");
  view.rank = static_cast<int32_t>(shape.size());
  double dense = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    view.shape[i] = whole(shape[i], 0, kMostElements, where + ".shape");
    view.stride[i] = static_cast<int64_t>(std::min(dense, kMostElements));
    dense *= static_cast<double>(std::max<int64_t>(view.shape[i], 1));
  }
  if (json.find("stride") != nullptr) {
    const std::vector<Json>& stride = member(json, "stride", Json::array, where).items;
    if (stride.size() != shape.size()) fail(where + ".stride is not as long as shape");
    for (int i = 0; i < view.rank; ++i) view.stride[i] = whole(stride[i], 0, kMostElements, where + ".stride");
  }
  const Json* offset = json.find("offset");
  operand.offset =
      offset == nullptr ? guard : whole(*offset, static_cast<double>(guard), kMostElements, where + ".offset");
  operand.elements = operand.offset + extent_of(view) + guard;
  if (std::max(dense, static_cast<double>(operand.elements)) > kMostElements) fail(where + " is too large");
  const Json* own = json.find("fill");
  read_contents(json, own != nullptr ? *own : fill, operand, where);
  if (json.find("unread") != nullptr) {
    for (const Json& part : member(json, "unread", Json::array, where).items) {
      operand.unread.push_back(part_of(view, part, where + ".unread"));
    }
  }
  return operand;
}

bool same_shape(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.rank == b.rank && std::equal(a.shape, a.shape + a.rank, b.shape);
}

void read_operands(const Json& json, int64_t guard, Case& c) {
  const Json& given = member(json, "operands", Json::object, "the case");
  const Json& fill = member(json, "fill", Json::array, "the case");
  const std::vector<Field>& fields = c.definition->schema.fields;
  for (const auto& [name, value] : given.members) {
    const auto field =
        std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return name == f.name && is_tensor(f); });
    if (field == fields.end()) fail("operands has an unknown member " + name);
    c.operands.push_back(read_operand(*field, value, guard, fill));
  }
  for (const Field& field : fields) {
    if (is_required(field) && c.find(field.name) == nullptr) {
      fail(std::string("operands has no ") + field.name);
    }
  }
  if (json.find("in_place") == nullptr) return;
  c.in_place = member(json, "in_place", Json::string, "the case").text;
  const Operand* shared = c.find(c.in_place);
  if (shared == nullptr || shared->is_output()) fail("in_place is " + c.in_place + ", expected an input of the case");
  const TensorView view = shared->view;
  for (const Operand& operand : c.operands) {
    if (operand.is_output() && !same_shape(operand.view, view)) {
      fail(std::string("operands.") + operand.field->name + " has another shape or dtype than " + c.in_place);
    }
  }
  std::erase_if(c.operands, [](const Operand& operand) { return operand.is_output(); });
}

struct Header {
  int64_t guard = 0;
  Json params;
};

Header read_header(const Json& json) {
  if (json.kind != Json::object) fail("the first line is no object");
  know(json, {"schema", "guard", "params"}, "the first line");
  const std::string& schema = member(json, "schema", Json::string, "the first line").text;
  if (schema != "kernwatt.cases/0") fail("schema is " + schema + ", expected kernwatt.cases/0");
  return {whole(member(json, "guard", Json::number, "the first line"), 0, 1 << 20, "guard"),
          member(json, "params", Json::object, "the first line")};
}

Case read_case(const Json& json, const Header& header) {
  if (json.kind != Json::object) fail("a case is no object");
  Case c;
  c.op = member(json, "op", Json::string, "the case").text;
  c.name = member(json, "case", Json::string, "the case").text;
  c.flops = member(json, "flops", Json::number, "the case").value;
  c.definition = find_definition(c.op);
  if (c.definition == nullptr) return c;
  know(json, {"op", "case", "flops", "params", "fill", "exact", "in_place", "operands"}, "the case");
  c.args = c.definition->schema.defaults;
  const Json* preset = header.params.find(c.op);
  read_parameters(member(json, "params", Json::object, "the case"), preset != nullptr ? *preset : Json{}, c);
  read_operands(json, header.guard, c);
  if (json.find("exact") != nullptr) {
    const std::vector<Field> outputs = c.definition->outputs();
    for (const Json& name : member(json, "exact", Json::array, "the case").items) {
      if (std::none_of(outputs.begin(), outputs.end(), [&](const Field& field) { return name.text == field.name; })) {
        fail("exact names " + quoted(name.text) + ", which is no output");
      }
      c.exact.push_back(name.text);
    }
  }
  return c;
}

}  // namespace

int64_t Case::elements() const {
  int64_t sum = 0;
  for (const Operand& operand : operands) sum += operand.elements;
  return sum;
}

const Operand* Case::find(std::string_view name) const {
  for (const Operand& operand : operands) {
    if (name == operand.field->name) return &operand;
  }
  return nullptr;
}

std::vector<Case> read_cases(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw Error(Code::ARGUMENT, file + ": cannot be read: " + std::strerror(errno));
  std::vector<Case> cases;
  Header header;
  std::string text;
  int64_t number = 0;
  try {
    while (std::getline(in, text)) {
      ++number;
      const Json json = parse_json(text);
      if (number == 1) {
        header = read_header(json);
      } else {
        cases.push_back(read_case(json, header));
      }
    }
    if (number == 0) fail("empty");
  } catch (const std::runtime_error& error) {
    throw Error(Code::ARGUMENT, file + ":" + std::to_string(std::max<int64_t>(number, 1)) + ": " + error.what());
  }
  return cases;
}

}  // namespace kw::check
