// The CPU backend of attention_gqa_backward, every instruction set this machine has, against the definition: random cases over tile
// edges, dtypes, layouts and features, in guarded memory; whole numbers bit for bit; equal bytes for any number of threads;
// what it refuses. Arguments: support.h.
#include <array>
#include <memory>

#include "../../kernels/attention_gqa_backward/attention_gqa_backward.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::test;

struct Case {
  Holder q, k, v, y, lse, dy, dlse, bias, mask, alibi, sink, lens_q, lens_kv, dq, dk, dv, dbias, dsink;
  AttentionGqaBackwardArgs args;
  std::string text;

  void attach() {
    const auto set = [](TensorView& to, const Holder& from) { to = from.view; };
    set(args.q, q), set(args.k, k), set(args.v, v), set(args.y, y), set(args.lse, lse), set(args.dy, dy);
    set(args.dlse, dlse), set(args.bias, bias), set(args.mask, mask), set(args.alibi, alibi), set(args.sink, sink);
    set(args.lens_q, lens_q), set(args.lens_kv, lens_kv);
    set(args.dq, dq), set(args.dk, dk), set(args.dv, dv), set(args.dbias, dbias), set(args.dsink, dsink);
  }
  std::array<std::pair<const char*, Holder*>, 5> outputs() {
    return {{{"dq", &dq}, {"dk", &dk}, {"dv", &dv}, {"dbias", &dbias}, {"dsink", &dsink}}};
  }
  void describe(cpu::Isa isa, int threads) { text = test::describe(isa, threads, args); }
};

constexpr std::initializer_list<DType> kFloats = {DType::f32, DType::f16, DType::bf16};

// whole: numbers whose gradients of scores are exact in bf16, all weights 1, and results in f32, which holds their sums.
std::unique_ptr<Case> random_case(bool whole) {
  auto t = std::make_unique<Case>();
  AttentionGqaBackwardArgs& a = t->args;
  const int64_t batch = pick(1, 2), heads_kv = pick(1, 2), heads = heads_kv * one_of<int64_t>({1, 2, 3, 7});
  const auto length = [] { return one_of<int64_t>({0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 65, 127, 128, 129, 140}); };
  const int64_t len_q = length(), len_kv = chance(0.1) ? 600 : length();
  const int64_t dim = one_of<int64_t>({1, 2, 8, 15, 31, 32, 33, 64, 65, 128}), dim_v = whole         ? 4
                                                                                       : chance(0.5) ? dim
                                                                                                     : pick(1, 70);
  const DType in = one_of(kFloats), out = whole ? DType::f32 : chance(0.5) ? in : one_of(kFloats);
  a.scale = whole ? 0.5f : 1 / std::sqrt(static_cast<float>(dim));
  a.causal = chance(0.5);
  if (chance(0.2)) a.window_left = pick(0, 70);
  if (chance(0.2)) a.window_right = pick(0, 70);
  if (!whole && chance(0.2)) a.softcap = 3;
  const std::function<float()> value = [whole] { return whole ? static_cast<float>(pick(-4, 4)) : normal(); };
  const auto input = [&](Holder& h, DType dtype, const std::vector<int64_t>& dims) {
    h.shape(dtype, dims, chance(0.5));
    h.fill(value);
  };
  input(t->q, in, {batch, len_q, heads, dim}), input(t->k, in, {batch, len_kv, heads_kv, dim});
  input(t->v, in, {batch, len_kv, heads_kv, dim_v}), input(t->dy, in, {batch, len_q, heads, dim_v});
  input(t->y, out, {batch, len_q, heads, dim_v}), input(t->lse, DType::f32, {batch, heads, len_q});
  t->lse.fill([whole] { return whole ? -1e4f : chance(0.1) ? -std::numeric_limits<float>::infinity() : 3 + normal(); });
  if (chance(0.3)) input(t->dlse, DType::f32, {batch, heads, len_q});
  const std::vector<int64_t> plane = {chance(0.5) ? 1 : batch, chance(0.5) ? 1 : heads, len_q, len_kv};
  const bool biased = chance(0.3), sunk = chance(0.3);
  if (biased) input(t->bias, one_of(kFloats), plane);
  if (sunk) input(t->sink, DType::f32, {heads});
  if (chance(0.2)) input(t->alibi, DType::f32, {heads});
  if (chance(0.3)) {
    a.mask_block_q = pick(1, 20), a.mask_block_kv = pick(1, 20);
    t->mask.shape(
        DType::u8,
        {1, heads, (len_q + a.mask_block_q - 1) / a.mask_block_q, (len_kv + a.mask_block_kv - 1) / a.mask_block_kv},
        chance(0.5));
    t->mask.fill([] { return chance(0.6) ? 1.0f : 0.0f; });
  }
  const auto lengths = [&](Holder& h, int64_t most) {
    h.shape(DType::i32, {batch});
    h.each([&](int64_t at, const int64_t*) {
      static_cast<int32_t*>(h.view.data)[at] = static_cast<int32_t>(pick(0, most));
    });
  };
  if (chance(0.2)) lengths(t->lens_q, len_q);
  if (chance(0.2)) lengths(t->lens_kv, len_kv);
  const auto output = [](Holder& h, DType dtype, const std::vector<int64_t>& dims) {
    h.shape(dtype, dims, chance(0.5));
  };
  output(t->dq, out, {batch, len_q, heads, dim}), output(t->dk, out, {batch, len_kv, heads_kv, dim});
  output(t->dv, out, {batch, len_kv, heads_kv, dim_v});
  output(t->dbias, out, biased ? plane : std::vector<int64_t>{0, 0, len_q, len_kv});
  output(t->dsink, DType::f32, {sunk ? heads : 0});
  t->attach();
  return t;
}

