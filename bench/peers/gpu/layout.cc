// Prints layout.json: where every member of the structs of the C interface lies, and how its functions are called.
// abi.py builds its ctypes from that file alone, and test/peers/gpu.test.ts compiles this program to see that the file
// is current.
//
//   g++ -std=c++20 -o /tmp/layout bench/peers/gpu/layout.cc && /tmp/layout > bench/peers/gpu/layout.json
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include "../../../kernels/attention_gqa/attention_gqa.h"
#include "../../../kernels/core/abi.h"
#include "../../../kernels/core/error.h"
#include "../../../kernels/core/tensor.h"
#include "../../../kernels/gemm/gemm.h"
#include "../../../kernels/gemm_int4/gemm_int4.h"

namespace kw {
// Members of the structs without a KW_FIELDS of their own. One that is forgotten leaves a gap, which print() refuses
// where it is larger than padding; no other member moves by it.
KW_FIELDS(TensorView, data, dtype, rank, shape, stride, format)
}  // namespace kw
KW_FIELDS(kw_device_info, size, name, uuid, pci, cc_major, cc_minor, sm_count, emulated, total_bytes, smem_bytes,
          llc_bytes, driver_version, runtime_version, clock_khz, memory_clock_khz, memory_bus_bits, isa)
KW_FIELDS(kw_op, size, name, args_size, supports, plan_create, plan_workspace, plan_rebind, plan_enqueue, plan_explain,
          plan_destroy, format, configurations, plan_create_as)
template <class Visit>
void for_each_field(kw_table& s, Visit&& visit) {  // more members than KW_FIELDS takes
  KW_EXPAND(KW_EACH(size, abi, build, last_error, device_count, device_info, memory_info, alloc, free, host_alloc,
                    host_free, stream_create, stream_destroy, copy))
  KW_EXPAND(KW_EACH(event_create, event_destroy, event_record, event_wait, event_seconds, graph_begin, graph_end,
                    graph_launch, graph_destroy, op_count, ops, trace))
}

namespace {

// Of a number, a pointer, text, an array of either, a tensor, or a function with what it takes: "i32(ptr,u64)".
template <class T>
struct Kind {
  static std::string name() {
    if constexpr (std::is_base_of_v<kw::TensorView, T>) return "tensor";
    if constexpr (std::is_same_v<T, bool>) return "bool";
    if constexpr (std::is_enum_v<T>) return "i" + std::to_string(8 * sizeof(T));
    if constexpr (std::is_floating_point_v<T>) return "f" + std::to_string(8 * sizeof(T));
    if constexpr (std::is_integral_v<T>) return (std::is_signed_v<T> ? "i" : "u") + std::to_string(8 * sizeof(T));
    if constexpr (std::is_void_v<T>) return "void";
    return "";
  }
};
template <class T>
struct Kind<T*> {
  static std::string name() { return std::is_same_v<T, const char> ? "text" : "ptr"; }
};
template <class T, size_t count>
struct Kind<T[count]> {
  static std::string name() {
    return (std::is_same_v<T, char> ? "char" : Kind<T>::name()) + "*" + std::to_string(count);
  }
};
template <class Result, class... Taken>
struct Kind<Result (*)(Taken...)> {
  static std::string name() {
    std::string all;
    ((all += (all.empty() ? "" : ",") + Kind<Taken>::name()), ...);
    return Kind<Result>::name() + "(" + all + ")";
  }
};

template <class Value>
std::string standard(const Value& value) {
  if constexpr (std::is_same_v<Value, bool>) return value ? "true" : "false";
  if constexpr (std::is_enum_v<Value>) return std::to_string(static_cast<int64_t>(value));
  if constexpr (std::is_integral_v<Value>) return std::to_string(value);
  if constexpr (std::is_floating_point_v<Value>) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.9g", static_cast<double>(value));
    return text;
  }
  return "";
}

// A struct's size, and for each member its place, its kind and, in arguments, the value it has when nothing is said.
template <class Struct>
void print(const char* name, bool defaults, bool last) {
  Struct it{};
  size_t at = 0;
  std::vector<std::string> lines;
  const auto member = [&](const char* field, auto& value) {
    using Value = std::remove_reference_t<decltype(value)>;
    const size_t offset = reinterpret_cast<char*>(&value) - reinterpret_cast<char*>(&it);
    if (Kind<Value>::name().empty() || offset < at || offset - at >= alignof(Value)) {
      std::fprintf(stderr, "layout: %s.%s is at %zu and of kind '%s', expected the member after byte %zu\n", name,
                   field, offset, Kind<Value>::name().c_str(), at);
      std::exit(1);
    }
    at = offset + sizeof(Value);
    std::string line = std::string("\"") + field + "\": { \"offset\": " + std::to_string(offset) + ", \"kind\": \"" +
                       Kind<Value>::name() + "\"";
    if (const std::string value_text = standard(value); defaults && !value_text.empty())
      line += ", \"default\": " + value_text;
    lines.push_back(line + " }");
  };
  if constexpr (requires { it.size; } && !std::is_same_v<Struct, kw_table> && !std::is_same_v<Struct, kw_op> &&
                !std::is_same_v<Struct, kw_device_info>)
    member("size", it.size);  // KW_FIELDS of arguments begins after it
  for_each_field(it, member);
  if (at + alignof(Struct) <= sizeof(Struct)) {
    std::fprintf(stderr, "layout: %s has %zu bytes, but its last member ends at %zu\n", name, sizeof(Struct), at);
    std::exit(1);
  }
  std::printf("    \"%s\": {\n      \"bytes\": %zu,\n      \"members\": {\n", name, sizeof(Struct));
  for (size_t i = 0; i < lines.size(); ++i)
    std::printf("        %s%s\n", lines[i].c_str(), i + 1 < lines.size() ? "," : "");
  std::printf("      }\n    }%s\n", last ? "" : ",");
}

void print_names(const char* name, const char* const* names, int count) {
  std::printf("  \"%s\": \"", name);
  for (int i = 0; i < count; ++i) std::printf("%s%s", i ? " " : "", names[i]);
  std::printf("\",\n");
}

}  // namespace

int main() {
  std::printf("{\n  \"abi\": %d,\n  \"maxRank\": %d,\n", KW_ABI, kw::kMaxRank);
  print_names("dtypes", kw::kDTypeNames, kw::kDTypeCount);
  print_names("codes", kw::kCodeNames, kw::kCodeCount);
  std::printf("  \"structs\": {\n");
  print<kw_device_info>("kw_device_info", false, false);
  print<kw_op>("kw_op", false, false);
  print<kw_table>("kw_table", false, false);
  print<kw::TensorView>("TensorView", false, false);
  print<kw::GemmArgs>("gemm", true, false);
  print<kw::GemmInt4Args>("gemm_int4", true, false);
  print<kw::AttentionGqaArgs>("attention_gqa", true, true);
  std::printf("  }\n}\n");
}
