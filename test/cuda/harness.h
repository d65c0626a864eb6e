// What tests of a kernel library share: opening it as a stranger would, devices, and operands that lie in NaN.
#pragma once
#include <dlfcn.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../../kernels/core/abi.h"
#include "../../kernels/core/numeric.h"
#include "../../kernels/core/reference.h"
#include "../../kernels/core/tensor.h"
#include "../counting.h"

namespace kw::test {

inline std::map<std::string, int> seen;  // variants and other choices that plans explained, and how often
inline bool full = false;                // every case instead of a sample
inline bool race = false;                // the build that checks every access, which takes three times as long

struct Device {
  const kw_table* table;
  int index;
  kw_device_info info{};
  void* stream = nullptr;
  void* event = nullptr;

  // A stream with a thread of its own, which has started when this returns.
  void open() {
    must(table->stream_create(index, &stream), "stream_create");
    must(table->event_create(index, 0, &event), "event_create");
    must(sync(), "sync");
  }
  void close() {
    must(table->event_destroy(event), "event_destroy");
    must(table->stream_destroy(stream), "stream_destroy");
  }
  uint64_t free_bytes() const {
    uint64_t free = 0, total = 0;
    must(table->memory_info(index, &free, &total), "memory_info");
    return free;
  }
  int32_t sync() const {
    const int32_t recorded = table->event_record(event, stream);
    return recorded ? recorded : table->event_wait(event);
  }
  void must(int32_t status, const char* call) const {
    if (status == 0) return;
    throw Error(static_cast<Code>(status), std::string(call) + ": " + table->last_error());
  }
};

inline const kw_op& operator_of(const kw_table& table, const char* name) {
  for (uint64_t i = 0; i < table.op_count; ++i)
    if (std::strcmp(table.ops[i]->name, name) == 0) return *table.ops[i];
  throw Error(Code::LIBRARY, std::string("the library has no ") + name);
}

// How a [batch, rows, columns] operand lies in its buffer. Everything outside the view is NaN and must stay so.
struct Layout {
  int64_t offset = 0;      // elements before the view; an odd one makes it misaligned
  int64_t pad = 0;         // elements between rows
  bool broadcast = false;  // one matrix for every batch, by stride 0
  bool flat = false;       // rank 2, for operands without a batch
};

struct Operand {
  TensorView host, device;
  std::vector<uint8_t> bytes, before;
  const Device* owner = nullptr;
  void* memory = nullptr;

  Operand() = default;
  Operand(const Operand&) = delete;
  Operand& operator=(const Operand&) = delete;
  ~Operand() {
    if (memory) owner->table->free(owner->index, memory);
  }
  int64_t size() const { return bits(host.dtype) / 8; }

  // With rows < 0: a vector of `columns`.
  void make(const Device& d, DType dtype, int64_t batch, int64_t rows, int64_t columns, Layout layout) {
    owner = &d;
    TensorView& v = host;
    v.dtype = dtype;
    const int64_t pitch = columns + layout.pad, matrix = std::max<int64_t>(rows, 1) * pitch;
    if (rows < 0) {
      v.rank = 1, v.shape[0] = columns, v.stride[0] = 1;
    } else if (layout.flat) {
      v.rank = 2, v.shape[0] = rows, v.shape[1] = columns, v.stride[0] = pitch, v.stride[1] = 1;
    } else {
      v.rank = 3, v.shape[0] = batch, v.shape[1] = rows, v.shape[2] = columns;
      v.stride[0] = layout.broadcast ? 0 : matrix, v.stride[1] = pitch, v.stride[2] = 1;
    }
    const int64_t matrices = layout.broadcast || layout.flat || rows < 0 ? 1 : batch;
    allocate(layout.offset, matrices * matrix, kGuard);
  }

  // Any shape and strides, `offset` elements into the buffer. read_only: the buffer ends with the view, so that the emulator
  // reports a read past it.
  void place(const Device& d, DType dtype, const std::vector<int64_t>& shape, const std::vector<int64_t>& stride,
             int64_t offset, bool read_only = false) {
    owner = &d;
    TensorView& v = host;
    v.dtype = dtype;
    v.rank = static_cast<int32_t>(shape.size());
    int64_t last = 0;
    for (size_t i = 0; i < shape.size(); ++i) {
      v.shape[i] = shape[i], v.stride[i] = stride[i];
      last += std::max<int64_t>(shape[i] - 1, 0) * stride[i];
    }
    allocate(offset, last + 1, read_only ? 0 : kGuard);
  }

  // Every element once, by its index from the view's first: repeated dimensions (stride 0) count once.
  template <class Visit>
  void each(Visit visit) const {
    if (host.count() > 0) each_from(visit, 0, 0);
  }

