// The CPU backend of attention_gqa, every instruction set this machine has, against the definition: random cases over tile edges,
// dtypes, layouts and every feature, under the tolerance rule of kernels/core/reference.h, with NaN wherever nothing may be
// read; rows that see one key bit for bit; lengths that are wrong; equal results for any number of threads and in any company.
// Built by test/cpu/CMakeLists.txt.
//
//   attention_gqa_cpu_test [cases [seed]]
#include <array>
#include <memory>

#include "../../kernels/attention_gqa/attention_gqa.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::test;

struct Case {
  Holder q, k, v, bias, mask, alibi, sink, lens_q, lens_kv, cu_q, cu_kv, y, lse;
  AttentionGqaArgs args;
  std::string text;

  void attach() {
    const auto set = [](TensorView& to, const Holder& from) { to = from.view; };
    set(args.q, q), set(args.k, k), set(args.v, v), set(args.bias, bias), set(args.mask, mask);
    set(args.alibi, alibi), set(args.sink, sink), set(args.lens_q, lens_q), set(args.lens_kv, lens_kv);
    set(args.cu_q, cu_q), set(args.cu_kv, cu_kv), set(args.y, y), set(args.lse, lse);
  }
  void describe(cpu::Isa isa, int threads) { text = test::describe(isa, threads, args); }
};

struct Sizes {
  int64_t batch, len_q, len_kv, heads_kv, group, dim, dim_v;
  int64_t work() const { return batch * len_q * len_kv * heads_kv * group * (dim + dim_v); }
};

int64_t extent(std::initializer_list<int64_t> edges, int64_t most) {
  return chance(0.7) ? one_of(edges) : pick(1, most);
}

Sizes random_sizes(int64_t limit) {
  for (;;) {
    Sizes s;
    s.batch = one_of<int64_t>({1, 1, 1, 2, 3, 0});
    s.len_q = extent({1, 1, 1, 2, 3, 4, 7, 8, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257, 0}, 150);
    s.len_kv = extent(
        {1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1030, 0}, 300);
    s.heads_kv = one_of<int64_t>({1, 1, 2, 3, 5});
    s.group = one_of<int64_t>({1, 1, 2, 3, 4, 7, 8, 16, 17});
    s.dim = extent({1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 64, 65, 80, 96, 128, 192, 255, 256}, 256);
    s.dim_v = chance(0.6) ? s.dim : extent({1, 7, 8, 16, 17, 32, 33, 64, 128, 255, 256}, 256);
    if (s.work() <= limit) return s;
  }
}

void shape_tensors(Case& t, const Sizes& s, DType in, DType out) {
  const auto place = [&](Holder& h, DType dtype, const std::vector<int64_t>& dims) {
    // [batch, len, heads, dim] stored so, with heads outside len, or with batch innermost but dim
    const std::vector<int> order = one_of<std::vector<int>>({{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 2, 1, 3}, {1, 2, 0, 3}});
    h.shape(dtype, dims, chance(0.5), order);
  };
  const int64_t heads = s.heads_kv * s.group;
  place(t.q, in, {s.batch, s.len_q, heads, s.dim});
  place(t.k, in, {s.batch, s.len_kv, s.heads_kv, s.dim});
  place(t.v, in, {s.batch, s.len_kv, s.heads_kv, s.dim_v});
  place(t.y, out, {s.batch, s.len_q, heads, s.dim_v});
  t.lse.shape(DType::f32, {s.batch, heads, s.len_q}, chance(0.5));
}

// Fills rows begin .. end - 1 of dimension 1, in one batch or in all.
void fill_rows(Holder& h, int64_t batch, int64_t begin, int64_t end, const std::function<float()>& value) {
  h.each([&](int64_t at, const int64_t* index) {
    if ((batch < 0 || index[0] == batch) && index[1] >= begin && index[1] < end)
      store_f32(h.view.data, h.view.dtype, at, value());
  });
}

void integers(Holder& h, const std::vector<int64_t>& values) {
  h.shape(DType::i32, {static_cast<int64_t>(values.size())}, chance(0.5));
  size_t next = 0;
  h.each([&](int64_t at, const int64_t*) {
    static_cast<int32_t*>(h.view.data)[at] = static_cast<int32_t>(values[next++]);
  });
}

