// A strict reader of one JSON value (RFC 8259), and the two pieces of a writer that a line of results needs. Numbers are
// doubles; a name that occurs twice in an object is refused.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kw::check {

struct Json {
  enum Kind { null, boolean, number, string, array, object } kind = null;
  bool truth = false;
  double value = 0;
  std::string text;
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> members;  // in the order of the text

  // Null when the object has no such member.
  const Json* find(std::string_view name) const;
};

inline constexpr const char* kJsonKinds[] = {"null", "a boolean", "a number", "a string", "an array", "an object"};

// The whole text must be one value, nested at most 32 deep. Throws std::runtime_error, `column <n>: <what is wrong>`.
Json parse_json(std::string_view text);

// As JSON: a string in quotes; the shortest number that reads back the same, or the string NaN, Infinity or -Infinity.
std::string quoted(std::string_view text);
std::string shortest(double value);

}  // namespace kw::check
