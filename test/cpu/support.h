// What the C++ tests of CPU backends share: arguments, every instruction set, random numbers, tensors in guarded memory, running a
// plan, and comparing with the definition under the tolerance rule of kernels/core/reference.h.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "../../kernels/core/numeric.h"
#include "../../kernels/core/plan.h"
#include "../../kernels/core/reference.h"
#include "../../kernels/core/threads.h"
#include "../counting.h"

namespace kw::test {

inline std::mt19937 rng;

// Of the command line: NAME_test [CASES [SEED]].
struct Arguments {
  int cases;  // random ones, of each instruction set
  unsigned seed;

  Arguments(int argc, char** argv, int usual)
      : cases(argc > 1 ? std::atoi(argv[1]) : usual), seed(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1) {
    rng.seed(seed);
  }
};

// Pools of 2, 3 and 1 threads: what is compared must not depend on their number.
struct Pools {
  ThreadPool two, three, one;
  explicit Pools(cpu::Isa isa) : two(2, isa), three(3, isa), one(1, isa) {}
};

// check(isa, pools) with every instruction set that this processor has, each from the same random numbers. avx512_bf16 is tested
// where it runs, not only where it pays.
template <class Check>
void each_isa(const Arguments& arguments, Check check) {
  setenv("KERNWATT_DOT_BF16", "1", 1);
  for (int i = 0; i <= static_cast<int>(cpu::best()); ++i) {
    const auto isa = static_cast<cpu::Isa>(i);
    Pools pools(isa);
    rng.seed(arguments.seed);
    const int before = failed;
    check(isa, pools);
    std::printf("%-12s %s\n", cpu::name(isa), failed == before ? "ok" : "FAILED");
  }
}

inline int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); }
template <class T>
T one_of(std::initializer_list<T> values) {
  return values.begin()[pick(0, static_cast<int64_t>(values.size()) - 1)];
}
inline bool chance(double p) { return std::uniform_real_distribution<>()(rng) < p; }
inline float normal() { return std::normal_distribution<float>()(rng); }

constexpr uint8_t kGuard = 0xff;  // NaN in every float type: reading it where nothing should be read spoils the result

// A tensor in memory of its own, all of which but the elements is guard bytes.
struct Holder {
  std::vector<uint8_t> bytes;
  TensorView view;
  int64_t offset = 0;  // of the first element, in elements

  // order: dimensions from the outermost in memory to the innermost; empty: as they come. repeat[i]: stride 0.
  void shape(DType dtype, const std::vector<int64_t>& dims, bool padded = false, std::vector<int> order = {},
             const std::vector<bool>& repeat = {}) {
    view = {};
    view.dtype = dtype;
    view.rank = static_cast<int32_t>(dims.size());
    if (order.empty()) {
      for (int i = 0; i < view.rank; ++i) order.push_back(i);
    }
    int64_t stride = 1;
    for (int n = view.rank - 1; n >= 0; --n) {
      const int i = order[n];
      const bool repeats = static_cast<size_t>(i) < repeat.size() && repeat[i];
      view.shape[i] = dims[i];
      view.stride[i] = repeats ? 0 : stride;
      if (!repeats) stride *= std::max<int64_t>(1, dims[i]);
      if (padded) stride += pick(0, 7);
    }
    offset = padded ? pick(0, 5) : 0;
    const int64_t size = bits(dtype) / 8;
    bytes.assign(static_cast<size_t>((offset + stride + (padded ? 9 : 0)) * size), kGuard);
    view.data = bytes.data() + offset * size;
  }
  // Every element in row-major order; those that repeat are visited again.
  template <class Visit>
  void each(Visit visit) const {
    if (view.count() == 0) return;
    int64_t index[kMaxRank] = {}, at = 0;
    for (;;) {
      visit(at, index);
      int d = view.rank - 1;
      for (; d >= 0; --d) {
        at += view.stride[d];
        if (++index[d] < view.shape[d]) break;
        at -= view.stride[d] * view.shape[d];
        index[d] = 0;
      }
      if (d < 0) return;
    }
  }
  void fill(const std::function<float()>& value) {
    each([&](int64_t at, const int64_t*) { store_f32(view.data, view.dtype, at, value()); });
  }
  // Bytes outside the elements that are no longer guard bytes.
  int64_t touched() const {
    std::vector<bool> element(bytes.size());
    const int64_t size = bits(view.dtype) / 8;
    each([&](int64_t at, const int64_t*) {
      for (int64_t b = 0; b < size; ++b) element[static_cast<size_t>((offset + at) * size + b)] = true;
    });
    int64_t count = 0;
    for (size_t b = 0; b < bytes.size(); ++b) count += !element[b] && bytes[b] != kGuard;
    return count;
  }
};

inline std::string describe(const char* field, const TensorView& v) {
  if (!v.present()) return "";
  std::string s = std::string(" ") + field + " " + name(v.dtype) + "[";
  for (int i = 0; i < v.rank; ++i) s += (i ? "," : "") + std::to_string(v.shape[i]) + ":" + std::to_string(v.stride[i]);
  return s + "]";
}

