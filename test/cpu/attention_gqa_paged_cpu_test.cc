// The CPU backend of attention_gqa_paged, every instruction set this machine has: random cases against the definition, with pages of
// any size in any order, shared between requests or not, of f8e4m3 or of the queries' type, and NaN in every slot and table entry that nothing may read; the same
// bits as attention_gqa on gathered keys, with any number of threads and in any company; parts of keys; values out of range.
// Built by test/cpu/CMakeLists.txt.
//
//   attention_gqa_paged_cpu_test [cases [seed]]
#include <array>
#include <memory>

#include "../../kernels/attention_gqa/attention_gqa.h"
#include "../../kernels/attention_gqa_paged/attention_gqa_paged.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::test;

struct Sizes {
  int64_t batch = 1, len_q = 1, heads_kv = 1, group = 1, dim = 16, dim_v = 16, page_size = 16, max_pages = 4;
  int64_t capacity() const { return max_pages * page_size; }
};

struct Case {
  Holder q, k_cache, v_cache, page_table, lens_kv, lens_q, sink, k_scale, v_scale, y, lse;
  Sizes sizes;
  AttentionGqaPagedArgs args;
  std::string text;

  int32_t& table(int64_t b, int64_t entry) {
    const TensorView& t = page_table.view;
    return static_cast<int32_t*>(t.data)[b * t.stride[0] + entry * t.stride[1]];
  }
  int32_t& length(Holder& lens, int64_t b) { return static_cast<int32_t*>(lens.view.data)[b * lens.view.stride[0]]; }

  void attach() {
    const auto set = [](TensorView& to, const Holder& from) { to = from.view; };
    set(args.q, q), set(args.k_cache, k_cache), set(args.v_cache, v_cache), set(args.page_table, page_table);
    set(args.lens_kv, lens_kv), set(args.lens_q, lens_q), set(args.sink, sink), set(args.y, y), set(args.lse, lse);
    set(args.k_scale, k_scale), set(args.v_scale, v_scale);
    text.clear();
    for_each_field(args, [this](const char* field, auto& value) {
      using Value = std::remove_reference_t<decltype(value)>;
      if constexpr (std::is_base_of_v<TensorView, Value>) {
        text += test::describe(field, value);
      } else {
        text += std::string(" ") + field + " " + std::to_string(value);
      }
    });
  }
};

void fill_numbers(Holder& h, int64_t n, const std::function<int64_t(int64_t)>& value) {
  h.shape(DType::i32, {n}, chance(0.5));
  h.each([&](int64_t at, const int64_t* i) {
    static_cast<int32_t*>(h.view.data)[at] = static_cast<int32_t>(value(i[0]));
  });
}

// Lengths, tables and the slots that they name; everything else stays NaN, and entries past a length name no page.
void fill_cache(Case& t, const std::function<int64_t(int64_t)>& length, bool shared,
                const std::function<float()>& value) {
  const Sizes& s = t.sizes;
  fill_numbers(t.lens_kv, s.batch, length);
  const int64_t pages = t.k_cache.view.shape[0];
  std::vector<int32_t> order(pages);
  for (int64_t p = 0; p < pages; ++p) order[p] = static_cast<int32_t>(p);
  std::shuffle(order.begin(), order.end(), rng);
  t.page_table.shape(DType::i32, {s.batch, s.max_pages}, chance(0.5));
  std::vector<int64_t> used(pages);  // slots of a page
  size_t next = 0;
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t length = t.length(t.lens_kv, b);
    for (int64_t entry = 0; entry < s.max_pages; ++entry) {
      const int64_t slots = std::clamp<int64_t>(length - entry * s.page_size, 0, s.page_size);
      if (slots == 0) {
        t.table(b, entry) = one_of({-1, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()});
        continue;
      }
      const int32_t page = shared ? order[pick(0, pages - 1)] : order[next++];
      t.table(b, entry) = page;
      used[page] = std::max(used[page], slots);
    }
  }
  for (Holder* h : {&t.k_cache, &t.v_cache}) {
    h->each([&](int64_t at, const int64_t* i) {
      if (i[1] < used[i[0]]) store_f32(h->view.data, h->view.dtype, at, value());
    });
  }
}

