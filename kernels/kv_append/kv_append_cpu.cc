// kv_append on the CPU: the places of all rows first, by one thread, then a task is a run of rows. Rows are turned and rounded by
// the kernels of rope (rope_cpu_<isa>.cc). Memory-bound.
#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>

#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/plan.h"
#include "../core/threads.h"
#include "../rope/rope_cpu.h"
#include "../rope/rope_turns.h"
#include "kv_append.h"
#include "kv_append_places.h"

namespace kw::cpu {
namespace {

constexpr int64_t kTaskBytes = 64 << 10;    // of k and v, about
constexpr int64_t kSerialBytes = 32 << 10;  // below which waking a thread costs more than it brings

struct Row {
  int64_t b, i, t, place;
};

class KvAppendCpuPlan {
 public:
  static std::string declines(const KvAppendArgs&, const kw_device_info&);
  KvAppendCpuPlan(const KvAppendArgs& args, const kw_device_info& device)
      : threads_(std::max(1, device.sm_count)),
        isa_(static_cast<Isa>(device.isa)),
        kernels_(rope_kernels(isa_)),
        capacity_(bytes_for(args)) {}
  uint64_t workspace() const { return capacity_; }
  void rebind(const KvAppendArgs& args, void* workspace);
  void enqueue(void* stream) const;
  std::string explain() const;

 private:
  static int64_t pairs_of(const KvAppendArgs& args) {
    return args.rope ? rotary_columns(args, args.k.shape[3]) / 2 : 0;
  }
  static int64_t row_bytes(const KvAppendArgs& args) {
    return (args.k.shape[3] + args.v.shape[3]) * args.k.shape[2] * bits(args.k.dtype) / 8;
  }
  // Angles of every thread, then the rows.
  int64_t angle_floats(const KvAppendArgs& args) const { return threads_ * 3 * rope_line(pairs_of(args)); }
  uint64_t bytes_for(const KvAppendArgs& args) const {
    return static_cast<uint64_t>(angle_floats(args)) * sizeof(float) +
           static_cast<uint64_t>(args.k.shape[0] * args.k.shape[1]) * sizeof(Row);
  }
  void put(const Row& row, float* space) const;

  int threads_;
  Isa isa_;
  const RopeKernels& kernels_;
  uint64_t capacity_;
  RopeTurns turns_;
  KvAppendArgs args_;
  float* space_ = nullptr;
};

std::string KvAppendCpuPlan::declines(const KvAppendArgs& args, const kw_device_info&) {
  const struct {
    const char* name;
    const TensorView& view;
    bool f8;  // of the float types, or f8e4m3 as well
  } tensors[] = {
      {"k", args.k, false}, {"v", args.v, false}, {"k_cache", args.k_cache, true}, {"v_cache", args.v_cache, true}};
  for (const auto& [name, t, f8] : tensors) {
    if (!is_float(t.dtype) && !(f8 && t.dtype == DType::f8e4m3)) {
      return std::string("kv_append: ") + name + " is " + kw::name(t.dtype) + ", expected f32, f16" +
             (f8 ? ", bf16 or f8e4m3" : " or bf16");
    }
    if (t.dim(-1) > 1 && t.step(-1) != 1) {
      return std::string("kv_append: last dimension of ") + name + " has stride " + std::to_string(t.step(-1)) +
             ", expected 1";
    }
  }
  return "";
}

void KvAppendCpuPlan::rebind(const KvAppendArgs& args, void* workspace) {
  if (bytes_for(args) > capacity_) {
    throw Error(Code::SHAPE, "kv_append: workspace is " + std::to_string(capacity_) + " bytes, expected " +
                                 std::to_string(bytes_for(args)) + " for the shape bound now");
  }
  turns_ = args.rope ? rope_turns(args, args.k.shape[3]) : RopeTurns{};
  args_ = args;
  space_ = static_cast<float*>(workspace);
}

void KvAppendCpuPlan::enqueue(void* stream) const {
  auto& pool = *static_cast<ThreadPool*>(stream);
  if (pool.threads() > threads_) {
    throw Error(Code::INTERNAL, "kv_append: the pool has " + std::to_string(pool.threads()) +
                                    " threads, expected at most " + std::to_string(threads_) + " as the plan");
  }
  const int64_t bytes = std::max<int64_t>(1, row_bytes(args_)), line = 3 * rope_line(pairs_of(args_));
  Row* rows = reinterpret_cast<Row*>(space_ + angle_floats(args_));
  int64_t count = 0;
  const std::string wrong = kv_append_places(args_, [&](int64_t b, int64_t i, int64_t t, int64_t place) {
    rows[count++] = {b, i, t, place};
  });
  const auto run = [&](int64_t begin, int64_t end, int thread) {
    for (int64_t n = begin; n < end; ++n) put(rows[n], space_ + thread * line);
  };
  if (count * bytes < kSerialBytes)
    run(0, count, 0);
  else
    pool.parallel_for(count, run, std::max<int64_t>(1, kTaskBytes / bytes));
  if (!wrong.empty()) throw Error(Code::INDEX, wrong);
}

void KvAppendCpuPlan::put(const Row& row, float* space) const {
  const int64_t line = rope_line(pairs_of(args_)), slots = args_.k_cache.shape[1];
  const RopeAngles angles{.turns = turns_.turns.data(),
                          .pairs = static_cast<int64_t>(turns_.turns.size()),
                          .position = row.t,
                          .factor = turns_.factor,
                          .interleaved = args_.interleaved,
                          .cos = space,
                          .sin = space + line,
                          .space = reinterpret_cast<uint32_t*>(space + 2 * line)};
  if (angles.pairs > 0) kernels_.angles(angles);
  const auto at = [](const TensorView& t, int64_t i, int64_t j, int64_t h) {
    return static_cast<char*>(t.data) + (i * t.stride[0] + j * t.stride[1] + h * t.stride[2]) * bits(t.dtype) / 8;
  };
  const auto append = [&](const TensorView& from, const TensorView& cache, const TensorView& scale, int64_t pairs) {
    for (int64_t h = 0; h < from.shape[2]; ++h) {
      kernels_.row({.y = at(cache, row.place / slots, row.place % slots, h),
                    .x = at(from, row.b, row.i, h),
                    .y_dtype = cache.dtype,
                    .dtype = from.dtype,
                    .pairs = pairs,
                    .columns = from.shape[3],
                    .interleaved = args_.interleaved,
                    .cos = angles.cos,
                    .sin = angles.sin,
                    .divisor = scale.present() ? static_cast<const float*>(scale.data)[h * scale.stride[0]] : 1});
    }
  };
  append(args_.k, args_.k_cache, args_.k_scale, angles.pairs);
  append(args_.v, args_.v_cache, args_.v_scale, 0);
}

std::string KvAppendCpuPlan::explain() const {
  std::ostringstream json;
  json << R"({"variant":"kv_append_cpu_)" << name(std::min(isa_, Isa::avx512)) << R"(","threads":)" << threads_
       << R"(,"pairs":)" << turns_.turns.size()
       << R"(,"reason":"rows are turned and rounded on their way to their pages"})";
  return json.str();
}

}  // namespace

const kw_op& kv_append() {
  static constexpr kw_op op = make_op<KvAppendArgs, KvAppendCpuPlan>("kv_append");
  return op;
}

}  // namespace kw::cpu
