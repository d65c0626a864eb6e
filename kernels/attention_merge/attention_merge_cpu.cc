// attention_merge on the CPU: a task is a run of rows in the order of y. Memory-bound, every part read once and in place.
//
// Sources, one object each, with what they are compiled for (all but the first two on x86-64 only):
//   attention_merge_cpu.cc, attention_merge_cpu_generic.cc   -O3
//   attention_merge_cpu_avx2.cc                              -O3 -mavx2 -mfma -mf16c
//   attention_merge_cpu_avx512.cc                            -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
#include "attention_merge_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>

#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/plan.h"
#include "../core/threads.h"
#include "attention_merge.h"

namespace kw::cpu {
namespace {

constexpr int64_t kTaskBytes = 128 << 10;   // of all parts, about
constexpr int64_t kSerialBytes = 64 << 10;  // below which waking a thread costs more than it brings
constexpr float kNone = -std::numeric_limits<float>::infinity();

MergeKernel kernel_for(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return kMergeAvx512;
  if (isa == Isa::avx2) return kMergeAvx2;
#endif
  (void)isa;
  return kMergeGeneric;
}

class MergeCpuPlan {
 public:
  static std::string declines(const AttentionMergeArgs&, const kw_device_info&);
  MergeCpuPlan(const AttentionMergeArgs& args, const kw_device_info& device)
      : threads_(std::max(1, device.sm_count)),
        isa_(static_cast<Isa>(device.isa)),
        kernel_(kernel_for(isa_)),
        capacity_(threads_ * stride(args)) {}
  uint64_t workspace() const { return static_cast<uint64_t>(capacity_) * sizeof(float); }
  void rebind(const AttentionMergeArgs&, void* workspace);
  void enqueue(void* stream) const;
  std::string explain() const;

 private:
  // Floats of weights for one thread, whole cache lines.
  static int64_t stride(const AttentionMergeArgs& args) { return (args.y_parts.shape[0] + 15) / 16 * 16; }
  int64_t row_bytes() const { return args_.y_parts.shape[0] * args_.y.shape[3] * bits(args_.y_parts.dtype) / 8; }
  void merge(int64_t row, float* weights) const;

  int threads_;
  Isa isa_;
  MergeKernel kernel_;
  int64_t capacity_;
  AttentionMergeArgs args_;
  float* space_ = nullptr;
};

std::string MergeCpuPlan::declines(const AttentionMergeArgs& args, const kw_device_info&) {
  const struct {
    const char* name;
    const TensorView& view;
    bool any;  // of the float types, or f32 alone
  } tensors[] = {{"y_parts", args.y_parts, true},
                 {"lse_parts", args.lse_parts, false},
                 {"y", args.y, true},
                 {"lse", args.lse, false}};
  for (const auto& [name, t, any] : tensors) {
    if (any ? !is_float(t.dtype) : t.dtype != DType::f32) {
      return std::string("attention_merge: ") + name + " is " + kw::name(t.dtype) + ", expected " +
             (any ? "f32, f16 or bf16" : "f32");
    }
    if (any && t.dim(-1) > 1 && t.step(-1) != 1) {
      return std::string("attention_merge: last dimension of ") + name + " has stride " + std::to_string(t.step(-1)) +
             ", expected 1";
    }
  }
  return "";
}

void MergeCpuPlan::rebind(const AttentionMergeArgs& args, void* workspace) {
  const int64_t floats = threads_ * stride(args);
  if (floats > capacity_) {
    throw Error(Code::SHAPE, "attention_merge: workspace is " + std::to_string(capacity_ * 4) + " bytes, expected " +
                                 std::to_string(floats * 4) + " for the shape bound now");
  }
  args_ = args;
  space_ = static_cast<float*>(workspace);
}

void MergeCpuPlan::enqueue(void* stream) const {
  auto& pool = *static_cast<ThreadPool*>(stream);
  if (pool.threads() > threads_) {
    throw Error(Code::INTERNAL, "attention_merge: the pool has " + std::to_string(pool.threads()) +
                                    " threads, expected at most " + std::to_string(threads_) + " as the plan");
  }
  const int64_t rows = args_.y.shape[0] * args_.y.shape[1] * args_.y.shape[2];
  const auto run = [this](int64_t begin, int64_t end, int thread) {
    for (int64_t row = begin; row < end; ++row) merge(row, space_ + thread * stride(args_));
  };
  if (rows * row_bytes() < kSerialBytes) return run(0, rows, 0);
  pool.parallel_for(rows, run, std::max<int64_t>(1, kTaskBytes / std::max<int64_t>(1, row_bytes())));
}

void MergeCpuPlan::merge(int64_t row, float* weights) const {
  const auto& [size, y_parts, lse_parts, y, lse] = args_;
  const int64_t parts = y_parts.shape[0], h = row % y.shape[2], i = row / y.shape[2] % y.shape[1];
  const int64_t b = row / y.shape[2] / y.shape[1];
  const float* from = static_cast<const float*>(lse_parts.data) + b * lse_parts.stride[1] + h * lse_parts.stride[2] +
                      i * lse_parts.stride[3];
  float top = kNone;
  for (int64_t n = 0; n < parts; ++n) {
    const float value = from[n * lse_parts.stride[0]];
    if (value > top || std::isnan(value)) top = value;
  }
  float sum = 0;
  for (int64_t n = 0; n < parts; ++n) {
    const float value = from[n * lse_parts.stride[0]];
    weights[n] = value == kNone ? 0 : std::exp(value - top);
    sum += weights[n];
  }
  const bool empty = top == kNone;
  static_cast<float*>(lse.data)[b * lse.stride[0] + h * lse.stride[1] + i * lse.stride[2]] =
      empty ? kNone : static_cast<float>(double{top} + std::log(double{sum}));
  const auto start = [&](const TensorView& t, int first) {
    const int64_t at = b * t.stride[first] + i * t.stride[first + 1] + h * t.stride[first + 2];
    return static_cast<char*>(t.data) + at * bits(t.dtype) / 8;
  };
  kernel_({.y = start(y, 0),
           .y_dtype = y.dtype,
           .dtype = y_parts.dtype,
           .parts = parts == 0 ? nullptr : start(y_parts, 1),
           .step = y_parts.stride[0] * bits(y_parts.dtype) / 8,
           .weights = weights,
           .count = parts,
           .columns = y.shape[3],
           .divisor = empty ? 1 : sum});
}

std::string MergeCpuPlan::explain() const {
  std::ostringstream json;
  json << R"({"variant":"attention_merge_cpu_)" << name(std::min(isa_, Isa::avx512)) << R"(","threads":)" << threads_
       << R"(,"reason":"every part is read once, in place"})";
  return json.str();
}

}  // namespace

const kw_op& attention_merge() {
  static constexpr kw_op op = make_op<AttentionMergeArgs, MergeCpuPlan>("attention_merge");
  return op;
}

}  // namespace kw::cpu