// Ascending numbers from 0 or more to at most `high`.
std::vector<int64_t> cuts(int64_t count, int64_t high) {
  std::vector<int64_t> c;
  for (int64_t i = 0; i < count; ++i) c.push_back(chance(0.2) ? 0 : pick(0, high));
  std::sort(c.begin(), c.end());
  if (chance(0.6)) c.front() = 0;
  if (chance(0.6)) c.back() = high;
  return c;
}

// Rows and keys that are there hold `value`; everything else keeps its NaN.
void fill_lengths(Case& t, const Sizes& s, const std::function<float()>& value) {
  const int kind = static_cast<int>(pick(0, 5));
  if (kind == 0 && s.batch == 1) {
    const int64_t sequences = pick(1, 5);
    const auto cu_q = cuts(sequences + 1, s.len_q), cu_kv = cuts(sequences + 1, s.len_kv);
    integers(t.cu_q, cu_q), integers(t.cu_kv, cu_kv);
    fill_rows(t.q, -1, cu_q.front(), cu_q.back(), value);
    fill_rows(t.k, -1, cu_kv.front(), cu_kv.back(), value), fill_rows(t.v, -1, cu_kv.front(), cu_kv.back(), value);
    return;
  }
  std::vector<int64_t> lens_q, lens_kv;
  for (int64_t b = 0; b < s.batch; ++b) {
    lens_q.push_back(kind == 1 || kind == 2 ? pick(0, s.len_q) : s.len_q);
    lens_kv.push_back(kind == 2 || kind == 3 ? pick(0, s.len_kv) : s.len_kv);
    fill_rows(t.q, b, 0, lens_q[b], value);
    fill_rows(t.k, b, 0, lens_kv[b], value), fill_rows(t.v, b, 0, lens_kv[b], value);
  }
  if (kind == 1 || kind == 2) integers(t.lens_q, lens_q);
  if (kind == 2 || kind == 3) integers(t.lens_kv, lens_kv);
}

void random_features(Case& t, const Sizes& s) {
  AttentionGqaArgs& a = t.args;
  const int64_t heads = s.heads_kv * s.group;
  a.causal = chance(0.5);
  if (chance(0.3)) a.window_left = one_of<int64_t>({0, 1, 5, 16, 33, 100, 130, 1000});
  if (chance(0.2)) a.window_right = one_of<int64_t>({0, 1, 7, 40, 200});
  if (chance(0.2)) a.softcap = one_of({0.5f, 5.0f, 50.0f});
  const auto one = [](int64_t n) { return chance(0.3) ? int64_t{1} : n; };
  if (chance(0.3)) {
    t.bias.shape(one_of({DType::f32, DType::f16, DType::bf16}), {one(s.batch), one(heads), s.len_q, s.len_kv},
                 chance(0.5), {}, {chance(0.2), chance(0.2)});
    const bool infinite = chance(0.2);
    t.bias.fill([infinite] { return infinite && chance(0.3) ? -std::numeric_limits<float>::infinity() : normal(); });
  }
  if (chance(0.3)) {
    a.mask_block_q = one_of<int64_t>({1, 1, 2, 16, 64}), a.mask_block_kv = one_of<int64_t>({1, 1, 3, 16, 64, 128});
    const auto blocks = [](int64_t n, int64_t block) { return (n + block - 1) / block; };
    t.mask.shape(DType::u8,
                 {one(s.batch), one(heads), blocks(s.len_q, a.mask_block_q), blocks(s.len_kv, a.mask_block_kv)},
                 chance(0.5), {}, {chance(0.2), chance(0.2)});
    const double density = one_of({0.0, 0.1, 0.6, 1.0});
    t.mask.fill([density] { return chance(density) ? static_cast<float>(pick(1, 255)) : 0.0f; });
  }
  if (chance(0.3)) {
    t.alibi.shape(DType::f32, {heads}, chance(0.5));
    t.alibi.fill([] { return std::ldexp(1.0f, static_cast<int>(-pick(1, 8))); });
  }
  if (chance(0.3)) {
    t.sink.shape(DType::f32, {heads}, chance(0.5));
    t.sink.fill([] { return chance(0.1) ? -std::numeric_limits<float>::infinity() : 2 * normal(); });
  }
}

