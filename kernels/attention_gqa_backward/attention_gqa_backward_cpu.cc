// attention_gqa_backward on the CPU: how a problem is cut into tasks, and the plan behind kw_op.
//
// The keys of a sequence are cut into at most four runs of 512 or more. A task is a run of one key head: it goes over the rows that
// read it in blocks of 128, (query, head of the group) numbered as in the forward, packs them once, and goes over the run's keys in
// tiles of 128. Scores and gradients of weights are made for each panel of rows, then dk and dv of the tile, summed in registers
// over the block's panels, and dq of the block. A task has its dk and dv to itself; each run's part of dq goes to the
// workspace, and a last pass adds the parts in order. Before all, D of the contract is made for every row.
//
// A bias that batches or heads share makes one task of all that share it, so that its gradient has one order too.
//
// Prediction for a core of 215 GFLOP/s (f32 multiply-adds): 2.5 times the forward's products and as many exponentials, so 2.3 to 2.6
// times its time; 32 / 8 heads of 128, causal, 1024 tokens are 21.5 GFLOP, 100 ms and a tenth more. Measured on one core of a Xeon
// (AVX-512): 178 ms in f32 and 167 ms in bf16, 2.7 times the forward beside it; 16 heads of 64 and 128, 1024 tokens, both types,
// causal or not: 2.6 to 2.8 times by compare() on two cores (the forward itself runs at 130 to 150 GFLOP/s there).
//
// Sources, one object each, with what they are compiled for (all but the first two on x86-64 only):
//   attention_gqa_backward_cpu.cc, attention_gqa_backward_cpu_generic.cc   -O3
//   attention_gqa_backward_cpu_avx2.cc        -O3 -mavx2 -mfma -mf16c
//   attention_gqa_backward_cpu_avx512.cc      -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
//   attention_gqa_backward_cpu_avx512bf16.cc  the same and -mavx512bf16
#include "attention_gqa_backward_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "../attention_gqa/attention_gqa_cpu_checks.h"
#include "../attention_gqa/attention_gqa_cpu_rows.h"
#include "../attention_gqa/attention_gqa_cpu_sets.h"
#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/plan.h"
#include "../core/threads.h"

namespace kw::cpu {
namespace {

constexpr int64_t kBlockRows = 128, kTileKeys = 128;
constexpr int64_t kRunKeys = 512, kMostRuns = 4;  // of a sequence: at least so many keys, at most so many runs
constexpr double kSerialWork = 200e3;             // FLOPs below which waking a thread costs more than it brings
constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr KernelSets<BackwardKernels> kSets = {
    kBackwardGeneric,
#if defined(__x86_64__)
    kBackwardAvx2,
    kBackwardAvx512,
    &kBackwardAvx512Bf16,
#endif
};

int64_t run_keys(int64_t len_kv) { return std::max(kRunKeys, round_up(ceil_div(len_kv, kMostRuns), kTileKeys)); }
int64_t runs_of(int64_t len_kv) { return std::max<int64_t>(1, ceil_div(len_kv, run_keys(len_kv))); }

class BackwardCpuPlan {
 public:
  static std::string declines(const AttentionGqaBackwardArgs&, const kw_device_info&);
  static std::vector<std::string> configurations(const AttentionGqaBackwardArgs& args, const kw_device_info& device) {
    return kSets.configurations(static_cast<Isa>(device.isa), args.q.dtype, false);
  }
  BackwardCpuPlan(const AttentionGqaBackwardArgs&, const kw_device_info&, const std::string& configuration = "");
  uint64_t workspace() const { return static_cast<uint64_t>(capacity_) * sizeof(float); }
  void rebind(const AttentionGqaBackwardArgs&, void* workspace);
  void enqueue(void* stream);
  std::string explain() const;

