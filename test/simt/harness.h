// Tests of the emulator and of ptx.cuh in one program. KW_TEST(name) { ... } passes unless it throws; KW_TEST_SM90 is one
// that only an sm_90a device can run. Values that a
// kernel computed go through golden(), so that a run on a GPU can be recorded and compared with later.
#pragma once
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace kw::test {

struct Test {
  const char* name;
  void (*run)();
  int cc;  // compute capability it needs, 10 * major + minor; 90 means exactly that
  const char* file;
};
inline std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

#define KW_ADD_TEST(NAME, CC)                                       \
  static void NAME();                                               \
  [[maybe_unused]] static const bool kw_added_##NAME = [] {         \
    ::kw::test::all_tests().push_back({#NAME, NAME, CC, __FILE__}); \
    return true;                                                    \
  }();                                                              \
  static void NAME()
#define KW_TEST(NAME) KW_ADD_TEST(NAME, 80)
#define KW_TEST_SM90(NAME) KW_ADD_TEST(NAME, 90)

inline void require(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what);
}

// The two agree; |got - want| <= tolerance element by element, and bit for bit when it is 0.
template <class T>
void require_equal(const std::vector<T>& got, const std::vector<T>& want, const std::string& what,
                   double tolerance = 0) {
  require(got.size() == want.size(),
          what + ": " + std::to_string(got.size()) + " elements, expected " + std::to_string(want.size()));
  for (size_t i = 0; i < got.size(); ++i) {
    const bool same = std::memcmp(&got[i], &want[i], sizeof(T)) == 0;
    const double g = static_cast<double>(got[i]), w = static_cast<double>(want[i]);
    if (!same && !(tolerance > 0 && std::fabs(g - w) <= tolerance))
      throw std::runtime_error(what + ": element " + std::to_string(i) + " is " + std::to_string(g) + ", expected " +
                               std::to_string(w));
  }
}

// Recorded results. A file begins with "# device NAME, sm_90" and holds a line for each name:
//   name \t exact SIZE \t digest       SIZE: count x bytes; the bytes themselves in hexadecimal up to 32 of them, else FNV-1a
//   name \t every K of SIZE \t hex     of what is compared within a tolerance: every K-th value, about 256 of them
class Golden {
 public:
  void record_to(const std::string& path) { out_path_ = path; }
  void compare_with(const std::string& path);
  void save(const std::string& device, int cc) const;  // throws when the file cannot be written
  void require_complete() const;                       // throws when the file holds a name that no test gave
  bool recording() const { return !out_path_.empty(); }
  bool comparing() const { return comparing_; }
  int cc() const { return cc_; }  // of the device that recorded the file compared with
  size_t seen() const { return seen_; }

  template <class T>
  void value(const std::string& name, const std::vector<T>& got, double tolerance) {
    ++seen_;
    const size_t step = tolerance > 0 ? (got.size() / 256) | 1 : 1;
    std::vector<T> kept;
    for (size_t i = 0; i < got.size(); i += step) kept.push_back(got[i]);
    const std::string size = std::to_string(got.size()) + "x" + std::to_string(sizeof(T));
    const std::string kind = tolerance > 0 ? "every " + std::to_string(step) + " of " + size : "exact " + size;
    const std::string text =
        tolerance > 0 ? hex(kept.data(), kept.size() * sizeof(T)) : digest(kept.data(), kept.size() * sizeof(T));
    if (recording()) lines_[name] = {kind, text, true};
    if (!comparing_) return;
    const auto found = lines_.find(name);
    require(found != lines_.end(), name + " is not in the golden file");
    Line& line = found->second;
    line.met = true;
    require(line.kind == kind, name + ": the golden file holds " + line.kind + ", expected " + kind);
    if (tolerance == 0) {
      require(line.text == text, name + " is " + text + ", the golden file has " + line.text);
      return;
    }
    std::vector<T> want(kept.size());
    require(line.text.size() == text.size(), name + " is cut short in the golden file");
    unhex(line.text, want.data());
    require_equal(kept, want, name + " against the golden file", tolerance);
  }

 private:
  struct Line {
    std::string kind, text;
    bool met = false;
  };
  static std::string hex(const void* data, size_t bytes);
  static std::string digest(const void* data, size_t bytes);
  static void unhex(const std::string& text, void* data);

  std::map<std::string, Line> lines_;
  std::string out_path_;
  bool comparing_ = false;
  int cc_ = 0;
  size_t seen_ = 0;
};
Golden& golden();

// got agrees with what hardware once gave if that was recorded, and with the model's want. What disagrees with the model is
// recorded all the same.
template <class T>
void conforms(const std::string& name, const std::vector<T>& got, const std::vector<T>& want, double tolerance = 0) {
  golden().value(name, got, tolerance);
  require_equal(got, want, name, tolerance);
}

}  // namespace kw::test