void shape_tensors(Case& t, const Sizes& s, DType in, DType out, bool f8 = false) {
  t.sizes = s;
  const int64_t heads = s.heads_kv * s.group, pages = s.batch * s.max_pages + pick(0, 3);
  const auto place = [](Holder& h, DType dtype, const std::vector<int64_t>& dims) {
    h.shape(dtype, dims, chance(0.5),
            one_of<std::vector<int>>({{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 2, 1, 3}, {1, 2, 0, 3}}));
  };
  place(t.q, in, {s.batch, s.len_q, heads, s.dim});
  const DType cache = f8 ? DType::f8e4m3 : in;
  place(t.k_cache, cache, {pages, s.page_size, s.heads_kv, s.dim});
  place(t.v_cache, cache, {pages, s.page_size, s.heads_kv, s.dim_v});
  place(t.y, out, {s.batch, s.len_q, heads, s.dim_v});
  t.lse.shape(DType::f32, {s.batch, heads, s.len_q}, chance(0.5));
}

void fill_queries(Case& t, const std::function<float()>& value) {
  const Sizes& s = t.sizes;
  const bool ragged = chance(0.4);
  if (ragged) fill_numbers(t.lens_q, s.batch, [&](int64_t) { return pick(0, s.len_q); });
  t.q.each([&](int64_t at, const int64_t* i) {
    if (!ragged || i[1] < t.length(t.lens_q, i[0])) store_f32(t.q.view.data, t.q.view.dtype, at, value());
  });
}

std::unique_ptr<Case> random_case(bool exact) {
  auto t = std::make_unique<Case>();
  Sizes s;
  do {
    s.batch = one_of<int64_t>({1, 1, 2, 3, 5, 0});
    s.len_q = one_of<int64_t>({1, 1, 1, 2, 4, 5, 17, 33, 70, 0});
    s.heads_kv = one_of<int64_t>({1, 1, 2, 3, 5});
    s.group = one_of<int64_t>({1, 1, 2, 4, 7, 8, 16, 17});
    s.dim = one_of<int64_t>({1, 3, 16, 17, 32, 64, 80, 128, 255, 256});
    s.dim_v = chance(0.6) ? s.dim : one_of<int64_t>({1, 7, 16, 33, 64, 128, 256});
    s.page_size = one_of<int64_t>({1, 2, 3, 5, 8, 15, 16, 17, 32, 48, 64, 100, 256});
    s.max_pages = std::max<int64_t>(1, one_of<int64_t>({1, 20, 64, 130, 300, 530, 600, 1100}) / s.page_size);
  } while (s.batch * s.len_q * s.heads_kv * s.group * s.capacity() * (s.dim + s.dim_v) > 4'000'000);
  const DType in = one_of({DType::f32, DType::f16, DType::bf16});
  const bool f8 = chance(0.3);
  shape_tensors(*t, s, in, exact ? one_of({in, DType::f32}) : one_of({in, DType::f32, DType::f16, DType::bf16}), f8);
  for (Holder* scale : {&t->k_scale, &t->v_scale}) {
    if (!f8) continue;
    scale->shape(DType::f32, {s.heads_kv}, chance(0.5));
    scale->fill([exact] { return exact ? one_of({0.25f, 1.0f, 8.0f}) : std::exp(normal()); });
  }
  const auto value = exact ? std::function<float()>([] { return static_cast<float>(pick(-3, 3)); }) : normal;
  fill_queries(*t, value);
  fill_cache(
      *t, [&](int64_t) { return chance(0.1)   ? 0
                                : chance(0.3) ? s.capacity()
                                              : pick(1, s.capacity()); }, chance(0.3),
      value);
  AttentionGqaPagedArgs& a = t->args;
  a.splits = one_of<int64_t>({0, 0, 0, 1, 2, 3, 100});
  a.batch_invariant = chance(0.3);
  if (exact) {  // each row sees the key at its own place alone
    a.scale = one_of({1.0f, 0.25f, -2.0f});
    a.window_left = 0;
  } else {
    a.scale = one_of({1 / std::sqrt(static_cast<float>(s.dim)), 0.3f, -0.2f});
    a.causal = chance(0.7);
    if (chance(0.3)) a.window_left = one_of<int64_t>({0, 1, 5, 16, 33, 100, 130, 1000});
    if (chance(0.2)) a.softcap = one_of({0.5f, 5.0f, 50.0f});
    if (chance(0.3)) {
      t->sink.shape(DType::f32, {s.heads_kv * s.group}, chance(0.5));
      t->sink.fill([] { return 2 * normal(); });
    }
  }
  t->attach();
  return t;
}

