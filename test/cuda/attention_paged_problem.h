// One problem of attention over a paged cache for the tests of a kernel library: pages in any order, NaN in every slot and entry that
// nothing may read, its plan, and the definition beside it; and what all such operators have to do.
//
// Op: Args; kName; caches(args, k, v) takes views of [pages, page_size, heads_kv, dim] and dim_v; parameters(args, case);
// reference(args, outputs).
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "plan.h"

namespace kw::test {

struct PagedCase {
  int64_t len_q = 1, heads_kv = 1, group = 1, dim = 64, dim_v = 64, page_size = 16, max_pages = 4;
  std::vector<int32_t> lens_kv = {1}, lens_q = {};
  DType in = DType::bf16, out = DType::bf16;
  bool causal = true, sink = false, misaligned = false, shared = false, batch_invariant = false;
  int64_t left = -1, splits = 0;
  float softcap = 0;
  unsigned seed = 1;
  int64_t batch() const { return static_cast<int64_t>(lens_kv.size()); }
  std::string text() const {
    std::string lens;
    for (size_t b = 0; b < lens_kv.size(); ++b)
      lens += " " + std::to_string(lens_kv[b]) + (lens_q.empty() ? "" : "/" + std::to_string(lens_q[b]));
    char line[300];
    std::snprintf(line, sizeof(line),
                  "q %ld heads %ld x %ld dim %ld/%ld %s->%s page %ld x %ld causal %d sink %d misaligned %d shared %d "
                  "invariant %d left %ld splits %ld cap %g seed %u lens",
                  len_q, heads_kv, group, dim, dim_v, name(in), name(out), page_size, max_pages, causal, sink,
                  misaligned, shared, batch_invariant, left, splits, static_cast<double>(softcap), seed);
    return line + lens;
  }
};

template <class Op>
class PagedProblem {
 public:
  PagedProblem(const Device& d, const PagedCase& t)
      : d_(d), t_(t), op_(operator_of(*d.table, Op::kName)), random_(t.seed) {
    const int64_t batch = t.batch(), heads = t.heads_kv * t.group, pages = std::max<int64_t>(1, batch * t.max_pages);
    const int64_t pad = t.misaligned ? 1 : 0, offset = t.misaligned ? 3 : 8;
    const auto place = [&](Operand& o, DType type, int64_t a, int64_t b, int64_t c, int64_t e, bool read_only) {
      const int64_t pitch = (t.misaligned ? e : (e + 7) / 8 * 8) + pad;
      o.place(d, type, {a, b, c, e}, {b * c * pitch + 8 * pad, c * pitch, pitch, 1}, offset, read_only);
    };
    place(q, t.in, batch, t.len_q, heads, t.dim, true);
    place(k_cache, t.in, pages, t.page_size, t.heads_kv, t.dim, true);
    place(v_cache, t.in, pages, t.page_size, t.heads_kv, t.dim_v, true);
    place(y, t.out, batch, t.len_q, heads, t.dim_v, false);
    lse.place(d, DType::f32, {batch, heads, t.len_q}, {heads * t.len_q + 1, t.len_q, 1}, 1);
    page_table.place(d, DType::i32, {batch, t.max_pages}, {t.max_pages + 1, 1}, 1, true);
    lens_kv.place(d, DType::i32, {batch}, {1}, 1, true);
    q.fill(random_, false);
    bind(host_.q, there_.q, q);
    Op::caches(host_, k_cache.host, v_cache.host);
    Op::caches(there_, k_cache.device, v_cache.device);
    bind(host_.page_table, there_.page_table, page_table), bind(host_.lens_kv, there_.lens_kv, lens_kv);
    bind(host_.y, there_.y, y), bind(host_.lse, there_.lse, lse);
    if (!t.lens_q.empty()) {
      lens_q.place(d, DType::i32, {batch}, {1}, 1, true);
      std::copy(t.lens_q.begin(), t.lens_q.end(), static_cast<int32_t*>(lens_q.host.data));
      bind(host_.lens_q, there_.lens_q, lens_q);
    }
    if constexpr (requires { host_.sink; }) {
      if (t.sink) {
        sink.place(d, DType::f32, {heads}, {1}, 1, true);
        sink.fill(random_, false);
        bind(host_.sink, there_.sink, sink);
      }
    }
    for (typename Op::Args* a : {&host_, &there_}) {
      a->scale = 1 / std::sqrt(static_cast<float>(t.dim));
      a->causal = t.causal, a->splits = t.splits, a->batch_invariant = t.batch_invariant;
      Op::parameters(*a, t);
    }
    fill(t.lens_kv);
    for (Operand* o : {&q, &lens_q, &sink, &y, &lse})
      if (o->memory) o->upload();
  }
  ~PagedProblem() {
    if (plan_) op_.plan_destroy(plan_);
    if (workspace_) d_.table->free(d_.index, workspace_);
  }