std::unique_ptr<Case> random_case() {
  auto t = std::make_unique<Case>();
  const Sizes s = random_sizes(6'000'000);
  const DType in = one_of({DType::f32, DType::f16, DType::bf16});
  shape_tensors(*t, s, in, chance(0.5) ? in : one_of({DType::f32, DType::f16, DType::bf16}));
  t->args.scale = one_of({1 / std::sqrt(static_cast<float>(s.dim)), 0.3f, 1.0f, -0.2f, 0.0f});
  random_features(*t, s);
  fill_lengths(*t, s, normal);
  t->attach();
  return t;
}

// Each row sees the key at its own place, if that: then lse is its score and y the key's value, to the last bit.
std::unique_ptr<Case> exact_case() {
  auto t = std::make_unique<Case>();
  const Sizes s = random_sizes(6'000'000);
  const DType in = one_of({DType::f32, DType::f16, DType::bf16});
  shape_tensors(*t, s, in, one_of({in, DType::f32}));
  t->args.scale = one_of({1.0f, 0.25f, -2.0f});
  t->args.window_left = 0;
  t->args.window_right = 0;
  fill_lengths(*t, s, [] { return static_cast<float>(pick(-3, 3)); });
  t->attach();
  return t;
}

void compare_both(const std::string& text, const Case& t, bool exact) {
  ReferenceOutputs r;
  ref::attention_gqa(t.args, RowList{}, r);
  compare(text + ": y", t.y, r[0], exact);
  compare(text + ": lse", t.lse, r[1], exact);
}

// On one instruction set, then again with another number of threads: the same bytes.
void check(Case& t, bool exact, cpu::Isa isa, ThreadPool& pool, ThreadPool& other) {
  t.describe(isa, pool.threads());
  const std::string explained = run(cpu::attention_gqa(), t.args, isa, pool);
  if (explained.rfind("{\"variant\":\"attention_gqa_cpu_", 0) != 0) return expect(false, t.text + ": " + explained);
  compare_both(t.text, t, exact);
  const std::vector<uint8_t> y = t.y.bytes, lse = t.lse.bytes;
  run(cpu::attention_gqa(), t.args, isa, other);
  expect(t.y.bytes == y && t.lse.bytes == lse,
         t.text + ": differs with " + std::to_string(other.threads()) + " threads");
}

// Every instruction set up to this one, by name, for another case.
void check_configurations(cpu::Isa isa, ThreadPool& pool, std::map<std::string, int>& ran) {
  for (int n = 0; n < 12; ++n) {
    const auto made = random_case();
    Case& t = *made;
    t.describe(isa, pool.threads());
    ReferenceOutputs r;
    ref::attention_gqa(t.args, RowList{}, r);
    compare_configurations(cpu::attention_gqa(), t, r[0], false, isa, pool, ran);
  }
}

void check_one(Case& t, cpu::Isa isa, ThreadPool& pool) {
  t.attach();
  t.describe(isa, pool.threads());
  run(cpu::attention_gqa(), t.args, isa, pool);
  compare_both(t.text, t, false);
}

// A sequence gives the same bits alone as in a batch, whatever is computed beside it.
void check_company(cpu::Isa isa, ThreadPool& pool) {
  for (const auto& [len_q, len_kv, group] :
       {std::array<int64_t, 3>{1, 1500, 4}, {1, 700, 1}, {9, 1100, 8}, {200, 200, 2}}) {
    Case all;
    shape_tensors(all, {5, len_q, len_kv, 3, group, 64, 48}, DType::bf16, DType::f32);
    all.args.scale = 0.125f, all.args.causal = true;
    for (Holder* h : {&all.q, &all.k, &all.v}) h->fill(normal);
    all.attach();
    all.describe(isa, pool.threads());
    run(cpu::attention_gqa(), all.args, isa, pool);
    Case alone;
    shape_tensors(alone, {1, len_q, len_kv, 3, group, 64, 48}, DType::bf16, DType::f32);
    alone.attach();
    for (TensorView* view : {static_cast<TensorView*>(&alone.args.q), static_cast<TensorView*>(&alone.args.k),
                             static_cast<TensorView*>(&alone.args.v)}) {
      const TensorView& whole = view == &alone.args.q ? all.q.view : view == &alone.args.k ? all.k.view : all.v.view;
      *view = whole;
      view->data = static_cast<char*>(whole.data) + 3 * whole.stride[0] * bits(whole.dtype) / 8;
      view->shape[0] = 1;
    }
    alone.args.scale = 0.125f, alone.args.causal = true;
    run(cpu::attention_gqa(), alone.args, isa, pool);
    bool same = true;
    alone.y.each([&](int64_t at, const int64_t* i) {
      const int64_t* stride = all.y.view.stride;
      const int64_t there = 3 * stride[0] + i[1] * stride[1] + i[2] * stride[2] + i[3] * stride[3];
      same &= static_cast<const float*>(alone.y.view.data)[at] == static_cast<const float*>(all.y.view.data)[there];
    });
    expect(same, all.text + ": a batch of one differs");
  }
}