// A case in words: every argument that is given.
template <class Args>
std::string describe(cpu::Isa isa, int threads, Args& args) {
  std::string text = std::string(cpu::name(isa)) + " threads " + std::to_string(threads);
  for_each_field(args, [&](const char* field, auto& value) {
    if constexpr (std::is_base_of_v<TensorView, std::remove_reference_t<decltype(value)>>) {
      text += describe(field, value);
    } else {
      text += std::string(" ") + field + " " + std::to_string(value);
    }
  });
  return text;
}

inline kw_device_info device_of(cpu::Isa isa, const ThreadPool& pool) {
  kw_device_info device{};
  device.size = sizeof(device);
  device.sm_count = pool.threads();
  device.isa = static_cast<int32_t>(isa);
  return device;
}

// Runs the plan, in its own way or the one named, with a workspace of exactly the promised size, full of NaN. Returns
// explain(), or what went wrong.
template <class Args>
std::string run(const kw_op& op, const Args& args, cpu::Isa isa, ThreadPool& pool,
                const char* configuration = nullptr) {
  const kw_device_info device = device_of(isa, pool);
  if (op.supports(&device, &args) != 0) return "declined: " + last_error();
  kw_plan* plan = nullptr;
  if ((configuration ? op.plan_create_as(&device, &args, configuration, &plan)
                     : op.plan_create(&device, &args, &plan)) != 0)
    return "plan_create: " + last_error();
  const uint64_t bytes = op.plan_workspace(plan);
  void* space = nullptr;
  if (posix_memalign(&space, 64, std::max<uint64_t>(bytes, 1)) != 0) return "no memory for the workspace";
  std::memset(space, kGuard, bytes);
  std::string result;
  if (op.plan_rebind(plan, &args, space) != 0 || op.plan_enqueue(plan, &pool) != 0) {
    result = "error: " + last_error();
  } else {
    result = op.plan_explain(plan);
  }
  op.plan_destroy(plan);
  std::free(space);
  return result;
}

// An output against the definition on every row, and everything around it against the guard bytes. exact: the very values.
inline void compare(const std::string& text, const Holder& y, const ReferenceOutput& r, bool exact) {
  int64_t i = 0, wrong = 0, worst_at = -1;
  double worst = 0, worst_actual = 0;
  y.each([&](int64_t at, const int64_t*) {
    const double actual = double{load_f32(y.view.data, y.view.dtype, at)}, value = r.value[i], plain = r.plain[i];
    const double allowed = 2 * std::abs(plain - value) + ulp(y.view.dtype, value) + r.slack[i];
    const bool same = actual == value || (std::isnan(actual) && std::isnan(value));
    const bool close = std::isfinite(value) && std::isfinite(plain) && std::abs(actual - value) <= allowed;
    if (!(same || (!exact && close))) {
      const double ratio = std::abs(actual - value) / allowed;
      if (wrong++ == 0 || ratio > worst) worst = ratio, worst_at = i, worst_actual = actual;
    }
    ++i;
  });
  std::string what = text;
  if (wrong != 0) {
    what += ": " + std::to_string(wrong) + " of " + std::to_string(i) + " wrong, element " + std::to_string(worst_at) +
            " is " + std::to_string(worst_actual) + ", " + std::to_string(worst) + " of the tolerance from " +
            std::to_string(r.value[worst_at]);
  }
  if (i != static_cast<int64_t>(r.value.size())) {
    what += ": the definition has " + std::to_string(r.value.size()) + " elements of " + std::to_string(i);
    ++wrong;
  }
  const int64_t touched = y.touched();
  if (touched != 0) what += ": " + std::to_string(touched) + " bytes outside were written";
  expect(wrong == 0 && touched == 0, what);
}

// The names of an operator's configurations for a problem, the plan's own first.
template <class Args>
std::vector<std::string> configurations_of(const kw_op& op, const Args& args, cpu::Isa isa, ThreadPool& pool) {
  const kw_device_info device = device_of(isa, pool);
  const char* lines = nullptr;
  std::vector<std::string> names;
  if (op.configurations(&device, &args, &lines) != 0) {
    expect(false, "configurations: " + last_error());
    return names;
  }
  std::istringstream text{std::string(lines)};
  for (std::string name; std::getline(text, name);) names.push_back(name);
  return names;
}

// Every configuration that the operator names for a case is right, and the first is the one that it takes by itself; a name of none
// is refused. `ran` counts them.
template <class Case>
void compare_configurations(const kw_op& op, Case& t, const ReferenceOutput& r, bool exact, cpu::Isa isa,
                            ThreadPool& pool, std::map<std::string, int>& ran) {
  const std::vector<uint8_t> before = t.y.bytes;
  std::string own = run(op, t.args, isa, pool);
  for (const std::string& name : configurations_of(op, t.args, isa, pool)) {
    std::copy(before.begin(), before.end(), t.y.bytes.begin());
    const std::string explained = run(op, t.args, isa, pool, name.c_str()), what = t.text + " as " + name;
    const std::string says = "\"configuration\":\"" + name + '"';
    expect(explained.find(says) != std::string::npos, what + ": " + explained);
    if (!own.empty()) expect(own.find(says) != std::string::npos, what + ": first is what it takes itself, " + own);
    own.clear();
    compare(what, t.y, r, exact);
    ++ran[name];
  }
  std::copy(before.begin(), before.end(), t.y.bytes.begin());
  const std::string refused = run(op, t.args, isa, pool, "amx/rows");
  expect(refused.find("configuration is amx/rows, expected one of ") != std::string::npos, refused);
}

}  // namespace kw::test