// attention_gqa on the keys and values gathered from their pages.
void check_gathered(const Case& t, cpu::Isa isa, ThreadPool& pool) {
  if (t.args.splits != 0 || t.args.k_scale.present()) return;
  const Sizes& s = t.sizes;
  Case& from = const_cast<Case&>(t);
  Holder k, v, y, lse;
  k.shape(t.k_cache.view.dtype, {s.batch, s.capacity(), s.heads_kv, s.dim});
  v.shape(t.v_cache.view.dtype, {s.batch, s.capacity(), s.heads_kv, s.dim_v});
  for (const auto& [to, cache] : {std::pair{&k, &t.k_cache}, std::pair{&v, &t.v_cache}}) {
    to->each([&, to = to, cache = cache](int64_t at, const int64_t* i) {
      if (i[1] >= from.length(from.lens_kv, i[0])) return;
      const int64_t* stride = cache->view.stride;
      const int64_t element = from.table(i[0], i[1] / s.page_size) * stride[0] + i[1] % s.page_size * stride[1] +
                              i[2] * stride[2] + i[3] * stride[3];
      store_f32(to->view.data, to->view.dtype, at, load_f32(cache->view.data, cache->view.dtype, element));
    });
  }
  y = t.y, lse = t.lse;
  y.view.data = y.bytes.data() + y.offset * bits(y.view.dtype) / 8;
  lse.view.data = lse.bytes.data() + lse.offset * bits(lse.view.dtype) / 8;
  AttentionGqaArgs a;
  static_cast<TensorView&>(a.q) = t.args.q, static_cast<TensorView&>(a.sink) = t.args.sink;
  static_cast<TensorView&>(a.lens_q) = t.args.lens_q, static_cast<TensorView&>(a.lens_kv) = t.args.lens_kv;
  static_cast<TensorView&>(a.k) = k.view, static_cast<TensorView&>(a.v) = v.view;
  static_cast<TensorView&>(a.y) = y.view, static_cast<TensorView&>(a.lse) = lse.view;
  a.scale = t.args.scale, a.softcap = t.args.softcap, a.causal = t.args.causal, a.window_left = t.args.window_left;
  run(cpu::attention_gqa(), a, isa, pool);
  expect(y.bytes == t.y.bytes && lse.bytes == t.lse.bytes, t.text + ": attention_gqa on gathered keys differs");
}

void compare_both(const std::string& text, const Case& t, const ReferenceOutputs& r, bool exact) {
  compare(text + ": y", t.y, r[0], exact);
  compare(text + ": lse", t.lse, r[1], exact);
}

void check(Case& t, bool exact, cpu::Isa isa, Pools& pools) {
  const std::string text = std::string(cpu::name(isa)) + t.text;
  const std::string explained = run(cpu::attention_gqa_paged(), t.args, isa, pools.two);
  if (explained.rfind("{\"variant\":\"attention_gqa_paged_cpu_", 0) != 0) return expect(false, text + ": " + explained);
  ReferenceOutputs r;
  ref::attention_gqa_paged(t.args, RowList{}, r);
  compare_both(text, t, r, exact);
  check_gathered(t, isa, pools.three);
  const std::vector<uint8_t> y = t.y.bytes, lse = t.lse.bytes;
  run(cpu::attention_gqa_paged(), t.args, isa, chance(0.5) ? pools.three : pools.one);
  expect(t.y.bytes == y && t.lse.bytes == lse, text + ": differs with another number of threads");
}