 private:
  // One thread's part of the workspace.
  struct Scratch {
    BackwardRows* panels;
    float *q, *dy, *q_columns, *dy_columns, *k, *v, *k_columns;
    float *dq, *dk, *dv, *p, *ds, *p_along, *ds_along, *products;
  };
  // What the threads share: per row of q lse and D, the runs' parts of dq, and a bias's gradient that is added up.
  struct Shared {
    float *lse, *delta, *dq, *dbias;
  };
  // Sequences and key heads of a task, which has one run of each.
  struct Task {
    int64_t sequence, sequences, head, heads, run;
  };

  void resolve_sizes(const AttentionGqaBackwardArgs&);
  template <class Take>
  Scratch take_scratch(Take take) const;
  template <class Take>
  Shared take_shared(Take take) const;
  int64_t floats() const;

  bool shared_bias() const { return serial_heads_ || serial_batches_; }
  int64_t row_index(int64_t batch, int64_t head, int64_t row) const {
    return (batch * shape_.heads_q + head) * shape_.len_q + row;
  }
  float at3(const TensorView& t, int64_t batch, int64_t head, int64_t row) const {
    return static_cast<const float*>(t.data)[batch * t.stride[0] + head * t.stride[1] + row * t.stride[2]];
  }
  // A run's part of dq: row `row` of a key head's, (query of the batch, head of the group).
  float* part(int64_t run, int64_t batch, int64_t head, int64_t row) const {
    const int64_t rows = shape_.len_q * shape_.group;
    return shared_.dq + (((run * shape_.batch + batch) * shape_.heads_kv + head) * rows + row) * stride_;
  }
  int64_t runs(const AttentionSequence& s) const { return serial_batches_ ? runs_ : runs_of(s.len_kv); }
  int64_t keys_of_run(const AttentionSequence& s) const { return run_keys(serial_batches_ ? shape_.len_kv : s.len_kv); }

  void prepare(int64_t begin, int64_t end) const;
  void clear() const;
  void run(const Task&, const Scratch&) const;
  void run(const AttentionSequence&, int64_t head, int64_t number, const Scratch&) const;
  void go_over(const AttentionSequence&, int64_t head, int64_t row, int64_t count, AttentionRange keys,
               const Scratch&) const;
  void set_panel(BackwardRows&, const AttentionSequence&, int64_t head, int64_t row, int64_t count) const;
  void merge(const AttentionSequence&, int64_t head) const;
  void finish_bias(int64_t row) const;
  void sum_sink(int64_t head) const;

