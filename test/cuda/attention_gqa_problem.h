// One problem of attention_gqa for the tests of a kernel library: its operands in any layout, NaN wherever nothing may be read,
// guard bands around what is written, its plan, and the definition beside it.
#pragma once
#include <cmath>
#include <limits>

#include "../../kernels/attention_gqa/attention_gqa.h"
#include "harness.h"

namespace kw::test {

// Everything that single cases cannot show, in rounds; test and properties are two files of one program.
constexpr size_t kRounds = 6;
void properties(const Device& d, size_t round);

// How [batch, length, heads, dim] lies in memory.
enum class Order { rows, heads_first, padded, interleaved, misaligned };
constexpr Order kOrders[] = {Order::rows, Order::heads_first, Order::padded, Order::interleaved, Order::misaligned};

struct Case {
  int64_t batch = 1, len_q = 1, len_kv = 1, heads_q = 1, heads_kv = 1, dim = 64, dim_v = 64;
  DType in = DType::bf16, out = DType::bf16;
  Order order[4] = {};  // of q, k, v and y
  float scale = 0;      // 0: 1 / sqrt(dim)
  float softcap = 0;
  bool causal = false;
  int64_t left = -1, right = -1;
  int bias = 0;  // 1: whole, 2: one batch, 3: one head, 4: both one
  DType bias_type = DType::f32;
  int mask = 0;  // likewise
  int64_t mask_q = 1, mask_kv = 1;
  double mask_density = 0.7;
  bool alibi = false, sink = false;
  std::vector<int32_t> lens_q, lens_kv, cu_q, cu_kv;
  bool batch_invariant = false;
  bool zero_q = false;  // with integer values: every visible key weighs the same, so sums are exact
  float spread = 1;     // of q: larger means sharper softmax
  unsigned seed = 1;

