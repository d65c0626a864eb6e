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
};
inline std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

#define KW_ADD_TEST(NAME, CC)                               \
  static void NAME();                                       \
  [[maybe_unused]] static const bool kw_added_##NAME = [] { \
    ::kw::test::all_tests().push_back({#NAME, NAME, CC});   \
    return true;                                            \
  }();                                                      \
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

// Recorded results, by name: lines of "name size hex". Exactly one of the two files is open, or none.
class Golden {
 public:
  void record_to(const std::string& path) { out_path_ = path; }
  void compare_with(const std::string& path);
  void save() const;  // throws when the file cannot be written
  bool comparing() const { return comparing_; }
  size_t compared() const { return compared_; }

  template <class T>
  void value(const std::string& name, const std::vector<T>& got, double tolerance) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(got.data());
    if (!out_path_.empty()) values_[name].assign(bytes, bytes + got.size() * sizeof(T));
    if (!comparing_) return;
    const auto found = values_.find(name);
    require(found != values_.end(), name + " is not in the golden file");
    std::vector<T> want(found->second.size() / sizeof(T));
    std::memcpy(static_cast<void*>(want.data()), found->second.data(), want.size() * sizeof(T));
    require_equal(got, want, name + " against the golden file", tolerance);
    ++compared_;
  }

 private:
  std::map<std::string, std::vector<unsigned char>> values_;
  std::string out_path_;
  bool comparing_ = false;
  size_t compared_ = 0;
};
Golden& golden();

// got agrees with the model's want, and with what hardware once gave if that was recorded.
template <class T>
void conforms(const std::string& name, const std::vector<T>& got, const std::vector<T>& want, double tolerance = 0) {
  require_equal(got, want, name, tolerance);
  golden().value(name, got, tolerance);
}

}  // namespace kw::test