  int threads_;
  const BackwardKernels& kernels_;
  AttentionGqaBackwardArgs args_;
  AttentionGqaArgs forward_;
  AttentionShape shape_;
  int64_t cells_ = 0, cells_v_ = 0;    // of a key
  int64_t stride_ = 0, stride_v_ = 0;  // between rows of sums
  int64_t run_rows_ = 0;               // keys of a run, at most
  int64_t runs_ = 0;                   // of a sequence, at most
  bool biased_ = false, serial_heads_ = false, serial_batches_ = false;
  int64_t capacity_ = 0;
  AttentionScoring scoring_{};
  float* space_ = nullptr;
  Shared shared_{};
  std::vector<AttentionSequence> sequences_;
};

std::string BackwardCpuPlan::declines(const AttentionGqaBackwardArgs& args, const kw_device_info&) {
  using enum CheckedTensor::Kind;
  const CheckedTensor tensors[] = {
      {"q", args.q, floats},      {"k", args.k, like_q},       {"v", args.v, like_q},
      {"y", args.y, floats},      {"lse", args.lse, f32},      {"dy", args.dy, like_q},
      {"dlse", args.dlse, f32},   {"bias", args.bias, floats}, {"mask", args.mask, flags},
      {"alibi", args.alibi, f32}, {"sink", args.sink, f32},    {"dq", args.dq, floats},
      {"dk", args.dk, floats},    {"dv", args.dv, floats},     {"dbias", args.dbias, floats},
      {"dsink", args.dsink, f32}};
  const std::string where = "attention_gqa_backward", reason = declines_tensors(where, tensors, args.q.dtype);
  return reason.empty() ? declines_length(where, "k", args.k.shape[1], kTileKeys) : reason;
}

BackwardCpuPlan::BackwardCpuPlan(const AttentionGqaBackwardArgs& args, const kw_device_info& device,
                                 const std::string& configuration)
    : threads_(std::max(1, device.sm_count)),
      kernels_(kSets.of("attention_gqa_backward", static_cast<Isa>(device.isa), args.q.dtype, false, configuration)) {
  resolve_sizes(args);
  capacity_ = floats();
}

void BackwardCpuPlan::resolve_sizes(const AttentionGqaBackwardArgs& args) {
  args_ = args;
  forward_ = forward_of(args);
  shape_ = resolve(forward_);
  cells_ = ceil_div(shape_.dim, kernels_.per_cell), cells_v_ = ceil_div(shape_.dim_v, kernels_.per_cell);
  stride_ = round_up(shape_.dim, 64), stride_v_ = round_up(shape_.dim_v, 64);
  run_rows_ = std::min(run_keys(shape_.len_kv), round_up(shape_.len_kv, kTileKeys));
  runs_ = runs_of(shape_.len_kv);
  biased_ = args.bias.present() && args.dbias.count() > 0;
  serial_heads_ = biased_ && args.bias.shape[1] == 1 && shape_.heads_q > 1;
  serial_batches_ = biased_ && args.bias.shape[0] == 1 && shape_.sequences > 1;
  scoring_ = scoring_of(forward_);
}

// take(floats) gives each part its place, whole cache lines.
template <class Take>
BackwardCpuPlan::Scratch BackwardCpuPlan::take_scratch(Take take) const {
  const int64_t panels = kBlockRows / kernels_.rows, pairs = kernels_.per_cell == 2 ? 1 : 0;
  const int64_t slab = kTileKeys / kernels_.per_cell, scores = kBlockRows * kTileKeys;
  Scratch s;
  s.panels = reinterpret_cast<BackwardRows*>(take(panels * static_cast<int64_t>(sizeof(BackwardRows) / sizeof(float))));
  s.q = take(kBlockRows * cells_), s.dy = take(kBlockRows * cells_v_);
  s.q_columns = take(slab * stride_), s.dy_columns = take(slab * stride_v_);
  s.k = take(kTileKeys * cells_), s.v = take(kTileKeys * cells_v_), s.k_columns = take(slab * stride_);
  s.dq = take(kBlockRows * stride_), s.dk = take(run_rows_ * stride_), s.dv = take(run_rows_ * stride_v_);
  s.p = take(scores), s.ds = take(scores), s.p_along = take(pairs * scores / 2), s.ds_along = take(pairs * scores / 2);
  s.products = take(scoring_.softcap != 0 ? kTileKeys * kernels_.rows : 0);
  return s;
}

template <class Take>
BackwardCpuPlan::Shared BackwardCpuPlan::take_shared(Take take) const {
  const int64_t rows = shape_.batch * shape_.heads_q * shape_.len_q;
  Shared s;
  s.lse = take(rows), s.delta = take(rows);
  s.dq = take(runs_ > 1 ? runs_ * rows * stride_ : 0);
  s.dbias = take(shared_bias() ? args_.dbias.count() : 0);
  return s;
}

int64_t BackwardCpuPlan::floats() const {
  int64_t each = 0, shared = 0;
  const auto count = [](int64_t& total) {
    return [&total](int64_t n) -> float* {
      total += round_up(n, 16);
      return nullptr;
    };
  };
  take_scratch(count(each)), take_shared(count(shared));
  return threads_ * each + shared;
}

void BackwardCpuPlan::rebind(const AttentionGqaBackwardArgs& args, void* workspace) {
  resolve_sizes(args);
  if (floats() > capacity_) {
    throw Error(Code::SHAPE, "attention_gqa_backward: workspace is " + std::to_string(capacity_ * 4) +
                                 " bytes, expected " + std::to_string(floats() * 4) + " for the shape bound now");
  }
  space_ = static_cast<float*>(workspace);
}

void BackwardCpuPlan::enqueue(void* stream) {
  auto& pool = *static_cast<ThreadPool*>(stream);
  if (pool.threads() > threads_) {
    throw Error(Code::INTERNAL, "attention_gqa_backward: the pool has " + std::to_string(pool.threads()) +
                                    " threads, expected at most " + std::to_string(threads_) + " as the plan");
  }
  sequences_.clear();  // the lengths may change from call to call
  double work = 0;
  for (int64_t n = 0; n < shape_.sequences; ++n) {
    const AttentionSequence s = attention_sequence(forward_, shape_, n, "attention_gqa_backward");
    sequences_.push_back(s);
    work += static_cast<double>(s.len_q * s.len_kv * shape_.heads_q) * 10.0 * static_cast<double>(shape_.dim);
  }
  float* next = space_;
  const auto take = [&next](int64_t n) { return std::exchange(next, next + round_up(n, 16)); };
  shared_ = take_shared(take);
  std::vector<Scratch> scratch;
  for (int thread = 0; thread < threads_; ++thread) scratch.push_back(take_scratch(take));
  const auto each = [&](int64_t n, int64_t grain, auto fn) {
    if (n == 0) return;
    if (work < kSerialWork) return fn(int64_t{0}, n, 0);
    pool.parallel_for(n, fn, grain);
  };

  clear();
  each(static_cast<int64_t>(sequences_.size()) * shape_.heads_q, 1,
       [&](int64_t begin, int64_t end, int) { prepare(begin, end); });
  // The first run of a causal sequence is read by all rows: longest first.
  const int64_t sequences = shape_.sequences, heads = shape_.heads_kv;
  const int64_t groups = serial_batches_ ? std::min<int64_t>(1, sequences) : sequences;
  const int64_t lanes = serial_heads_ ? std::min<int64_t>(1, heads) : heads;
  each(runs_ * groups * lanes, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t lane = n % lanes, group = n / lanes % groups;
      run({group, serial_batches_ ? sequences : 1, lane, serial_heads_ ? heads : 1, n / lanes / groups},
          scratch[thread]);
    }
  });
  if (runs_ > 1) {
    each(sequences * heads, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t n = begin; n < end; ++n) merge(sequences_[n / heads], n % heads);
    });
  }
  if (shared_bias()) {
    each(args_.dbias.count() / std::max<int64_t>(1, shape_.len_kv), 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) finish_bias(row);
    });
  }
  for (int64_t h = 0; h < args_.dsink.count(); ++h) sum_sink(h);
}

