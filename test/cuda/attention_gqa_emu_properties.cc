// What single cases of attention_gqa cannot show: exact sums, both sides of every tile edge, bits that must not depend on anything
// else, lengths that are wrong, graphs, rebinding, repetition and refusals. Part of attention_gqa_emu_test.
#include <cstdlib>
#include <string>

#include "attention_gqa_problem.h"
#include "plan.h"

namespace kw::test {
namespace {

// With q = 0 every visible key weighs 1, and over 2^n keys the mean of integers is exact in f32.
void exact(const Device& d) {
  constexpr std::pair<int64_t, int64_t> kDims[] = {{32, 32},   {64, 48},   {96, 96},  {128, 128},
                                                   {192, 128}, {192, 192}, {256, 256}};
  for (auto [dim, dim_v] : kDims)
    for (DType type : {DType::bf16, DType::f16, DType::f32})
      for (int64_t len_q : {1, 70, 130}) {
        if (race && len_q == 130) continue;
        Case t;
        t.in = type, t.out = DType::f32, t.zero_q = true, t.seed = static_cast<unsigned>(dim + len_q);
        t.len_q = len_q, t.len_kv = 128, t.dim = dim, t.dim_v = dim_v;
        check(d, t);
        if (len_q != 70) continue;
        t.len_kv = 200, t.left = 15, t.right = 0;  // each row 16 keys, another 16 for the next row
        check(d, t);
      }
}

// Ends of windows and of the keys on either side of an edge between two tiles of keys, in each kernel: one key too many or too
// few of about 200 that weigh alike shows in lse.
void edges(const Device& d) {
  for (DType type : {DType::bf16, DType::f32})
    for (int64_t len_q : {1, 64, 130}) {
      const int64_t tile = type == DType::f32 ? 32 : len_q == 1 ? 16 : 64, edge = (150 + tile) / tile * tile;
      for (int64_t off : {-2, -1, 0, 1}) {
        Case t;
        t.in = t.out = type, t.len_q = len_q, t.len_kv = len_q + edge + off, t.dim = t.dim_v = 32;
        t.seed = static_cast<unsigned>(len_q + off + 2);
        check(d, t);
        t.len_kv = len_q + 2 * tile + 11;
        const int64_t first = t.len_kv - len_q, last = t.len_kv - 1;  // places of the first and last query
        for (int64_t query : {first, last}) {
          Case windowed = t;
          windowed.left = query - (tile + off);
          if (windowed.left >= 0) check(d, windowed);
          windowed = t, windowed.right = first + 2 * tile + off - query;
          if (windowed.right >= 0) check(d, windowed);
        }
      }
    }
}

std::vector<uint8_t> row_bits(const Problem& p, int64_t batch, int64_t row, int64_t head) {
  const TensorView& y = p.y.host;
  const auto* from =
      static_cast<const uint8_t*>(y.data) + (batch * y.stride[0] + row * y.stride[1] + head * y.stride[2]) * p.y.size();
  return {from, from + y.shape[3] * p.y.size()};
}

// A row that sees no key is 0 even where the values it does not see are NaN.
void empty_rows(const Device& d) {
  for (DType type : {DType::bf16, DType::f32})
    for (int64_t len_q : {3, 70, 200}) {
      Case t;
      t.in = t.out = type, t.len_q = len_q, t.len_kv = 2, t.causal = true;
      Problem p(d, t);
      p.v.each([&](int64_t at) { store_f32(p.v.host.data, type, at, std::numeric_limits<float>::quiet_NaN()); });
      p.v.upload();
      std::string wrong = p.run();
      for (int64_t i = 0; i < len_q - t.len_kv && wrong.empty(); ++i) {
        const std::vector<uint8_t> row = row_bits(p, 0, i, 0);
        if (row != std::vector<uint8_t>(row.size())) wrong = "row " + std::to_string(i) + " is not 0";
        if (load_f32(p.lse.host.data, DType::f32, i) != -std::numeric_limits<float>::infinity())
          wrong = "lse of row " + std::to_string(i) + " is not -inf";
      }
      expect(wrong.empty(), t.text() + ", values NaN: " + wrong);
    }
}

// batch_invariant: the same bits for rows alone, in a batch, beside other rows, and in tiles of another size.
void invariance(const Device& d) {
  for (DType type : {DType::bf16, DType::f16, DType::f32}) {
    Case t;
    t.in = type, t.out = DType::f32, t.batch_invariant = true, t.batch = 3, t.len_q = 128, t.len_kv = 150;
    t.heads_q = 2, t.dim = t.dim_v = 64, t.seed = 5, t.left = 100, t.right = 90;
    t.alibi = type == DType::f32, t.spread = 8;  // sharp and without ALiBi: the scores are scaled in the exponent
    Problem whole(d, t);
    expect(whole.run().empty() && whole.check().empty(), "three batches");
    ++seen["invariant " + whole.chosen["variant"]];
    // The place of a query counts from the last: parts end where the whole does.
    const auto part = [&](const char* what, int64_t batch, int64_t rows) {
      Case s = t;
      s.batch = 1, s.len_q = rows;
      Problem p(d, s);
      const auto slice = [&](const Operand& from, Operand& to) {
        const int64_t first =
            batch * from.host.stride[0] + (from.host.shape[1] - to.host.shape[1]) * from.host.stride[1];
        to.each([&](int64_t at) { store_f32(to.host.data, type, at, load_f32(from.host.data, type, first + at)); });
        to.upload();
      };
      slice(whole.q, p.q), slice(whole.k, p.k), slice(whole.v, p.v);
      if (t.alibi) {
        std::copy_n(static_cast<float*>(whole.alibi.host.data), t.heads_q, static_cast<float*>(p.alibi.host.data));
        p.alibi.upload();
      }
      expect(p.run().empty(), what);
      bool same = true;
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t h = 0; h < t.heads_q; ++h)
          same &= row_bits(p, 0, i, h) == row_bits(whole, batch, t.len_q - rows + i, h);
      expect(same, std::string("batch_invariant: ") + what + " has the bits it has in a batch, " + name(type));
      ++seen["invariant " + p.chosen["variant"]];
    };
    part("a batch alone", 1, 128);
    part("the last 40 rows", 2, 40);
    part("the last row", 0, 1);
  }
}

// 200 runs give the same bits: on the emulator each under a random schedule of its own seed.
void repetition(const Device& d) {
  const int times = 200;
  const char* before = std::getenv("KERNWATT_EMU");
  const std::string schedule = before ? before : "";
  Device own{d.table, d.index, d.info};
  own.open();
  for (int64_t len_q : {1, 20}) {
    Case t;
    t.heads_q = 4, t.heads_kv = 2, t.len_q = len_q, t.len_kv = 300, t.causal = true, t.dim = t.dim_v = 32, t.batch = 1;
    if (len_q == 20) t.heads_q = 2, t.len_kv = 70;
    Problem p(own, t);
    std::string wrong = p.run();
    if (wrong.empty()) wrong = p.check();
    expect(wrong.empty(), wrong);
    const std::vector<uint8_t> y = p.y.bytes, lse = p.lse.bytes;
    int different = 0;
    for (int i = 1; i < times && wrong.empty(); ++i) {
      if (d.info.emulated) {
        own.close();
        setenv("KERNWATT_EMU", ("sched=random,async=random,seed=" + std::to_string(i)).c_str(), 1);
        own.open();
      }
      wrong = p.run();
      different += p.y.bytes != y || p.lse.bytes != lse;
    }
    expect(wrong.empty() && different == 0, std::to_string(different) + " of " + std::to_string(times) +
                                                " runs differ" + (wrong.empty() ? "" : ": ") + wrong);
  }
  own.close();
  setenv("KERNWATT_EMU", schedule.c_str(), 1);
}

// Lengths are read on the device: out of range they are clamped, and the next wait names the first.
void wrong_lengths(const Device& d) {
  const auto raises = [&](const Case& t, const char* words) {
    Problem p(d, t);
    const std::string said = p.run();
    expect(said == std::string("INDEX: ") + words, "expected '" + std::string(words) + "', received '" + said + "'");
    expect(d.sync() == 0, "the next wait is fine");
  };
  Case t;
  t.batch = 2, t.len_q = 3, t.len_kv = 8;
  t.lens_kv = {8, 9};
  raises(t, "attention_gqa: lens_kv[1] is 9, expected 0 to 8");
  t.lens_kv = {-1, 3};
  raises(t, "attention_gqa: lens_kv[0] is -1, expected 0 to 8");
  t.lens_kv.clear(), t.lens_q = {2, 100};
  raises(t, "attention_gqa: lens_q[1] is 100, expected 0 to 3");
  t = {};
  t.batch = 33, t.len_kv = 8, t.lens_kv.assign(33, 4);
  t.lens_kv[0] = -2, t.lens_kv[32] = 9;  // one thread finds both
  raises(t, "attention_gqa: lens_kv[0] is -2, expected 0 to 8");
  t = {};
  t.len_q = t.len_kv = 40, t.in = t.out = DType::f32;
  t.cu_q = {0, 30, 20, 40}, t.cu_kv = {0, 10, 20, 40};
  raises(t, "attention_gqa: cu_q[2] is 20, expected 30 to 40");
  t.cu_q = {0, 10, 20, 40}, t.cu_kv = {0, 10, 20, 50};
  raises(t, "attention_gqa: cu_kv[3] is 50, expected 20 to 40");
}

// A captured launch reads lengths when it runs.
void graphs(const Device& d) {
  Case t;
  t.len_q = 2, t.len_kv = 40, t.heads_q = 2, t.lens_kv = {40};
  Problem p(d, t);
  p.plan();
  void* graph = nullptr;
  d.must(d.table->graph_begin(d.stream), "graph_begin");
  d.must(p.enqueue(), "plan_enqueue");
  d.must(d.table->graph_end(d.stream, &graph), "graph_end");
  for (int32_t length : {40, 7, 0}) {
    Case other = t;
    other.lens_kv = {length};
    Problem same(d, other);  // the same operands, for the definition
    *static_cast<int32_t*>(p.lens_kv.host.data) = length;
    p.lens_kv.upload();
    d.must(d.table->graph_launch(graph, d.stream), "graph_launch");
    p.y.download(), p.lse.download();
    d.must(d.sync(), "sync");
    same.y.bytes = p.y.bytes, same.lse.bytes = p.lse.bytes;
    const std::string wrong = same.check();
    expect(wrong.empty(), "a graph with length " + std::to_string(length) + ": " + wrong);
  }
  d.must(d.table->graph_destroy(graph), "graph_destroy");
}

// Runs the plan of one problem on the operands of another; empty, or what went wrong.
std::string bound(const Device& d, const Problem& plan, Problem& operands) {
  const kw_op& op = operator_of(*d.table, "attention_gqa");
  d.must(op.plan_rebind(plan.handle(), &operands.there(), plan.workspace()), "plan_rebind");
  d.must(op.plan_enqueue(plan.handle(), d.stream), "plan_enqueue");
  operands.y.download(), operands.lse.download();
  d.must(d.sync(), "sync");
  return operands.check();
}

// A plan for a capacity, bound to less.
void rebinding(const Device& d) {
  for (bool invariant : {false, true}) {
    Case large;
    large.batch = 2, large.heads_q = 2, large.len_kv = 1500, large.dim = large.dim_v = 32,
    large.batch_invariant = invariant;
    Problem p(d, large);
    std::string wrong = p.run();
    if (wrong.empty()) wrong = p.check();
    expect(wrong.empty(), "at capacity: " + wrong);
    for (int64_t len_kv : {1100, 40}) {
      Case small = large;
      small.len_kv = len_kv, small.batch = 1;
      Problem q(d, small);
      wrong = bound(d, p, q);
      expect(wrong.empty(), "bound to " + std::to_string(len_kv) + " keys: " + wrong);
    }
  }
}

// How many parts the keys have in a plan that is bound to the operands of a problem; right, or an expectation fails.
std::string splits_when_bound(const Device& d, const Problem& plan, Problem& operands, const std::string& what) {
  const std::string wrong = bound(d, plan, operands);
  const std::string said = operator_of(*d.table, "attention_gqa").plan_explain(plan.handle());
  expect(wrong.empty(), what + ": " + wrong + said);
  return explained(said.c_str(), "splits");
}

// Bound to less than it was made for, a plan splits the keys as one of its own would, where a twentieth of the operands holds the
// parts, and else into fewer, which explain() says.
void shrinking(const Device& d) {
  Case t;
  t.dim = t.dim_v = 8, t.len_kv = 300, t.batch = 4 * std::max(d.info.sm_count, 1), t.lens_kv.assign(t.batch, 300);
  Case one = t;
  one.batch = 1, one.lens_kv.resize(1);
  Problem p(d, t), q(d, one);
  p.plan(), q.plan();
  expect(p.chosen["splits"] == "1" && q.chosen["splits"] == "2", "many batches are whole, and one is split");
  expect(splits_when_bound(d, p, q, "of many batches to one") == "2", "a plan has workspace for one batch");

  Case rows;
  rows.len_q = 300, rows.len_kv = 700, rows.dim = rows.dim_v = 8, rows.heads_q = 4;
  Case few = rows;
  few.len_q = 2;
  Problem large(d, rows), small(d, few);
  large.plan(), small.plan();
  expect(
      splits_when_bound(d, large, small, "of 300 rows to 2") == small.chosen["splits"] && small.chosen["splits"] != "1",
      "a plan has workspace for few rows");

  Case tight;
  tight.dim = 8, tight.dim_v = 256, tight.len_kv = 256, tight.heads_q = 16;
  tight.batch = 128, tight.lens_kv.assign(tight.batch, 3);
  Case some = tight;
  some.batch = 4, some.lens_kv.resize(some.batch);
  Device eight = d;
  eight.info.sm_count = 8;
  Problem all(eight, tight), part(eight, some);
  all.plan(), part.plan();
  expect(part.chosen["splits"] == "2", "some of the batches alone are split");
  expect(splits_when_bound(eight, all, part, "of all batches to some") == "1", "there is too little workspace");
  const std::string said = operator_of(*d.table, "attention_gqa").plan_explain(all.handle());
  expect(said.find("for want of workspace") != std::string::npos, "explain() says why there are no splits: " + said);
}

// Every configuration by its name; a plan of one that is bound to a problem of other sizes chooses again.
void configurations(const Device& d) {
  const kw_op& op = operator_of(*d.table, "attention_gqa");
  const char* variable = "KERNWATT_ATTENTION_GQA";
  setenv("KERNWATT_UNPROVED", "1", 1);
  const auto named = [&](Case t) {
    Problem p(d, t);
    const int count = every_named(d, op, &p.there(), variable, [&](BoundPlan& plan) {
      for (Operand* o : {&p.y, &p.lse}) std::fill(o->bytes.begin(), o->bytes.end(), uint8_t{0xff}), o->upload();
      if (plan.enqueue()) return false;
      p.y.download(), p.lse.download();
      return d.sync() == 0 && p.check().empty();
    });
    for (const char* wrong : {"mma_32", "mma_64/0", "mma_64/two", "sm90_attn_128/2"})
      refuses_named(d, op, &p.there(), wrong);
    return count;
  };
  const bool sm90 = d.info.cc_major == 9;
  Case t;
  t.heads_q = 4, t.heads_kv = 2, t.len_kv = 600;
  expect(named(t) == 9 + sm90, "one row: three kernels, the keys in 1, 2 and 4 parts");
  t.len_q = 70, t.len_kv = 200, t.causal = true;
  expect(named(t) == 2 + sm90, "too many rows for mma_16, too few keys for parts");
  t.batch_invariant = true;
  expect(named(t) == 2, "batch_invariant: kernels that give the same bits");
  t.batch_invariant = false, t.in = t.out = DType::f32;
  expect(named(t) == 1, "f32: one kernel");
  unsetenv("KERNWATT_UNPROVED");

  Case whole;
  whole.heads_q = 4, whole.len_q = 40, whole.len_kv = 600;
  Case other = whole;
  other.len_q = 1;
  Problem p(d, whole), q(d, other);
  BoundPlan plan(d, op, &p.there(), variable, "", "mma_64/4"), own(d, op, &q.there(), variable, "");
  plan.rebind(&q.there());
  const auto configuration = [](const BoundPlan& of) { return explained(of.explain().c_str(), "configuration"); };
  expect(configuration(plan) == configuration(own), "other sizes: " + plan.explain());
  plan.rebind(&p.there());
  expect(configuration(plan) == "mma_64/4", "the sizes it was made for: " + plan.explain());
}

// batch_invariant cuts the keys by the capacity of the plan, whatever it is bound to: the same bits.
void capacity(const Device& d) {
  Case large;
  large.batch_invariant = true, large.out = DType::f32, large.dim = large.dim_v = 8;
  large.len_kv = 66000, large.lens_kv = {3000};  // at 64 splits and more than 65536 keys a split has more than 1024
  Case small = large;
  small.len_kv = 3000;
  Problem p(d, large), q(d, small);
  expect(p.run().empty() && p.check().empty(), "3000 of 66000 keys");
  for (const auto& [from, to] : {std::pair{&p.q, &q.q}, {&p.k, &q.k}, {&p.v, &q.v}}) {
    to->each([&, from = from, to = to](int64_t at) {
      store_f32(to->host.data, large.in, at, load_f32(from->host.data, large.in, at));
    });
    to->upload();
  }
  expect(bound(d, p, q).empty(), "3000 keys");
  expect(q.y.bytes == p.y.bytes && q.lse.bytes == p.lse.bytes, "batch_invariant: the same bits bound to fewer keys");
}

void refusals(const Device& d) {
  const kw_op& op = operator_of(*d.table, "attention_gqa");
  Case t;
  Problem p(d, t);
  const auto declines = [&](auto change, const char* words) {
    AttentionGqaArgs args = p.there();
    change(args);
    const int32_t status = op.supports(&d.info, &args);
    expect(status == static_cast<int32_t>(Code::UNSUPPORTED) && std::strstr(d.table->last_error(), words),
           std::string("supports refuses with '") + words + "': " + d.table->last_error());
  };
  declines([](AttentionGqaArgs& a) { a.q.shape[3] = a.k.shape[3] = 257; }, "dim is 257, expected 1 to 256");
  declines([](AttentionGqaArgs& a) { a.v.shape[3] = 300; }, "dim_v is 300, expected 1 to 256");
  declines([](AttentionGqaArgs& a) { a.k.dtype = DType::f16; }, "dtype of k is f16, expected bf16");
  declines([](AttentionGqaArgs& a) { a.q.dtype = DType::i8; }, "dtype of q is i8, expected f32, f16 or bf16");
  declines([](AttentionGqaArgs& a) { a.v.stride[3] = 2; }, "the last stride of v is 2, expected 1");
  declines([](AttentionGqaArgs& a) { a.k.shape[1] = a.v.shape[1] = 1 << 25; }, "len_kv is 33554432, expected at most");
}
}  // namespace

void properties(const Device& d, size_t round) {
  const auto due = [&](size_t number) { return full || round % kRounds == number; };
  if (due(0)) exact(d);
  if (due(1)) invariance(d), configurations(d);
  if (due(2) || due(5)) repetition(d);
  if (due(3)) wrong_lengths(d), refusals(d), empty_rows(d);
  if (due(3) && !race) edges(d);  // every access they make, the cases make too
  if (due(4)) graphs(d), rebinding(d), shrinking(d), capacity(d);
}

}  // namespace kw::test