  std::string text() const {
    const auto list = [](const std::vector<int32_t>& values) {
      std::string s;
      for (int32_t v : values) s += (s.empty() ? "" : ",") + std::to_string(v);
      return s.empty() ? std::string("-") : s;
    };
    char line[600];
    std::snprintf(
        line, sizeof(line),
        "batch %ld q %ld kv %ld heads %ld/%ld dim %ld/%ld %s->%s order %d%d%d%d scale %g cap %g causal %d window "
        "%ld,%ld bias %d(%s) mask %d(%ldx%ld %g) alibi %d sink %d lens %s|%s cu %s|%s invariant %d zero %d spread "
        "%g seed %u",
        batch, len_q, len_kv, heads_q, heads_kv, dim, dim_v, name(in), name(out), static_cast<int>(order[0]),
        static_cast<int>(order[1]), static_cast<int>(order[2]), static_cast<int>(order[3]), scale, softcap, causal,
        left, right, bias, name(bias_type), mask, mask_q, mask_kv, mask_density, alibi, sink, list(lens_q).c_str(),
        list(lens_kv).c_str(), list(cu_q).c_str(), list(cu_kv).c_str(), batch_invariant, zero_q, spread, seed);
    return line;
  }
};

// ---- one problem -----------------------------------------------------------------------------------------------------

inline void place_rows(Operand& o, const Device& d, DType type, Order order, int64_t batch, int64_t rows, int64_t heads,
                       int64_t dim, bool read_only) {
  const std::vector<int64_t> shape = {batch, rows, heads, dim};
  const int64_t wide = (dim + 7) / 8 * 8;
  switch (order) {
    case Order::rows:
      return o.place(d, type, shape, {rows * heads * dim, heads * dim, dim, 1}, 0, read_only);
    case Order::heads_first:
      return o.place(d, type, shape, {heads * rows * wide, wide, rows * wide, 1}, 8, read_only);
    case Order::padded:
      return o.place(d, type, shape, {(rows * heads + 3) * (wide + 8), heads * (wide + 8), wide + 8, 1}, 16, read_only);
    case Order::interleaved:  // as a slice of one tensor of q, k and v
      return o.place(d, type, shape, {rows * 3 * heads * wide, 3 * heads * wide, wide, 1}, heads * wide, read_only);
    case Order::misaligned:
      return o.place(d, type, shape, {(rows * heads + 1) * (dim + 1) + 1, heads * (dim + 1), dim + 1, 1}, 1, read_only);
  }
}

// [batch, heads, rows, columns], with one batch (2, 4) or one head (3, 4).
inline void place_plane(Operand& o, const Device& d, DType type, int kind, int64_t batch, int64_t heads, int64_t rows,
                        int64_t columns) {
  const bool one_batch = kind == 2 || kind == 4, one_head = kind == 3 || kind == 4;
  const int64_t stored = one_head ? 1 : heads, pitch = columns + 1;
  // One batch by its size, one head by its stride.
  o.place(d, type, {one_batch ? 1 : batch, heads, rows, columns},
          {stored * rows * pitch, one_head ? 0 : rows * pitch, pitch, 1}, 1, true);
}

class Problem {
 public:
  Problem(const Device& d, const Case& t) : d_(d), t_(t), op_(operator_of(*d.table, "attention_gqa")) {
    std::mt19937 random(t.seed);
    place_rows(q, d, t.in, t.order[0], t.batch, t.len_q, t.heads_q, t.dim, true);
    place_rows(k, d, t.in, t.order[1], t.batch, t.len_kv, t.heads_kv, t.dim, true);
    place_rows(v, d, t.in, t.order[2], t.batch, t.len_kv, t.heads_kv, t.dim_v, true);
    place_rows(y, d, t.out, t.order[3], t.batch, t.len_q, t.heads_q, t.dim_v, false);
    const int64_t more = t.order[3] == Order::padded ? 2 : 0, rows = t.len_q + more;
    lse.place(d, DType::f32, {t.batch, t.heads_q, t.len_q}, {t.heads_q * rows, rows, 1}, more);
    q.fill(random, false);
    if (t.zero_q || t.spread != 1)
      q.each([&](int64_t at) {
        store_f32(q.host.data, t.in, at, t.zero_q ? 0 : t.spread * load_f32(q.host.data, t.in, at));
      });
    k.fill(random, false);
    v.fill(random, t.zero_q);
    bind(host_.q, there_.q, q), bind(host_.k, there_.k, k), bind(host_.v, there_.v, v);
    bind(host_.y, there_.y, y), bind(host_.lse, there_.lse, lse);
    if (t.bias) {
      place_plane(bias, d, t.bias_type, t.bias, t.batch, t.heads_q, t.len_q, t.len_kv);
      bias.fill(random, false);
      bind(host_.bias, there_.bias, bias);
    }
    if (t.mask) {
      place_plane(mask, d, DType::u8, t.mask, t.batch, t.heads_q, (t.len_q + t.mask_q - 1) / t.mask_q,
                  (t.len_kv + t.mask_kv - 1) / t.mask_kv);
      std::bernoulli_distribution visible(t.mask_density);
      mask.each([&](int64_t at) {
        static_cast<uint8_t*>(mask.host.data)[at] = static_cast<uint8_t>(visible(random) ? 1 + random() % 255 : 0);
      });
      bind(host_.mask, there_.mask, mask);
    }
    const auto vector = [&](bool given, Operand& o, OptionalConstTensor& here, OptionalConstTensor& there) {
      if (!given) return;
      o.place(d, DType::f32, {t.heads_q}, {1}, 1, true);
      o.fill(random, false);
      bind(here, there, o);
    };
    vector(t.alibi, alibi, host_.alibi, there_.alibi);
    vector(t.sink, sink, host_.sink, there_.sink);
    const auto lengths = [&](const std::vector<int32_t>& values, Operand& o, OptionalConstTensor& here,
                             OptionalConstTensor& there) {
      if (values.empty()) return;
      o.place(d, DType::i32, {static_cast<int64_t>(values.size())}, {1}, 3, true);
      std::copy(values.begin(), values.end(), static_cast<int32_t*>(o.host.data));
      bind(here, there, o);
    };
    lengths(t.lens_q, lens_q, host_.lens_q, there_.lens_q);
    lengths(t.lens_kv, lens_kv, host_.lens_kv, there_.lens_kv);
    lengths(t.cu_q, cu_q, host_.cu_q, there_.cu_q);
    lengths(t.cu_kv, cu_kv, host_.cu_kv, there_.cu_kv);
    poison();
    for (AttentionGqaArgs* a : {&host_, &there_}) {
      a->scale = t.scale != 0 ? t.scale : 1 / std::sqrt(static_cast<float>(t.dim));
      a->softcap = t.softcap, a->causal = t.causal;
      a->window_left = t.left, a->window_right = t.right;
      a->mask_block_q = t.mask_q, a->mask_block_kv = t.mask_kv;
      a->batch_invariant = t.batch_invariant;
    }
    for (Operand* o : all())
      if (o->memory) o->upload();
  }
  ~Problem() {
    if (plan_) op_.plan_destroy(plan_);
    if (workspace_) d_.table->free(d_.index, workspace_);
  }