// Zeros where no task writes: rows and keys of no sequence, and all of the bias's gradient.
void BackwardCpuPlan::clear() const {
  const auto rows = [](const TensorView& t, int64_t batch, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t h = 0; h < t.shape[2]; ++h)
        std::memset(at(t, batch, row, h), 0, t.shape[3] * element_bytes(t.dtype));
    }
  };
  int64_t row = 0, key = 0;
  for (const AttentionSequence& s : sequences_) {
    if (!shape_.packed) row = key = 0;
    rows(args_.dq, s.batch, row, s.q0), rows(args_.dk, s.batch, key, s.kv0), rows(args_.dv, s.batch, key, s.kv0);
    row = s.q0 + s.len_q, key = s.kv0 + s.len_kv;
    if (shape_.packed) continue;
    rows(args_.dq, s.batch, row, shape_.len_q);
    rows(args_.dk, s.batch, key, shape_.len_kv), rows(args_.dv, s.batch, key, shape_.len_kv);
  }
  if (shape_.packed) {
    rows(args_.dq, 0, row, shape_.len_q);
    rows(args_.dk, 0, key, shape_.len_kv), rows(args_.dv, 0, key, shape_.len_kv);
  }
  if (shared_bias()) {
    std::memset(shared_.dbias, 0, args_.dbias.count() * sizeof(float));
  } else if (biased_) {
    for (int64_t b = 0; b < args_.dbias.shape[0]; ++b) {
      for (int64_t h = 0; h < args_.dbias.shape[1]; ++h) {
        for (int64_t i = 0; i < shape_.len_q; ++i)
          std::memset(at(args_.dbias, b, h, i), 0, shape_.len_kv * element_bytes(args_.dbias.dtype));
      }
    }
  }
}