  int32_t& entry(int64_t b, int64_t i) {
    return static_cast<int32_t*>(page_table.host.data)[b * page_table.host.stride[0] + i];
  }

  // Lengths, a new table and the slots that it names; all else is NaN, and entries past a length name no page.
  void fill(const std::vector<int32_t>& lengths) {
    std::copy(lengths.begin(), lengths.end(), static_cast<int32_t*>(lens_kv.host.data));
    const int64_t pages = k_cache.host.shape[0];
    std::vector<int32_t> order(pages);
    for (int64_t p = 0; p < pages; ++p) order[p] = static_cast<int32_t>(p);
    std::shuffle(order.begin(), order.end(), random_);
    std::vector<int64_t> used(pages);
    size_t next = 0;
    for (int64_t b = 0; b < t_.batch(); ++b) {
      for (int64_t i = 0; i < t_.max_pages; ++i) {
        const int64_t slots = std::clamp<int64_t>(lengths[b] - i * t_.page_size, 0, t_.page_size);
        constexpr int32_t kNone[] = {-1, std::numeric_limits<int32_t>::max()};
        entry(b, i) = slots == 0 ? pick(random_, kNone) : t_.shared ? order[random_() % pages] : order[next++];
        if (slots > 0) used[entry(b, i)] = std::max(used[entry(b, i)], slots);
      }
    }
    for (Operand* o : {&k_cache, &v_cache}) {
      std::fill(o->bytes.begin(), o->bytes.end(), uint8_t{0xff});
      o->each([&](int64_t at) {
        const int64_t page = at / o->host.stride[0], slot = at % o->host.stride[0] / o->host.stride[1];
        const float value = std::uniform_real_distribution<float>(-1, 1)(random_);
        if (slot < used[page]) store_f32(o->host.data, o->host.dtype, at, value);
      });
    }
    upload();
  }
  void upload() {
    for (Operand* o : {&k_cache, &v_cache, &page_table, &lens_kv}) o->upload();
  }

  void plan() {
    d_.must(op_.supports(&d_.info, &there_), "supports");
    d_.must(op_.plan_create(&d_.info, &there_, &plan_), "plan_create");
    const uint64_t bytes = op_.plan_workspace(plan_);
    if (bytes) d_.must(d_.table->alloc(d_.index, bytes, &workspace_), "alloc");
    d_.must(op_.plan_rebind(plan_, &there_, workspace_), "plan_rebind");
    const std::string explained = op_.plan_explain(plan_);
    ++seen[test::explained(explained.c_str(), "variant")];
    ++seen[explained.find("\"asyncCopies\":true") != std::string::npos ? "async" : "not async"];
    ++seen[explained.find("\"mostParts\":1,") != std::string::npos ? "whole" : "parts"];
  }
  int32_t enqueue() { return op_.plan_enqueue(plan_, d_.stream); }
  std::string finish(int32_t status) {
    if (!status) y.download(), lse.download();
    if (!status) status = d_.sync();
    return status ? std::string(kCodeNames[status]) + ": " + d_.table->last_error() : "";
  }
  std::string run() {
    if (!plan_) plan();
    return finish(enqueue());
  }
  // Both outputs against the definition, and everything around them; `threw` is what the definition says of values out of range.
  std::string check(std::string* threw = nullptr) {
    ReferenceOutputs reference;
    try {
      Op::reference(host_, reference);
    } catch (const Error& error) {
      if (!threw) throw;
      *threw = error.what();
    }
    const std::string wrong = compare(y, reference[0], "y");
    return !wrong.empty() ? wrong : compare(lse, reference[1], "lse");
  }

  Operand q, k_cache, v_cache, page_table, lens_kv, lens_q, sink, y, lse;

