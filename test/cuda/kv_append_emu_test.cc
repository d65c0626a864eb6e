// kv_append through the table of a kernel library: pages of any size in any order, every type of cache, rows that are not there, keys
// turned and not, against the definition with the whole of both caches; lengths and pages out of range, which are INDEX and harm
// nobody else. Arguments: program.h.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "../../kernels/kv_append/kv_append.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;

constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};
constexpr DType kCaches[] = {DType::f32, DType::bf16, DType::f16, DType::f8e4m3};

struct Problem {
  int64_t batch = 2, len = 3, heads = 2, dim = 16, dim_v = 16, pages = 16, page_size = 4, entries = 4;
  DType in = DType::bf16, cache = DType::bf16;
  Operand k, v, table, lens_kv, lens_q, k_scale, v_scale, k_cache, v_cache;
  KvAppendArgs here, there;
  std::string text;

  void make(const Device& d, std::mt19937& random, bool crossed, int64_t pad) {
    const auto rows = [&](int64_t rows, int64_t columns) {
      const int64_t pitch = columns + pad;
      return crossed ? std::vector<int64_t>{rows * heads * pitch, pitch, rows * pitch, 1}
                     : std::vector<int64_t>{rows * heads * pitch, heads * pitch, pitch, 1};
    };
    k.place(d, in, {batch, len, heads, dim}, rows(len, dim), pad, true);
    v.place(d, in, {batch, len, heads, dim_v}, rows(len, dim_v), 0, true);
    k_cache.place(d, cache, {pages, page_size, heads, dim}, rows(page_size, dim), 0);
    v_cache.place(d, cache, {pages, page_size, heads, dim_v}, rows(page_size, dim_v), pad);
    for (Operand* o : {&k, &v, &k_cache, &v_cache}) o->fill(random, false);
    table.place(d, DType::i32, {batch, entries}, {entries + pad, 1}, 0, true);
    std::vector<int32_t> ids(static_cast<size_t>(pages));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random);
    size_t next = 0;
    table.each([&](int64_t at) { numbers(table)[at] = ids[next++]; });
    lens_kv.place(d, DType::i32, {batch}, {1}, 0, true);
    lens_kv.each([&](int64_t at) {
      numbers(lens_kv)[at] = static_cast<int32_t>(random() % static_cast<unsigned>(entries * page_size + 1));
    });
    if (random() % 2) {
      lens_q.place(d, DType::i32, {batch}, {1}, 0, true);
      lens_q.each(
          [&](int64_t at) { numbers(lens_q)[at] = static_cast<int32_t>(random() % static_cast<unsigned>(len + 1)); });
    }
    if (cache == DType::f8e4m3) {
      for (Operand* o : {&k_scale, &v_scale}) {
        o->place(d, DType::f32, {heads}, {1}, 0, true);
        o->each([&](int64_t at) {
          static_cast<float*>(o->host.data)[at] = 0.001f * static_cast<float>(1 + random() % 20);
        });
      }
    }
    there = here;
    const auto bind = [](auto& host, auto& device, Operand& o) {
      if (!o.owner) return;
      static_cast<TensorView&>(host) = o.host, static_cast<TensorView&>(device) = o.device;
    };
    bind(here.k, there.k, k), bind(here.v, there.v, v), bind(here.page_table, there.page_table, table);
    bind(here.lens_kv, there.lens_kv, lens_kv), bind(here.lens_q, there.lens_q, lens_q);
    bind(here.k_scale, there.k_scale, k_scale), bind(here.v_scale, there.v_scale, v_scale);
    bind(here.k_cache, there.k_cache, k_cache), bind(here.v_cache, there.v_cache, v_cache);
  }
  static int32_t* numbers(Operand& o) { return static_cast<int32_t*>(o.host.data); }

  std::string launch(const Device& d) {
    for (Operand* o : {&k, &v, &table, &lens_kv, &lens_q, &k_scale, &v_scale, &k_cache, &v_cache})
      if (o->owner) o->upload();
    const kw_op& op = operator_of(*d.table, "kv_append");
    kw_plan* plan = nullptr;
    d.must(op.supports(&d.info, &there), "supports");
    d.must(op.plan_create(&d.info, &there, &plan), "plan_create");
    const std::string explained = op.plan_explain(plan);
    for (const char* fact : {"\"width\":8", "\"width\":1", "\"heads\":8", "\"heads\":1"})
      seen[fact] += explained.find(fact) != std::string::npos;
    d.must(op.plan_rebind(plan, &there, nullptr), "plan_rebind");
    d.must(op.plan_enqueue(plan, d.stream), "plan_enqueue");
    op.plan_destroy(plan);
    const int32_t status = d.sync();
    const std::string message = status == 0 ? "" : d.table->last_error();
    k_cache.download(), v_cache.download();
    d.must(d.sync(), "sync");
    return message;
  }
  std::string wrong(const ReferenceOutputs& reference) {
    const std::string in_k = compare(k_cache, reference[0], "k_cache");
    return in_k.empty() ? compare(v_cache, reference[1], "v_cache") : in_k;
  }
};