// lse and D of the rows of sequence n / heads_q, head n % heads_q.
void BackwardCpuPlan::prepare(int64_t begin, int64_t end) const {
  for (int64_t n = begin; n < end; ++n) {
    const AttentionSequence& s = sequences_[n / shape_.heads_q];
    const int64_t h = n % shape_.heads_q;
    for (int64_t row = s.q0; row < s.q0 + s.len_q; ++row) {
      const int64_t index = row_index(s.batch, h, row);
      const float lse = at3(args_.lse, s.batch, h, row);
      shared_.lse[index] = lse == -kInfinity ? kInfinity : lse;
      shared_.delta[index] = kernels_.dot(at(args_.dy, s.batch, row, h), args_.dy.dtype, at(args_.y, s.batch, row, h),
                                          args_.y.dtype, shape_.dim_v);
      if (args_.dlse.present()) shared_.delta[index] -= at3(args_.dlse, s.batch, h, row);
    }
  }
}

void BackwardCpuPlan::run(const Task& task, const Scratch& scratch) const {
  for (int64_t n = task.sequence; n < task.sequence + task.sequences; ++n) {
    if (task.run >= runs(sequences_[n])) continue;
    for (int64_t h = task.head; h < task.head + task.heads; ++h) run(sequences_[n], h, task.run, scratch);
  }
}

// A run of keys of one key head: its dk and dv, and its part of dq.
void BackwardCpuPlan::run(const AttentionSequence& s, int64_t head, int64_t number, const Scratch& scratch) const {
  const int64_t size = keys_of_run(s);
  const AttentionRange keys{std::min(number * size, s.len_kv), std::min((number + 1) * size, s.len_kv)};
  const int64_t count = keys.end - keys.begin, rows = s.len_q * shape_.group;
  std::memset(scratch.dk, 0, count * stride_ * sizeof(float));
  std::memset(scratch.dv, 0, count * stride_v_ * sizeof(float));
  const bool whole = runs_ == 1;
  for (int64_t row = 0; row < rows; row += kBlockRows) {
    const int64_t block = std::min(kBlockRows, rows - row);
    std::memset(scratch.dq, 0, block * stride_ * sizeof(float));
    go_over(s, head, row, block, keys, scratch);
    if (!whole) {
      std::memcpy(part(number, s.batch, head, s.q0 * shape_.group + row), scratch.dq, block * stride_ * sizeof(float));
      continue;
    }
    for (int64_t r = 0; r < block; ++r) {
      const int64_t i = s.q0 + (row + r) / shape_.group, h = head * shape_.group + (row + r) % shape_.group;
      kernels_.store(at(args_.dq, s.batch, i, h), args_.dq.dtype, scratch.dq + r * stride_, 0, 1, args_.scale,
                     shape_.dim);
    }
  }
  for (int64_t j = 0; j < count; ++j) {
    const int64_t key = s.kv0 + keys.begin + j;
    kernels_.store(at(args_.dk, s.batch, key, head), args_.dk.dtype, scratch.dk + j * stride_, 0, 1, args_.scale,
                   shape_.dim);
    kernels_.store(at(args_.dv, s.batch, key, head), args_.dv.dtype, scratch.dv + j * stride_v_, 0, 1, 1, shape_.dim_v);
  }
}