// On one instruction set, then again with another number of threads: the same bytes.
void check(Case& t, bool exact, cpu::Isa isa, ThreadPool& pool, ThreadPool& other) {
  t.describe(isa, pool.threads());
  const std::string explained = run(cpu::attention_gqa_backward(), t.args, isa, pool);
  if (explained.rfind("{\"variant\":\"attention_gqa_backward_cpu_", 0) != 0)
    return expect(false, t.text + ": " + explained);
  ReferenceOutputs r;
  ref::attention_gqa_backward(t.args, RowList{}, r);
  std::vector<std::vector<uint8_t>> bytes;
  const auto compare_all = [&](const std::string& text) {
    for (size_t i = 0; const auto& [name, holder] : t.outputs()) compare(text + ": " + name, *holder, r[i++], exact);
  };
  compare_all(t.text);
  for (const auto& [name, holder] : t.outputs()) bytes.push_back(holder->bytes);
  run(cpu::attention_gqa_backward(), t.args, isa, other);
  for (size_t i = 0; const auto& [name, holder] : t.outputs())
    expect(holder->bytes == bytes[i++],
           t.text + ": " + name + " differs with " + std::to_string(other.threads()) + " threads");
  const auto names = configurations_of(cpu::attention_gqa_backward(), t.args, isa, pool);
  expect(!names.empty() && explained.find("\"configuration\":\"" + names[0] + '"') != std::string::npos,
         "the first configuration is the plan's own: " + explained);
  for (size_t n = 1; n < names.size(); ++n) {
    run(cpu::attention_gqa_backward(), t.args, isa, pool, names[n].c_str());
    compare_all(t.text + " as " + names[n]);
  }
}

// What is refused, and by which words.
void check_refusals() {
  ThreadPool pool(1);
  const auto refused = [&](const std::function<void(Case&)>& change, const std::string& expected) {
    Case t;
    for (Holder* h : {&t.q, &t.y, &t.dy, &t.dq}) h->shape(DType::f32, {2, 6, 2, 4});
    for (Holder* h : {&t.k, &t.v, &t.dk, &t.dv}) h->shape(DType::f32, {2, 8, 1, 4});
    t.lse.shape(DType::f32, {2, 2, 6}), t.dbias.shape(DType::f32, {0, 0, 6, 8}), t.dsink.shape(DType::f32, {0});
    t.attach();
    change(t);
    const std::string result = run(cpu::attention_gqa_backward(), t.args, cpu::Isa::generic, pool);
    expect(result == expected, "refusals: got " + result);
  };
  const std::string declined = "declined: attention_gqa_backward: ";
  refused([](Case& t) { t.args.lse.dtype = DType::bf16; }, declined + "lse is bf16, expected f32");
  refused([](Case& t) { t.args.dy.dtype = DType::bf16; }, declined + "dy is bf16, expected f32 as q");
  refused([](Case& t) { t.args.k.stride[3] = 2; }, declined + "last dimension of k has stride 2, expected 1");
  refused(
      [](Case& t) {
        t.lens_kv.shape(DType::i32, {2});
        static_cast<int32_t*>(t.lens_kv.view.data)[0] = 8, static_cast<int32_t*>(t.lens_kv.view.data)[1] = 9;
        t.attach();
      },
      "error: attention_gqa_backward: lens_kv[1] is 9, expected 0 to 8");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv, 100);
  each_isa(arguments, [&](cpu::Isa isa, Pools& pools) {
    for (int n = 0; n < arguments.cases; ++n) {
      const bool whole = n % 4 == 0;
      check(*random_case(whole), whole, isa, pools.two, n % 2 ? pools.three : pools.one);
    }
  });
  check_refusals();
  return closing_line();
}
