// rope on the CPU: a task is a run of tokens, or of heads where tokens are few. The angles of a token are made once for its heads.
// Memory-bound, every element read and written once.
//
// Sources, one object each, with what they are compiled for (all but the first two on x86-64 only):
//   rope_cpu.cc, rope_cpu_generic.cc   -O3
//   rope_cpu_avx2.cc                   -O3 -mavx2 -mfma -mf16c
//   rope_cpu_avx512.cc                 -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
#include "rope_cpu.h"

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>

#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/plan.h"
#include "../core/threads.h"
#include "rope.h"
#include "rope_turns.h"

namespace kw::cpu {
namespace {

constexpr int64_t kTaskBytes = 64 << 10;    // of x, about
constexpr int64_t kSerialBytes = 32 << 10;  // below which waking a thread costs more than it brings
constexpr int64_t kHeads = 8;               // of a task: the angles are then a tenth of its work

class RopeCpuPlan {
 public:
  static std::string declines(const RopeArgs&, const kw_device_info&);
  RopeCpuPlan(const RopeArgs& args, const kw_device_info& device)
      : threads_(std::max(1, device.sm_count)),
        isa_(static_cast<Isa>(device.isa)),
        kernels_(rope_kernels(isa_)),
        capacity_(rotary_columns(args, args.x.shape[3]) / 2) {}
  uint64_t workspace() const { return static_cast<uint64_t>(threads_ * 3 * rope_line(capacity_)) * sizeof(float); }
  void rebind(const RopeArgs& args, void* workspace);
  void enqueue(void* stream) const;
  std::string explain() const;

 private:
  int64_t pairs() const { return static_cast<int64_t>(turns_.turns.size()); }
  void turn(int64_t token, int64_t head_begin, int64_t head_end, float* space) const;

  int threads_;
  Isa isa_;
  const RopeKernels& kernels_;
  int64_t capacity_;  // pairs that the workspace has room for
  RopeTurns turns_;
  RopeArgs args_;
  float* space_ = nullptr;
};

std::string RopeCpuPlan::declines(const RopeArgs& args, const kw_device_info&) {
  const std::pair<const char*, const TensorView&> tensors[] = {{"x", args.x}, {"y", args.y}};
  for (const auto& [name, t] : tensors) {
    if (!is_float(t.dtype))
      return std::string("rope: ") + name + " is " + kw::name(t.dtype) + ", expected f32, f16 or bf16";
    if (t.dim(-1) > 1 && t.step(-1) != 1) {
      return std::string("rope: last dimension of ") + name + " has stride " + std::to_string(t.step(-1)) +
             ", expected 1";
    }
  }
  return "";
}

void RopeCpuPlan::rebind(const RopeArgs& args, void* workspace) {
  const int64_t pairs = rotary_columns(args, args.x.shape[3]) / 2;
  if (pairs > capacity_) {
    throw Error(Code::SHAPE, "rope: pairs that turn are " + std::to_string(pairs) + ", expected at most " +
                                 std::to_string(capacity_) + " as when the plan was made");
  }
  turns_ = rope_turns(args, args.x.shape[3]);
  args_ = args;
  space_ = static_cast<float*>(workspace);
}

void RopeCpuPlan::enqueue(void* stream) const {
  auto& pool = *static_cast<ThreadPool*>(stream);
  if (pool.threads() > threads_) {
    throw Error(Code::INTERNAL, "rope: the pool has " + std::to_string(pool.threads()) + " threads, expected at most " +
                                    std::to_string(threads_) + " as the plan");
  }
  const int64_t heads = args_.x.shape[2], groups = (heads + kHeads - 1) / kHeads;
  const int64_t items = args_.x.shape[0] * args_.x.shape[1] * groups;
  const int64_t bytes = std::max<int64_t>(1, std::min(heads, kHeads) * args_.x.shape[3] * bits(args_.x.dtype) / 8);
  // Neighbouring groups of a token share its angles.
  const auto run = [&](int64_t begin, int64_t end, int thread) {
    float* space = space_ + thread * 3 * rope_line(pairs());
    while (begin < end) {
      const int64_t token = begin / groups, last = std::min(end, (token + 1) * groups);
      turn(token, begin % groups * kHeads, std::min(heads, (last - token * groups) * kHeads), space);
      begin = last;
    }
  };
  if (items * bytes < kSerialBytes) return run(0, items, 0);
  pool.parallel_for(items, run, std::max<int64_t>(1, kTaskBytes / bytes));
}

void RopeCpuPlan::turn(int64_t token, int64_t head_begin, int64_t head_end, float* space) const {
  const TensorView &x = args_.x, &y = args_.y, &positions = args_.positions;
  const int64_t b = token / x.shape[1], i = token % x.shape[1], line = rope_line(pairs());
  const RopeAngles angles{
      .turns = turns_.turns.data(),
      .pairs = pairs(),
      .position = positions.present()
                      ? static_cast<const int32_t*>(positions.data)[b * positions.stride[0] + i * positions.stride[1]]
                      : args_.position + i,
      .factor = turns_.factor,
      .interleaved = args_.interleaved,
      .cos = space,
      .sin = space + line,
      .space = reinterpret_cast<uint32_t*>(space + 2 * line)};
  kernels_.angles(angles);
  const auto at = [&](const TensorView& t, int64_t h) {
    return static_cast<char*>(t.data) + (b * t.stride[0] + i * t.stride[1] + h * t.stride[2]) * bits(t.dtype) / 8;
  };
  for (int64_t h = head_begin; h < head_end; ++h) {
    kernels_.row({.y = at(y, h),
                  .x = at(x, h),
                  .y_dtype = y.dtype,
                  .dtype = x.dtype,
                  .pairs = pairs(),
                  .columns = x.shape[3],
                  .interleaved = args_.interleaved,
                  .cos = angles.cos,
                  .sin = angles.sin,
                  .divisor = 1});
  }
}

std::string RopeCpuPlan::explain() const {
  std::ostringstream json;
  json << R"({"variant":"rope_cpu_)" << name(std::min(isa_, Isa::avx512)) << R"(","threads":)" << threads_
       << R"(,"pairs":)" << pairs() << R"(,"reason":"the angles of a token are made once for its heads"})";
  return json.str();
}

}  // namespace

const kw_op& rope() {
  static constexpr kw_op op = make_op<RopeArgs, RopeCpuPlan>("rope");
  return op;
}

}  // namespace kw::cpu