void BackwardCpuPlan::set_panel(BackwardRows& panel, const AttentionSequence& s, int64_t head, int64_t row,
                                int64_t count) const {
  set_rows(panel.rows, forward_, shape_, s, head, row, count);
  for (int64_t lane = 0; lane < AttentionRows::kMost; ++lane) {
    panel.lse[lane] = kInfinity, panel.delta[lane] = 0;
    if (lane >= count) continue;
    const int64_t i = (row + lane) / shape_.group, h = head * shape_.group + (row + lane) % shape_.group;
    const int64_t index = row_index(s.batch, h, s.q0 + i);
    panel.lse[lane] = shared_.lse[index], panel.delta[lane] = shared_.delta[index];
    if (!biased_) continue;
    const int64_t *sizes = args_.dbias.shape, b = sizes[0] > 1 ? s.batch : 0, g = sizes[1] > 1 ? h : 0;
    panel.dbias[lane] = shared_bias()
                            ? static_cast<void*>(shared_.dbias + ((b * sizes[1] + g) * sizes[2] + i) * sizes[3])
                            : at(args_.dbias, b, g, i);
  }
}

// A block of rows against a run of keys.
void BackwardCpuPlan::go_over(const AttentionSequence& seq, int64_t head, int64_t row, int64_t count,
                              AttentionRange keys, const Scratch& s) const {
  const int64_t panel = kernels_.rows, panels = ceil_div(count, panel);
  const int64_t slab_keys = kTileKeys / kernels_.per_cell, slab_rows = kBlockRows / kernels_.per_cell;
  for (int64_t n = 0; n < panels; ++n) {
    const int64_t first = row + n * panel, rows = std::min(panel, count - n * panel);
    set_panel(s.panels[n], seq, head, first, rows);
    const void *q[AttentionRows::kMost] = {}, *dy[AttentionRows::kMost] = {};
    for (int64_t lane = 0; lane < rows; ++lane) {
      const int64_t i = seq.q0 + (first + lane) / shape_.group, h = head * shape_.group + (first + lane) % shape_.group;
      q[lane] = at(args_.q, seq.batch, i, h), dy[lane] = at(args_.dy, seq.batch, i, h);
    }
    kernels_.pack_q(s.q + n * panel * cells_, q, shape_.dim);
    kernels_.pack_q(s.dy + n * panel * cells_v_, dy, shape_.dim_v);
    const int64_t offset = n * panel / kernels_.per_cell * panel;
    kernels_.pack_rows(s.q_columns + offset, q, shape_.dim, slab_rows);
    kernels_.pack_rows(s.dy_columns + offset, dy, shape_.dim_v, slab_rows);
  }
  // Both ends of what a row sees grow with its number.
  const AttentionRows& last = s.panels[panels - 1].rows;
  const int64_t begin = std::max<int64_t>(keys.begin, s.panels[0].rows.begin[0]);
  const int64_t end = std::min<int64_t>(keys.end, last.end[last.count - 1]);
  constexpr int64_t step = BackwardTile::kKeyStep;
  for (int64_t tile = begin / kTileKeys * kTileKeys; tile < end; tile += kTileKeys) {
    const int64_t low = std::max(begin, tile) / step * step, high = std::min(end, tile + kTileKeys);
    bool some = false;
    for (int64_t n = 0; n < panels; ++n) {
      BackwardRows& p = s.panels[n];
      const AttentionRows& rows = p.rows;
      const int64_t from = std::max<int64_t>(low, rows.begin[0] / step * step);
      const int64_t to = std::min<int64_t>(high, round_up(rows.end[rows.count - 1], step));
      p.begin = p.end = 0;
      if (from >= to || masked_out(scoring_, rows, from, to)) continue;
      p.begin = static_cast<int>(from - tile), p.end = static_cast<int>(to - tile);
      p.edge = from < rows.begin[rows.count - 1] || to > rows.end[0];
      some = true;
    }
    if (!some) continue;
    const int64_t key = seq.kv0 + low, offset = low - tile, width = high - low;
    const char *k = at(args_.k, seq.batch, key, head), *v = at(args_.v, seq.batch, key, head);
    kernels_.pack_k(s.k + offset * cells_, k, args_.k.stride[1], width, shape_.dim);
    kernels_.pack_k(s.v + offset * cells_v_, v, args_.v.stride[1], width, shape_.dim_v);
    kernels_.pack_v(s.k_columns + offset / kernels_.per_cell * panel, k, args_.k.stride[1], width, shape_.dim,
                    slab_keys);
    kernels_.tile({.scoring = &scoring_,
                   .panels = s.panels,
                   .count = static_cast<int>(panels),
                   .q = s.q,
                   .dy = s.dy,
                   .q_columns = s.q_columns,
                   .dy_columns = s.dy_columns,
                   .k = s.k,
                   .v = s.v,
                   .k_columns = s.k_columns,
                   .cells = cells_,
                   .cells_v = cells_v_,
                   .slab_rows = slab_rows,
                   .slab_keys = slab_keys,
                   .columns = static_cast<int>(ceil_div(shape_.dim, panel)),
                   .columns_v = static_cast<int>(ceil_div(shape_.dim_v, panel)),
                   .dq = s.dq,
                   .dk = s.dk + (tile - keys.begin) * stride_,
                   .dv = s.dv + (tile - keys.begin) * stride_v_,
                   .stride = stride_,
                   .stride_v = stride_v_,
                   .p = s.p,
                   .ds = s.ds,
                   .p_along = s.p_along,
                   .ds_along = s.ds_along,
                   .products = s.products,
                   .keys = kTileKeys,
                   .first = static_cast<int32_t>(tile),
                   .begin = static_cast<int>(offset),
                   .end = static_cast<int>(high - tile),
                   .shared_bias = shared_bias(),
                   .bias_out = args_.dbias.dtype});
  }
}