// Infinity and NaN in q or k reach their own rows and nothing else; a sink above every score takes all the weight.
void check_special(cpu::Isa isa, ThreadPool& pool, DType dtype) {
  for (const int64_t len_q : {1, 6, 40}) {
    Case t;
    shape_tensors(t, {2, len_q, 70, 2, 2, 40, 40}, dtype, DType::f32);
    for (Holder* h : {&t.q, &t.k, &t.v}) h->fill([] { return normal(); });
    t.q.each([&](int64_t at, const int64_t* i) {
      if (i[0] == 1 && i[1] == 0 && i[2] == 1 && i[3] == 7) store_f32(t.q.view.data, dtype, at, NAN);
    });
    t.sink.shape(DType::f32, {4});
    t.sink.each([&](int64_t at, const int64_t* i) {
      const float inf = std::numeric_limits<float>::infinity();
      static_cast<float*>(t.sink.view.data)[at] = i[0] == 0 ? 200.0f : i[0] == 1 ? -inf : i[0] == 2 ? inf : -200.0f;
    });
    t.args.scale = 0.2f;
    check_one(t, isa, pool);
  }
}

// Scores whose exponentials overflow and underflow unless they are taken relative to the largest; and growing ones, so that
// everything summed before is rescaled by each tile.
void check_large(cpu::Isa isa, ThreadPool& pool, int64_t len_q) {
  Case t;
  shape_tensors(t, {1, len_q, 1100, 1, 1, 16, 20}, DType::f32, DType::f32);
  t.q.fill([] { return 1.0f; });
  t.k.each([&](int64_t at, const int64_t* i) {
    store_f32(t.k.view.data, DType::f32, at, static_cast<float>(i[1]) * 0.05f);
  });
  t.v.fill(normal);
  t.args.scale = 1;
  check_one(t, isa, pool);
}

// Lengths that do not fit are refused before anything is written.
void check_lengths(ThreadPool& pool) {
  const auto refused = [&](Case& t, const std::string& message) {
    t.attach();
    const std::string result = run(cpu::attention_gqa(), t.args, cpu::Isa::generic, pool);
    expect(result == "error: attention_gqa: " + message, "refusal: got " + result);
    expect(std::all_of(t.y.bytes.begin(), t.y.bytes.end(), [](uint8_t b) { return b == kGuard; }),
           message + ": y was written");
    bool threw = false;
    try {
      ReferenceOutputs r;
      ref::attention_gqa(t.args, RowList{}, r);
    } catch (const Error& error) {
      threw = error.code == Code::INDEX && error.what() == "attention_gqa: " + message;
    }
    expect(threw, message + ": the definition did not refuse it");
  };
  const auto with = [&](int64_t batch, const auto& fill, const std::string& message) {
    Case t;
    shape_tensors(t, {batch, 6, 8, 1, 2, 4, 4}, DType::f32, DType::f32);
    fill(t);
    refused(t, message);
  };
  with(
      2,
      [](Case& t) {
        integers(t.lens_kv, {8, 9});
      },
      "lens_kv[1] is 9, expected 0 to 8");
  with(
      2,
      [](Case& t) {
        integers(t.lens_q, {-1, 6});
      },
      "lens_q[0] is -1, expected 0 to 6");
  const auto cu = [](std::vector<int64_t> q, std::vector<int64_t> kv) {
    return [=](Case& t) { integers(t.cu_q, q), integers(t.cu_kv, kv); };
  };
  with(1, cu({0, 4, 3}, {0, 4, 8}), "cu_q[2] is 3, expected 4 to 6");
  with(1, cu({0, 4, 6}, {0, 4, 10}), "cu_kv[2] is 10, expected 4 to 8");
}