  template <class Random>
  void fill(Random& random, bool integers) {
    std::uniform_real_distribution<float> real(-1, 1);
    std::uniform_int_distribution<int> whole(-4, 4);
    each([&](int64_t at) {
      store_f32(host.data, host.dtype, at, integers ? static_cast<float>(whole(random)) : real(random));
    });
  }
  void upload() {
    before = bytes;
    owner->must(owner->table->copy(owner->index, memory, before.data(), bytes.size(), KW_TO_DEVICE, owner->stream),
                "copy");
  }
  void download() {
    owner->must(owner->table->copy(owner->index, bytes.data(), memory, bytes.size(), KW_TO_HOST, owner->stream),
                "copy");
  }

 private:
  static constexpr int64_t kGuard = 8;  // elements after the view that nothing may write

  void allocate(int64_t offset, int64_t elements, int64_t after) {
    bytes.assign((offset + elements + after) * size(), 0xff);  // NaN in every dtype
    owner->must(owner->table->alloc(owner->index, bytes.size(), &memory), "alloc");
    device = host;
    host.data = bytes.data() + offset * size();
    device.data = static_cast<uint8_t*>(memory) + offset * size();
    if (host.count() == 0) host.data = device.data = nullptr;
  }
  template <class Visit>
  void each_from(Visit& visit, int dimension, int64_t at) const {
    if (dimension == host.rank) return void(visit(at));
    const int64_t step = host.stride[dimension], times = step ? host.shape[dimension] : 1;
    for (int64_t i = 0; i < times; ++i) each_from(visit, dimension + 1, at + i * step);
  }
};

// An output against the definition: empty when it is right and nothing around it was written, else what is wrong. exact: the
// value rounded to the output's dtype and nothing else.
inline std::string compare(const Operand& o, const ReferenceOutput& reference, const char* what, bool exact = false) {
  std::set<int64_t> inside;
  std::string wrong;
  int64_t i = 0;
  const DType type = o.host.dtype;
  o.each([&](int64_t at) {  // no output repeats a dimension, so this is the order of the reference
    inside.insert(at);
    const double value = reference.value[i], actual = load_f32(o.host.data, type, at);
    const double wanted = exact ? rounded(type, static_cast<float>(value)) : value;
    const double allowed = exact ? 0 : 2 * std::abs(reference.plain[i] - value) + ulp(type, value) + reference.slack[i];
    const bool same = actual == wanted || (std::isnan(actual) && std::isnan(wanted));
    if (!same && !(std::abs(actual - wanted) <= allowed) && wrong.empty()) {
      char line[200];
      std::snprintf(line, sizeof(line), "%s[%ld][%ld] is %.9g, expected %.9g within %.3g", what, i / o.host.dim(-1),
                    i % o.host.dim(-1), actual, wanted, allowed);
      wrong = line;
    }
    ++i;
  });
  if (!wrong.empty() || o.host.count() == 0) return wrong;
  const int64_t size = o.size(), base = (static_cast<const uint8_t*>(o.host.data) - o.bytes.data()) / size;
  for (int64_t at = -base; at < static_cast<int64_t>(o.bytes.size()) / size - base; ++at)
    if (!inside.count(at) && std::memcmp(&o.bytes[(at + base) * size], &o.before[(at + base) * size], size))
      return "element " + std::to_string(at) + " outside " + what + " was written";
  return "";
}

template <class T, size_t N>
T pick(std::mt19937& random, const T (&from)[N]) {
  return from[random() % N];
}

// A list walked through in a random order, so that every entry occurs.
template <class T>
class Walk {
 public:
  Walk(std::vector<T> values, unsigned seed) : values_(std::move(values)), random_(seed) {}
  T next() {
    if (at_ % values_.size() == 0) std::shuffle(values_.begin(), values_.end(), random_);
    return values_[at_++ % values_.size()];
  }

 private:
  std::vector<T> values_;
  std::mt19937 random_;
  size_t at_ = 0;
};

// Opens the library or ends the program; an empty device list becomes all of them.
inline const kw_table* open_library(const char* path, std::vector<int>& devices) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) std::fprintf(stderr, "%s\n", dlerror()), std::exit(2);
  const auto entry = reinterpret_cast<kw_table_fn>(dlsym(library, KW_CUDA_TABLE));
  const kw_table* table = entry ? entry(KW_ABI) : nullptr;
  if (!table) std::fprintf(stderr, "%s has no table of ABI %d\n", path, KW_ABI), std::exit(2);
  expect(entry(KW_ABI + 1) == nullptr, "another ABI gives no table");
  int32_t count = 0;
  table->device_count(&count);
  if (count == 0) std::fprintf(stderr, "%s\n", table->last_error()), std::exit(2);
  if (devices.empty())
    for (int i = 0; i < count; ++i) devices.push_back(i);
  return table;
}

// The schedules that a device's cases are dealt out over; hardware has one of its own.
inline std::vector<const char*> schedules_of(const kw_device_info& info) {
  if (!info.emulated) return {""};
  return {"sched=ahead,async=late", "sched=random,async=random,seed=1", "sched=random,async=random,seed=2",
          "sched=random,async=random,seed=3"};
}

}  // namespace kw::test
