// Lists a struct's members once, so that generic code can walk them by name.
//
//   struct ScaleArgs { uint64_t size = sizeof(ScaleArgs); ConstTensor x; Tensor y; float factor; };
//   KW_FIELDS(ScaleArgs, x, y, factor)
//
//   for_each_field(args, [](const char* name, auto& value) { ... });
//
// Enumerations that appear as fields are listed the same way, so that their names reach JavaScript:
//
//   enum class Activation : int32_t { none, relu };
//   KW_CHOICES(Activation, none, relu)
#pragma once
#include <cstdint>
#include <type_traits>

#define KW_PARENS ()
#define KW_EXPAND(...) KW_EXPAND1(KW_EXPAND1(KW_EXPAND1(KW_EXPAND1(__VA_ARGS__))))
#define KW_EXPAND1(...) KW_EXPAND2(KW_EXPAND2(KW_EXPAND2(KW_EXPAND2(__VA_ARGS__))))
#define KW_EXPAND2(...) __VA_ARGS__
#define KW_EACH(member, ...) \
  visit(#member, s.member);  \
  __VA_OPT__(KW_EACH_AGAIN KW_PARENS(__VA_ARGS__))
#define KW_EACH_AGAIN() KW_EACH

#define KW_FIELDS(Struct, ...)                    \
  template <class Visit>                          \
  void for_each_field(Struct& s, Visit&& visit) { \
    KW_EXPAND(KW_EACH(__VA_ARGS__))               \
  }

#define KW_NAME(name, ...) #name, __VA_OPT__(KW_NAME_AGAIN KW_PARENS(__VA_ARGS__))
#define KW_NAME_AGAIN() KW_NAME

namespace kw {
struct ChoiceNames {
  const char* const* names;
  int count;
};
}  // namespace kw

// Found by argument-dependent lookup: choice_names(Activation{}) gives the names in order.
#define KW_CHOICES(Enum, ...)                                                 \
  inline ::kw::ChoiceNames choice_names(Enum) {                               \
    static constexpr const char* names[] = {KW_EXPAND(KW_NAME(__VA_ARGS__))}; \
    return {names, sizeof(names) / sizeof(names[0])};                         \
  }