void check_declines() {
  ThreadPool pool(1);
  const auto declined = [&pool](Case& t, const char* message) {
    const std::string result = run(cpu::attention_gqa(), t.args, cpu::Isa::generic, pool);
    expect(result == std::string("declined: attention_gqa: ") + message, "declines: got " + result);
  };
  const auto fresh = [](Case& t) {
    shape_tensors(t, {1, 2, 3, 1, 1, 4, 4}, DType::f32, DType::f32);
    t.attach();
  };
  Case t;
  fresh(t), t.args.q.dtype = DType::i8;
  declined(t, "q is i8, expected f32, f16 or bf16");
  fresh(t), t.args.v.dtype = DType::bf16;
  declined(t, "v is bf16, expected f32 as q");
  fresh(t), t.args.lse.dtype = DType::f16;
  declined(t, "lse is f16, expected f32");
  fresh(t), t.args.y.stride[3] = 2;
  declined(t, "last dimension of y has stride 2, expected 1");
}

// A plan made for a large problem serves smaller ones, and other lengths, in the same workspace.
void check_rebind(cpu::Isa isa, ThreadPool& pool) {
  kw_device_info device{};
  device.sm_count = pool.threads();
  device.isa = static_cast<int32_t>(isa);
  const kw_op& op = cpu::attention_gqa();
  const auto make = [](Case& t, int64_t batch, int64_t len_q, int64_t len_kv) {
    shape_tensors(t, {batch, len_q, len_kv, 2, 3, 40, 24}, DType::f16, DType::f32);
    t.args.scale = 0.2f, t.args.causal = true;
    std::vector<int64_t> lens_q, lens_kv;
    for (int64_t b = 0; b < batch; ++b) lens_q.push_back(pick(0, len_q)), lens_kv.push_back(pick(0, len_kv));
    for (Holder* h : {&t.q, &t.k, &t.v}) h->fill(normal);
    integers(t.lens_q, lens_q), integers(t.lens_kv, lens_kv);
    t.attach();
  };
  Case large;
  kw_plan* plan = nullptr;
  make(large, 3, 70, 1100), op.plan_create(&device, &large.args, &plan);
  std::vector<float> space(op.plan_workspace(plan) / sizeof(float) + 16);
  for (const auto& [batch, len_q, len_kv] :
       {std::array<int64_t, 3>{3, 70, 1100}, {3, 70, 1100}, {3, 1, 1100}, {2, 50, 600}, {1, 70, 1}, {3, 2, 1024}}) {
    Case t;
    make(t, batch, len_q, len_kv);
    t.describe(isa, pool.threads());
    std::memset(space.data(), kGuard, space.size() * sizeof(float));
    auto* aligned = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(space.data()) + 63) / 64 * 64);
    const bool ok = op.plan_rebind(plan, &t.args, aligned) == 0 && op.plan_enqueue(plan, &pool) == 0;
    expect(ok, "rebind " + t.text + ": " + (ok ? "" : last_error()));
    compare_both("rebind " + t.text, t, false);
  }
  op.plan_destroy(plan);
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv, 400);
  std::map<std::string, int> ran;
  each_isa(arguments, [&](cpu::Isa isa, Pools& pools) {
    for (int n = 0; n < arguments.cases; ++n) {
      const bool exact = n % 5 == 0;
      check(exact ? *exact_case() : *random_case(), exact, isa, pools.two, n % 2 ? pools.three : pools.one);
    }
    check_configurations(isa, pools.two, ran);
    check_company(isa, pools.two);
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) check_special(isa, pools.two, dtype);
    for (const int64_t len_q : {1, 20, 150}) check_large(isa, pools.two, len_q);
    check_rebind(isa, pools.two);
    check_lengths(pools.two);
  });
  check_declines();
  each_isa(arguments, [&](cpu::Isa isa, Pools&) {
    expect(isa == cpu::Isa::amx_bf16 || ran[cpu::name(isa)] > 0, std::string("some case asks for ") + cpu::name(isa));
  });
  return closing_line();
}
