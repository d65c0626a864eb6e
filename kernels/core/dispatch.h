// Turns a run-time value into a compile-time one, or says which values exist.
//
//   with_constant<64, 128, 256>("attention_gqa: head_dim", d, [&]<auto D>() { launch<D>(args); });
#pragma once
#include <cstdint>
#include <string>

#include "error.h"

namespace kw {

// Calls body<V>() for the V that equals value; throws UNSUPPORTED naming `what`, the value and the list otherwise.
template <auto... Supported, class Value, class Body>
void with_constant(const char* what, Value value, Body&& body) {
  const bool found = ((value == Supported ? (body.template operator()<Supported>(), true) : false) || ...);
  if (found) return;
  std::string list;
  ((list += (list.empty() ? "" : ", ") + std::to_string(static_cast<int64_t>(Supported))), ...);
  throw Error(Code::UNSUPPORTED,
              std::string(what) + " is " + std::to_string(static_cast<int64_t>(value)) + ", expected one of " + list);
}

}  // namespace kw