// Chosen rows of the definition are those of all.
void check_rows(const Case& t) {
  if (t.y.view.count() == 0) return;
  ReferenceOutputs all, some;
  ref::attention_gqa_paged(t.args, RowList{}, all);
  std::vector<int64_t> rows;
  for (int n = 0; n < 5; ++n) rows.push_back(pick(0, all[0].rows - 1));
  ref::attention_gqa_paged(t.args, {rows.data(), static_cast<int64_t>(rows.size()), false}, some);
  bool same = true;
  for (size_t n = 0; n < rows.size(); ++n) {
    for (int64_t c = 0; c < all[0].columns; ++c)
      same &= some[0].value[n * all[0].columns + c] == all[0].value[rows[n] * all[0].columns + c];
    same &= some[1].value[n] == all[1].value[some[1].element[n]];
  }
  expect(same, t.text + ": the definition of chosen rows differs");
}

// Two hundred times the same bits, on as many threads as the pool has.
void check_repeated(cpu::Isa isa, ThreadPool& pool) {
  Case t;
  shape_tensors(t, {.batch = 3, .heads_kv = 2, .group = 4, .dim = 64, .dim_v = 64, .page_size = 16, .max_pages = 70},
                DType::bf16, DType::bf16);
  t.q.fill(normal);
  fill_cache(
      t, [](int64_t b) { return int64_t{1100} >> b; }, false, normal);
  t.args.scale = 0.125f;
  t.attach();
  run(cpu::attention_gqa_paged(), t.args, isa, pool);
  const std::vector<uint8_t> y = t.y.bytes, lse = t.lse.bytes;
  int differ = 0;
  for (int n = 0; n < 200; ++n) {
    run(cpu::attention_gqa_paged(), t.args, isa, pool);
    differ += t.y.bytes != y || t.lse.bytes != lse;
  }
  expect(differ == 0, t.text + ": " + std::to_string(differ) + " of 200 repetitions differ");
}

// Every code of f8e4m3 is the value that it stands for, with few rows and with many, in every position of a vector; NaN too, where no
// other row has a weight of 0 for it.
void check_codes(cpu::Isa isa, ThreadPool& pool) {
  for (const DType in : {DType::f32, DType::f16, DType::bf16}) {
    for (const int64_t len_q : {1, 40}) {
      Case t;
      shape_tensors(t, {.len_q = len_q, .dim = 8, .dim_v = 256, .page_size = 64, .max_pages = 1}, in, DType::f32, true);
      t.q.fill(normal);
      for (Holder* scale : {&t.k_scale, &t.v_scale})
        scale->shape(DType::f32, {1}, false), scale->fill([] { return 1; });
      fill_cache(
          t, [](int64_t) { return 64; }, false, normal);
      const auto code = [len_q](const int64_t* i) {
        const int code = (i[3] + 17 * i[1]) & 0xff;
        return static_cast<uint8_t>(len_q > 1 && (code & 0x7f) == 0x7f ? 0 : code);
      };
      t.v_cache.each([&](int64_t at, const int64_t* i) { static_cast<uint8_t*>(t.v_cache.view.data)[at] = code(i); });
      t.args.window_left = 0;
      t.attach();
      run(cpu::attention_gqa_paged(), t.args, isa, pool);
      int wrong = 0;
      t.y.each([&](int64_t at, const int64_t* i) {
        const int64_t key[] = {0, i[1] + 64 - len_q, 0, i[3]};
        const float want = f8e4m3_to_f32(code(key)), have = static_cast<const float*>(t.y.view.data)[at];
        wrong += std::isnan(want) ? !std::isnan(have) : have != want;
      });
      expect(wrong == 0, t.text + ": " + std::to_string(wrong) + " codes are not what they stand for");
    }
  }
}