// dq of a key head's rows, from the runs' parts in order.
void BackwardCpuPlan::merge(const AttentionSequence& s, int64_t head) const {
  const int64_t step = shape_.batch * shape_.heads_q * shape_.len_q * stride_;
  for (int64_t row = 0; row < s.len_q * shape_.group; ++row) {
    const int64_t i = s.q0 + row / shape_.group, h = head * shape_.group + row % shape_.group;
    kernels_.store(at(args_.dq, s.batch, i, h), args_.dq.dtype, part(0, s.batch, head, s.q0 * shape_.group + row), step,
                   runs(s), args_.scale, shape_.dim);
  }
}

// A row of the bias's gradient, from its sum.
void BackwardCpuPlan::finish_bias(int64_t row) const {
  const int64_t i = row % shape_.len_q, h = row / shape_.len_q % args_.dbias.shape[1];
  kernels_.store(at(args_.dbias, row / shape_.len_q / args_.dbias.shape[1], h, i), args_.dbias.dtype,
                 shared_.dbias + row * shape_.len_kv, 0, 1, 1, shape_.len_kv);
}

void BackwardCpuPlan::sum_sink(int64_t head) const {
  const float sink = static_cast<const float*>(args_.sink.data)[head * args_.sink.stride[0]];
  double sum = 0;
  for (const AttentionSequence& s : sequences_) {
    for (int64_t row = s.q0; row < s.q0 + s.len_q; ++row) {
      const int64_t index = row_index(s.batch, head, row);
      sum += std::exp(std::min(double{sink} - double{shared_.lse[index]}, 0.0)) * double{shared_.delta[index]};
    }
  }
  static_cast<float*>(args_.dsink.data)[head * args_.dsink.stride[0]] = static_cast<float>(-sum);
}

std::string BackwardCpuPlan::explain() const {
  std::ostringstream json;
  json << R"({"variant":"attention_gqa_backward_cpu_)" << kernels_.isa << R"(","configuration":")" << kernels_.isa
       << R"(","tile":[)" << kBlockRows << ',' << kTileKeys << R"(],"panel":)" << kernels_.rows << R"(,"runs":)"
       << runs_ << R"(,"threads":)" << threads_ << R"(,"reason":")"
       << (shared_bias() ? "what shares a bias is one task, so that its gradient has one order"
                         : "a key head's run of keys is a task")
       << "\"}";
  return json.str();
}

}  // namespace

const kw_op& attention_gqa_backward() {
  static constexpr kw_op op = make_op<AttentionGqaBackwardArgs, BackwardCpuPlan>("attention_gqa_backward");
  return op;
}

}  // namespace kw::cpu
