#include "json.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <stdexcept>

namespace kw::check {
namespace {

constexpr int kDeepest = 32;

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Json whole() {
    Json json = value(0);
    space();
    if (at_ != text_.size()) fail("text after the value");
    return json;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error("column " + std::to_string(at_ + 1) + ": " + what);
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void space() {
    while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos) ++at_;
  }
  bool take(char c) {
    space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(std::string("expected ") + c);
  }
  bool word(std::string_view name) {
    if (text_.substr(at_, name.size()) != name) return false;
    at_ += name.size();
    return true;
  }

  Json value(int depth) {
    if (depth > kDeepest) fail("nested too deep");
    space();
    Json json;
    if (peek() == '{') return object(depth);
    if (peek() == '[') return array(depth);
    if (peek() == '"') {
      json.kind = Json::string;
      json.text = string();
    } else if (const bool truth = word("true"); truth || word("false")) {
      json.kind = Json::boolean;
      json.truth = truth;
    } else if (!word("null")) {
      json.kind = Json::number;
      json.value = number();
    }
    return json;
  }

  Json object(int depth) {
    Json json;
    json.kind = Json::object;
    expect('{');
    if (take('}')) return json;
    do {
      space();
      std::string name = string();
      if (json.find(name) != nullptr) fail("a second " + quoted(name));
      expect(':');
      json.members.emplace_back(std::move(name), value(depth + 1));
    } while (take(','));
    expect('}');
    return json;
  }

  Json array(int depth) {
    Json json;
    json.kind = Json::array;
    expect('[');
    if (take(']')) return json;
    do {
      json.items.push_back(value(depth + 1));
    } while (take(','));
    expect(']');
    return json;
  }

  int digits() {
    int count = 0;
    for (; peek() >= '0' && peek() <= '9'; ++at_) ++count;
    return count;
  }

  double number() {
    const size_t begin = at_;
    if (peek() == '-') ++at_;
    const bool zero = peek() == '0';
    const int whole = digits();
    if (whole == 0) at_ = begin, fail("expected a value");
    if (zero && whole > 1) fail("a number with a leading 0");
    if (peek() == '.') {
      ++at_;
      if (digits() == 0) fail("expected a digit");
    }
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      if (digits() == 0) fail("expected a digit");
    }
    double result = 0;
    if (std::from_chars(text_.data() + begin, text_.data() + at_, result).ec != std::errc()) fail("a number too large");
    return result;
  }

  uint32_t hex() {
    uint32_t code = 0;
    const char* begin = text_.data() + at_;
    if (at_ + 4 > text_.size() || std::from_chars(begin, begin + 4, code, 16).ptr != begin + 4)
      fail("expected four hexadecimal digits");
    at_ += 4;
    return code;
  }

  // The code point of an escape \u, in UTF-8; beyond 0xffff it takes two of them.
  void append_escape(std::string& text) {
    uint32_t code = hex();
    if (code >= 0xd800 && code < 0xdc00 && word("\\u")) {
      const uint32_t low = hex();
      if (low < 0xdc00 || low >= 0xe000) fail("half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xd800 && code < 0xe000) {
      fail("half of a surrogate pair");
    }
    const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr uint32_t kLead[] = {0, 0xc0, 0xe0, 0xf0};
    text += static_cast<char>(kLead[more] | code >> 6 * more);
    for (int i = more - 1; i >= 0; --i) text += static_cast<char>(0x80 | (code >> 6 * i & 0x3f));
  }

  std::string string() {
    if (peek() != '"') fail("expected a string");
    ++at_;
    std::string text;
    for (;;) {
      if (at_ >= text_.size()) fail("a string without an end");
      const char c = text_[at_++];
      if (c == '"') return text;
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      if (c != '\\') {
        text += c;
        continue;
      }
      constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
      const char escape = peek();
      const size_t which = kNames.find(escape);
      if (at_ >= text_.size() || (escape != 'u' && which == std::string_view::npos)) fail("an unknown escape");
      ++at_;
      if (escape == 'u') {
        append_escape(text);
      } else {
        text += kMeanings[which];
      }
    }
  }

  const std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

const Json* Json::find(std::string_view name) const {
  for (const auto& [own, json] : members) {
    if (own == name) return &json;
  }
  return nullptr;
}

Json parse_json(std::string_view text) { return Reader(text).whole(); }

std::string quoted(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\', out += c;
    } else if (code < 0x20) {
      out += "\\u00", out += kHex[code >> 4], out += kHex[code & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string shortest(double value) {
  if (std::isnan(value)) return "\"NaN\"";
  if (std::isinf(value)) return value > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  char text[32];
  return {text, std::to_chars(text, text + sizeof(text), value).ptr};
}

}  // namespace kw::check