 private:
  template <class Tensor>
  static void bind(Tensor& here, Tensor& there, const Operand& o) {
    static_cast<TensorView&>(here) = o.host;
    static_cast<TensorView&>(there) = o.device;
  }
  const Device& d_;
  const PagedCase t_;
  const kw_op& op_;
  std::mt19937 random_;
  typename Op::Args host_, there_;
  kw_plan* plan_ = nullptr;
  void* workspace_ = nullptr;
};

template <class Op>
void check(const Device& d, const PagedCase& t) {
  PagedProblem<Op> problem(d, t);
  std::string wrong = problem.run();
  if (wrong.empty()) wrong = problem.check();
  expect(wrong.empty(), t.text() + ": " + wrong);
}

// Values out of range are reported once, and the rest is as the definition has it.
template <class Op>
void wrong_values(const Device& d, const PagedCase& like) {
  const auto reported = [&](const std::function<void(PagedProblem<Op>&)>& spoil, const std::string& message) {
    for (const DType in : {DType::f32, DType::bf16}) {
      PagedCase t = like;
      t.page_size = 8, t.max_pages = 6, t.lens_kv = {30, 41, 9}, t.lens_q = {1, 1, 1};
      t.in = in, t.out = DType::f32;
      PagedProblem<Op> problem(d, t);
      spoil(problem);
      problem.upload(), problem.lens_q.upload();
      const std::string result = problem.run();
      expect(result.find(std::string("INDEX: ") + Op::kName + ": " + message) == 0,
             "expected " + message + ", got " + result);
      std::string threw;
      const std::string wrong = problem.check(&threw);
      expect("INDEX: " + threw == result && wrong.empty(), message + ": " + wrong + " " + threw);
      expect(problem.finish(0).empty(), message + ": it is reported once");
    }
  };
  reported([](PagedProblem<Op>& p) { p.entry(1, 3) = 99; }, "page_table[1, 3] is 99, expected 0 to 17");
  reported([](PagedProblem<Op>& p) { p.entry(1, 0) = -1; }, "page_table[1, 0] is -1, expected 0 to 17");
  reported([](PagedProblem<Op>& p) { static_cast<int32_t*>(p.lens_kv.host.data)[2] = -4; },
           "lens_kv[2] is -4, expected 0 to 48");
  reported([](PagedProblem<Op>& p) { static_cast<int32_t*>(p.lens_q.host.data)[0] = 2; },
           "lens_q[0] is 2, expected 0 to 1");
}

// A captured launch takes the lengths and tables that lie in memory when it runs.
template <class Op>
void captured(const Device& d, const PagedCase& like) {
  PagedCase t = like;
  t.page_size = 16, t.max_pages = 40, t.lens_kv = {640, 3, 0};
  PagedProblem<Op> problem(d, t);
  problem.plan();
  void* graph = nullptr;
  d.must(d.table->graph_begin(d.stream), "graph_begin");
  d.must(problem.enqueue(), "enqueue");
  d.must(d.table->graph_end(d.stream, &graph), "graph_end");
  for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{640, 3, 0}, {17, 640, 500}, {0, 0, 1}}) {
    problem.fill(lengths);
    std::string wrong = problem.finish(d.table->graph_launch(graph, d.stream));
    if (wrong.empty()) wrong = problem.check();
    expect(wrong.empty(), "a graph with other lengths: " + wrong);
  }
  d.must(d.table->graph_destroy(graph), "graph_destroy");
}

// A request alone gives the bits that it has among others, with batch_invariant; and every time the same.
template <class Op>
void repeated(const Device& d, const PagedCase& like, int times) {
  PagedCase t = like;
  t.page_size = 16, t.max_pages = 90, t.lens_kv = {1440, 100, 900}, t.batch_invariant = true;
  PagedProblem<Op> problem(d, t);
  expect(problem.run().empty(), "many requests run");
  const std::vector<uint8_t> first = problem.y.bytes;
  int differ = 0;
  for (int n = 0; n < times; ++n) {
    problem.run();
    differ += problem.y.bytes != first;
  }
  expect(differ == 0, std::to_string(differ) + " repetitions differ");
  std::vector<int32_t> alone = {1440, 0, 0};
  std::copy(alone.begin(), alone.end(), static_cast<int32_t*>(problem.lens_kv.host.data));
  problem.lens_kv.upload();
  problem.run();
  const int64_t row = t.heads_kv * t.group * t.dim_v * bits(t.out) / 8;
  expect(std::equal(first.begin(), first.begin() + 16 + row, problem.y.bytes.begin()), "a request alone differs");
}

}  // namespace kw::test
