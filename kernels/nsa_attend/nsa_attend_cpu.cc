// nsa_attend on the CPU: attention over pages (../attention_gqa_paged/attention_gqa_paged_cpu.h) whose pages are the blocks, where a query
// and its table are a request. Ascending blocks make that exact: only the last one can reach past what a query sees. Queries of one
// key head, 512 at a time, are a problem of their own; a step of single queries takes all sequences at once, split over their keys.
//
// Prediction for a core of 215 GFLOP/s (f32 multiply-adds): 64 / 4 heads of 128 and 16 blocks of 64 are 33.6 MFLOP a token from a cache, 0.3 ms
// where few rows run at half of the peak, and as many tokens cost as much each: 33 s of one core for 64k tokens, whatever came before them.
#include <algorithm>
#include <cstdint>
#include <string>

#include "../attention_gqa/attention_gqa_cpu_engine.h"
#include "../core/plan.h"
#include "nsa_attend_shape.h"

namespace kw::cpu {
namespace {

constexpr const char* kWhere = "nsa_attend";
constexpr int64_t kQueries = 512;  // of a problem

class NsaAttendCpuPlan {
 public:
  static std::string declines(const NsaAttendArgs& args, const kw_device_info&) {
    AttentionGqaArgs whole;
    whole.q = args.q, whole.k = args.k, whole.v = args.v, whole.y = args.y, whole.lse = args.lse;
    return AttentionCpuEngine::declines(kWhere, whole);
  }
  NsaAttendCpuPlan(const NsaAttendArgs& args, const kw_device_info& device)
      : engine_(kWhere, problem(args, Part{.queries = requests(args)}), device, true, "", args.q.shape[1] == 1 ? 0 : 1),
        numbers_(numbers(args)) {}
  uint64_t workspace() const { return engine_.workspace() + static_cast<uint64_t>(numbers_) * sizeof(int32_t); }
  void rebind(const NsaAttendArgs& args, void* workspace) {
    if (numbers(args) > numbers_) {
      throw Error(Code::SHAPE, "nsa_attend: queries and entries of blocks are " + std::to_string(numbers(args)) +
                                   ", expected at most " + std::to_string(numbers_) + " as when the plan was made");
    }
    args_ = args;
    lens_ = static_cast<int32_t*>(workspace);
    space_ = lens_ + numbers_;
    engine_.rebind(problem(args, Part{.queries = requests(args)}), space_, {});
  }
  void enqueue(void* stream);
  std::string explain() const { return engine_.explain(); }

 private:
  // Queries of one key head that are a problem together: of one sequence from `first` on, or one of each from `batch` on.
  struct Part {
    int64_t head = 0, batch = 0, first = 0, queries = 0;
  };

  static int64_t pages_between(const NsaAttendArgs&);
  // Single queries, of which those of all sequences are one problem.
  static bool steps(const NsaAttendArgs& a) { return a.q.shape[1] == 1 && pages_between(a) >= 0; }
  static int64_t requests(const NsaAttendArgs& a) {
    return std::min(kQueries, a.q.shape[1] == 1 ? a.q.shape[0] : a.q.shape[1]);
  }
  // Lengths and tables of a problem, whole cache lines.
  static int64_t numbers(const NsaAttendArgs& a) { return (requests(a) * (1 + a.blocks.shape[3]) + 15) / 16 * 16; }

  static AttentionGqaArgs problem(const NsaAttendArgs&, const Part&);
  void attend(const Part&, const NsaAttendLengths&, void* stream, std::string& wrong);