void check(const Device& d, unsigned seed, bool many) {
  std::mt19937 random(seed);
  constexpr int64_t kDims[] = {2, 16, 30, 64, 72}, kHeads[] = {1, 2, 8, 9}, kSizes[] = {1, 2, 3, 4, 7};
  Problem p;
  p.batch = 1 + random() % 3, p.len = 1 + random() % 6, p.heads = pick(random, kHeads);
  p.dim = pick(random, kDims), p.dim_v = pick(random, kDims), p.page_size = pick(random, kSizes);
  p.in = pick(random, kFloats), p.cache = pick(random, kCaches);
  if (many) {  // so many heads of tokens that a thread makes eight
    p.batch = 1, p.len = 2048, p.heads = 9, p.dim = p.dim_v = 8, p.page_size = 512, p.pages = 5, p.entries = 4;
  }
  p.here.rope = random() % 2, p.here.interleaved = random() % 2;
  p.here.dim_rotary = random() % 3 == 0 ? std::max<int64_t>(2, p.dim / 4 * 2) : 0;
  p.here.scaling = static_cast<RopeScaling>(random() % 4);
  p.here.factor = 4, p.here.original_context = 32;
  p.make(d, random, random() % 3 == 0, random() % 3 == 0 ? random() % 9 : 0);
  ReferenceOutputs reference;
  ref::kv_append(p.here, {}, reference);
  const std::string message = p.launch(d);
  const std::string wrong = message.empty() ? p.wrong(reference) : message;
  expect(wrong.empty(), "seed " + std::to_string(seed) + ", dims " + std::to_string(p.dim) + ", " +
                            std::to_string(p.dim_v) + ", page_size " + std::to_string(p.page_size) + ", " + name(p.in) +
                            " to " + name(p.cache) + ": " + wrong);
}

// One value is wrong: it is named, and what the other requests bring is written.
void spoiled(const Device& d) {
  const auto run = [&](const char* words, const std::function<void(Problem&)>& spoil,
                       const std::function<void(Problem&)>& heal) {
    std::mt19937 random(7);
    Problem p;
    p.batch = 3, p.pages = 16;
    p.make(d, random, false, 0);
    for (int b = 0; b < 3; ++b) Problem::numbers(p.lens_kv)[b] = 6 + b;
    if (p.lens_q.owner) p.lens_q.each([&](int64_t at) { Problem::numbers(p.lens_q)[at] = 3; });
    Operand &k = p.k_cache, &v = p.v_cache;
    const std::vector<uint8_t> k_before = k.bytes, v_before = v.bytes;
    spoil(p);
    const std::string message = p.launch(d);
    expect(message.find(words) != std::string::npos, std::string("says '") + words + "': " + message);
    const auto exchange = [&] {
      std::swap_ranges(k.bytes.begin(), k.bytes.end(), k.before.begin());
      std::swap_ranges(v.bytes.begin(), v.bytes.end(), v.before.begin());
    };
    // As if the request, or the row, had not been there.
    heal(p);
    exchange();
    ReferenceOutputs reference;
    ref::kv_append(p.here, {}, reference);
    exchange();
    expect(k.before == k_before && v.before == v_before, "the caches before are as made");
    const std::string wrong = p.wrong(reference);
    expect(wrong.empty(), std::string(words) + ": " + wrong);
  };
  const auto nobody = [](Problem& p) { Problem::numbers(p.lens_kv)[1] = 0; };
  run(
      "kv_append: lens_kv[1] is 17, expected 0 to 16", [](Problem& p) { Problem::numbers(p.lens_kv)[1] = 17; }, nobody);
  run(
      "kv_append: lens_kv[1] is -1, expected 0 to 16", [](Problem& p) { Problem::numbers(p.lens_kv)[1] = -1; }, nobody);
  // Tokens 4 to 6 of request 1 lie in its entry 1.
  run(
      "kv_append: page_table[1, 1] is 16, expected 0 to 15", [](Problem& p) { Problem::numbers(p.table)[5] = 16; },
      [&](Problem& p) { Problem::numbers(p.table)[5] = 0, nobody(p); });
  run(
      "kv_append: page_table[1, 1] is -3, expected 0 to 15", [](Problem& p) { Problem::numbers(p.table)[5] = -3; },
      [&](Problem& p) { Problem::numbers(p.table)[5] = 0, nobody(p); });
}

void refusals(const Device& d) {
  std::mt19937 random(1);
  Problem p;
  p.make(d, random, false, 0);
  const kw_op& op = operator_of(*d.table, "kv_append");
  const auto declines = [&](KvAppendArgs a, const char* words) {
    expect(op.supports(&d.info, &a) == static_cast<int32_t>(Code::UNSUPPORTED) &&
               std::strstr(d.table->last_error(), words),
           std::string("supports refuses with '") + words + "': " + d.table->last_error());
  };
  KvAppendArgs bad = p.there;
  bad.k.dtype = DType::f8e4m3;
  declines(bad, "dtype of k is f8e4m3, expected f32, f16 or bf16");
  bad = p.there, bad.v_cache.dtype = DType::i8;
  declines(bad, "dtype of v_cache is i8, expected f32, f16, bf16 or f8e4m3");
  bad = p.there, bad.k_cache.stride[3] = 2;
  declines(bad, "the last stride of k_cache is 2, expected 1");
}

}  // namespace

int main(int argc, char** argv) {
  Program program;
  program.turn = [](const Device& d, const Turn& turn) {
    constexpr unsigned kCases = 16;
    for (unsigned i = 0; i < kCases; ++i) check(d, static_cast<unsigned>(turn.of_all) * kCases + i, false);
    if (turn.of_all % 4 == 0) check(d, 99, true);
    spoiled(d);
    refusals(d);
  };
  program.closing = [](bool) {
    for (const char* fact : {"\"width\":8", "\"width\":1", "\"heads\":8", "\"heads\":1"})
      expect(seen[fact] > 0, std::string("plans of ") + fact);
  };
  return run_program(argc, argv, program);
}