  // Creates the plan, and notes what it chose.
  void plan() {
    d_.must(op_.supports(&d_.info, &there_), "supports");
    d_.must(op_.plan_create(&d_.info, &there_, &plan_), "plan_create");
    const uint64_t bytes = op_.plan_workspace(plan_);
    if (bytes) d_.must(d_.table->alloc(d_.index, bytes, &workspace_), "alloc");
    d_.must(op_.plan_rebind(plan_, &there_, workspace_), "plan_rebind");
    const std::string explained = op_.plan_explain(plan_);
    for (const char* key : {"variant", "splits", "headsPerTile", "asyncCopies", "maskTilesSkipped", "headDim"}) {
      const std::string quoted = std::string("\"") + key + "\":";
      const size_t from = explained.find(quoted) + quoted.size();
      const size_t to = explained[from] == '[' ? explained.find(']', from) + 1 : explained.find_first_of(",}", from);
      const std::string value = explained.substr(from, to - from);
      chosen[key] = value;
      ++seen[std::string(key) + (std::string(key) == "splits" && value != "1" ? " more" : " " + value)];
    }
  }
  int32_t enqueue() { return op_.plan_enqueue(plan_, d_.stream); }

  // Runs once; empty, or what went wrong.
  std::string run() {
    if (!plan_) plan();
    int32_t status = enqueue();
    if (!status) y.download(), lse.download();
    if (!status) status = d_.sync();
    return status ? std::string(kCodeNames[status]) + ": " + d_.table->last_error() : "";
  }

  // Both outputs against the definition, and everything around them.
  std::string check() {
    ReferenceOutputs reference;
    ref::attention_gqa(host_, {}, reference);
    const std::string wrong = compare(y, reference[0], "y", t_.zero_q);
    return !wrong.empty() ? wrong : compare(lse, reference[1], "lse");
  }

  const Case& description() const { return t_; }
  const AttentionGqaArgs& there() const { return there_; }
  kw_plan* handle() const { return plan_; }
  void* workspace() const { return workspace_; }
  Operand q, k, v, bias, mask, alibi, sink, lens_q, lens_kv, cu_q, cu_kv, y, lse;
  std::map<std::string, std::string> chosen;

 private:
  template <class Tensor>
  static void bind(Tensor& here, Tensor& there, const Operand& o) {
    static_cast<TensorView&>(here) = o.host;
    static_cast<TensorView&>(there) = o.device;
  }
  std::vector<Operand*> all() {
    return {&q, &k, &v, &bias, &mask, &alibi, &sink, &lens_q, &lens_kv, &cu_q, &cu_kv, &y, &lse};
  }

  // NaN in every row of q, k and v that is not there.
  void poison() {
    const auto rows = [&](Operand& o, const std::vector<int32_t>& lens, const std::vector<int32_t>& cu) {
      if (o.host.count() == 0) return;
      for (int64_t b = 0; b < t_.batch; ++b)
        for (int64_t i = 0; i < o.host.shape[1]; ++i) {
          bool there = true;
          if (!lens.empty()) there = i < lens[b];
          if (!cu.empty()) there = i >= cu.front() && i < cu.back();
          for (int64_t h = 0; h < o.host.shape[2] && !there; ++h)
            for (int64_t e = 0; e < o.host.shape[3]; ++e)
              store_f32(o.host.data, o.host.dtype,
                        b * o.host.stride[0] + i * o.host.stride[1] + h * o.host.stride[2] + e,
                        std::numeric_limits<float>::quiet_NaN());
        }
    };
    rows(q, t_.lens_q, t_.cu_q);
    rows(k, t_.lens_kv, t_.cu_kv);
    rows(v, t_.lens_kv, t_.cu_kv);
  }

  const Device& d_;
  const Case t_;
  const kw_op& op_;
  AttentionGqaArgs host_, there_;
  kw_plan* plan_ = nullptr;
  void* workspace_ = nullptr;
};

// Runs a case and compares it with the definition.
inline void check(const Device& d, const Case& t) {
  Problem problem(d, t);
  std::string wrong = problem.run();
  if (wrong.empty()) wrong = problem.check();
  expect(wrong.empty(), t.text() + ": " + wrong);
}

}  // namespace kw::test