  AttentionCpuEngine engine_;
  int64_t numbers_;
  NsaAttendArgs args_;
  int32_t* lens_ = nullptr;
  int32_t* space_ = nullptr;
};

// Blocks from the beginning of a sequence to that of the next, in k and in v alike; -1 where these are no whole number.
int64_t NsaAttendCpuPlan::pages_between(const NsaAttendArgs& a) {
  if (a.q.shape[0] <= 1) return 0;
  int64_t found[2], n = 0;
  for (const TensorView* t : {static_cast<const TensorView*>(&a.k), static_cast<const TensorView*>(&a.v)}) {
    const int64_t page = a.block * t->stride[1];
    if (page <= 0 || t->stride[0] % page != 0) return -1;
    found[n++] = t->stride[0] / page;
  }
  return found[0] == found[1] ? found[0] : -1;
}

// The arguments of attention_gqa for a part, without lengths.
AttentionGqaArgs NsaAttendCpuPlan::problem(const NsaAttendArgs& a, const Part& part) {
  const int64_t group = a.k.shape[2] ? a.q.shape[2] / a.k.shape[2] : 0;
  const int along = steps(a) ? 0 : 1;  // the dimension that queries of the part follow each other in
  // First element of a part in a tensor [batch, rows, heads, columns].
  const auto at = [&](const TensorView& t, int64_t row, int64_t head) {
    const int64_t element = part.batch * t.stride[0] + row * t.stride[1] + head * t.stride[2];
    return static_cast<char*>(t.data) + element * element_bytes(t.dtype);
  };
  const auto queries = [&](const TensorView& t, TensorView& to) {
    to = t;
    to.data = at(t, part.first, part.head * group);
    to.shape[0] = part.queries, to.stride[0] = t.stride[along];
    to.shape[1] = 1, to.shape[2] = group;
  };
  const auto keys = [&](const TensorView& t, TensorView& to) {
    to = t;
    to.data = at(t, 0, part.head);
    to.shape[0] = part.queries, to.shape[1] = a.blocks.shape[3] * a.block, to.shape[2] = a.k.shape[2] ? 1 : 0;
  };
  AttentionGqaArgs to;
  queries(a.q, to.q), queries(a.y, to.y);
  keys(a.k, to.k), keys(a.v, to.v);
  static_cast<TensorView&>(to.lse) = a.lse;
  const int64_t lse = part.batch * a.lse.stride[0] + part.head * group * a.lse.stride[1] + part.first * a.lse.stride[2];
  to.lse.data = static_cast<float*>(a.lse.data) + lse;
  to.lse.shape[0] = part.queries, to.lse.stride[0] = a.lse.stride[steps(a) ? 0 : 2];
  to.lse.shape[1] = group, to.lse.shape[2] = 1;
  to.scale = a.scale;
  return to;
}

void NsaAttendCpuPlan::enqueue(void* stream) {
  const NsaAttendLengths lengths(args_);
  std::string wrong = lengths.wrong;
  const int64_t batch = args_.q.shape[0], len_q = args_.q.shape[1];
  for (int64_t g = 0; g < args_.k.shape[2]; ++g) {
    if (steps(args_)) {
      for (int64_t b = 0; b < batch; b += kQueries)
        attend({g, b, 0, std::min(kQueries, batch - b)}, lengths, stream, wrong);
    } else {
      for (int64_t n = 0; n < batch * len_q; n += std::min(kQueries, len_q - n % len_q))
        attend({g, n / len_q, n % len_q, std::min(kQueries, len_q - n % len_q)}, lengths, stream, wrong);
    }
  }
  if (!wrong.empty()) throw Error(Code::INDEX, wrong);
}

void NsaAttendCpuPlan::attend(const Part& part, const NsaAttendLengths& lengths, void* stream, std::string& wrong) {
  const TensorView& blocks = args_.blocks;
  const int64_t count = blocks.shape[3], reach = selected_reach(args_), size = args_.block;
  int32_t* table = lens_ + part.queries;
  const int64_t between = steps(args_) ? pages_between(args_) : 0;
  for (int64_t n = 0; n < part.queries; ++n) {
    const int64_t b = part.batch + (steps(args_) ? n : 0), i = part.first + (steps(args_) ? 0 : n);
    const int64_t visible = lengths.visible(args_, b, i);
    int64_t keys = 0;
    if (i < lengths.q[b]) {
      const SelectedRow row = selected_row(blocks, b, i, part.head, reach);
      if (row.wrong && wrong.empty()) wrong = selected_wrong(blocks, b, i, part.head, row);
      const int64_t from = b * blocks.stride[0] + i * blocks.stride[1] + part.head * blocks.stride[2];
      for (int64_t e = 0; e < row.count; ++e) {
        const int64_t block = static_cast<const int32_t*>(blocks.data)[from + e * blocks.stride[3]];
        keys += std::clamp<int64_t>(visible - block * size, 0, size);
        table[n * count + e] = static_cast<int32_t>(n * between + block);
      }
    }
    lens_[n] = static_cast<int32_t>(keys);
  }
  AttentionGqaArgs there = problem(args_, part);
  there.lens_kv = OptionalConstTensor{};
  there.lens_kv.data = lens_, there.lens_kv.dtype = DType::i32;
  there.lens_kv.rank = 1, there.lens_kv.shape[0] = part.queries, there.lens_kv.stride[0] = 1;
  engine_.rebind(there, space_,
                 {.table = table,
                  .table_batch = count,
                  .table_entry = 1,
                  .size = size,
                  .count = (part.queries - 1) * between + reach,
                  .step_k = size * args_.k.stride[1],
                  .step_v = size * args_.v.stride[1]});
  engine_.enqueue(stream);
}

}  // namespace

const kw_op& nsa_attend() {
  static constexpr kw_op op = make_op<NsaAttendArgs, NsaAttendCpuPlan>("nsa_attend");
  return op;
}

}  // namespace kw::cpu