// What is out of range is reported once everything has been computed, and other requests are right.
void check_wrong(cpu::Isa isa, ThreadPool& pool) {
  const auto reported = [&](const std::function<void(Case&)>& spoil, const std::string& message) {
    for (const int64_t page_size : {3, 16}) {
      Case t;
      shape_tensors(t, {.batch = 3, .heads_kv = 2, .group = 2, .page_size = page_size, .max_pages = 8}, DType::f32,
                    DType::f32);
      t.q.fill(normal);
      fill_numbers(t.lens_q, 3, [](int64_t) { return 1; });
      fill_cache(
          t, [&](int64_t b) { return b == 1 ? 6 * page_size + 1 : 5; }, false, normal);
      spoil(t);
      t.attach();
      const std::string result = run(cpu::attention_gqa_paged(), t.args, isa, pool);
      const std::string expected = "error: attention_gqa_paged: " + message;
      expect(result.rfind(expected, 0) == 0, "expected " + expected + ", got " + result);
      ReferenceOutputs r;
      std::string threw;
      try {
        ref::attention_gqa_paged(t.args, RowList{}, r);
      } catch (const Error& error) {
        threw = std::string("error: ") + error.what();
      }
      expect(threw == result, "the definition says " + threw + ", the backend " + result);
      compare_both(t.text, t, r, false);
    }
  };
  reported([](Case& t) { t.table(1, 3) = 99; }, "page_table[1, 3] is 99, expected 0 to ");
  reported([](Case& t) { t.table(1, 0) = -1; }, "page_table[1, 0] is -1, expected 0 to ");
  reported([](Case& t) { t.length(t.lens_kv, 2) = -7; }, "lens_kv[2] is -7, expected 0 to ");
  reported(
      [](Case& t) {
        t.length(t.lens_kv, 1) = 1000;
        for (int64_t entry = 0; entry < 8; ++entry) t.table(1, entry) = t.table(0, 0);
        for (Holder* h : {&t.k_cache, &t.v_cache}) h->fill(normal);
      },
      "lens_kv[1] is 1000, expected 0 to ");
  reported([](Case& t) { t.length(t.lens_q, 0) = 2; }, "lens_q[0] is 2, expected 0 to 1");
}

void check_declines() {
  ThreadPool pool(1);
  const auto declined = [&pool](const std::function<void(Case&)>& spoil, const char* message) {
    Case t;
    shape_tensors(t, {}, DType::f32, DType::f32);
    t.q.fill(normal);
    fill_cache(
        t, [](int64_t) { return 5; }, false, normal);
    t.attach();
    spoil(t);
    const std::string result = run(cpu::attention_gqa_paged(), t.args, cpu::Isa::generic, pool);
    expect(result == std::string("declined: attention_gqa_paged: ") + message, "declines: got " + result);
  };
  declined([](Case& t) { t.args.q.dtype = DType::i8; }, "q is i8, expected f32, f16 or bf16");
  declined([](Case& t) { t.args.v_cache.dtype = DType::bf16; }, "v_cache is bf16, expected f32 as q, or f8e4m3");
  declined(
      [](Case& t) {
        t.k_scale.shape(DType::bf16, {1}, false);
        t.attach();
      },
      "k_scale is bf16, expected f32");
  declined([](Case& t) { t.args.k_cache.stride[3] = 2; }, "last dimension of k_cache has stride 2, expected 1");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv, 250);
  each_isa(arguments, [&](cpu::Isa isa, Pools& pools) {
    for (int n = 0; n < arguments.cases; ++n) {
      const bool exact = n % 5 == 0;
      const auto t = random_case(exact);
      check(*t, exact, isa, pools);
      if (isa == cpu::Isa::generic && n % 4 == 0) check_rows(*t);
    }
    check_repeated(isa, pools.three);
    check_wrong(isa, pools.two);
    check_codes(isa, pools.two);
  });
  check_declines();
  return closing_line();
}
