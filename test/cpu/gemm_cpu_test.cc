// The CPU backend of gemm, every instruction set this machine has, against the definition: random cases over tile
// edges, dtypes, epilogues, transpositions, strides, batches and in-place outputs, under the tolerance rule of
// kernels/core/reference.h; whole numbers bit for bit; special values; equal results for any number of threads. Built
// by test/cpu/CMakeLists.txt.
//
//   gemm_cpu_test [cases [seed]]
#include <array>
#include <cstring>
#include <map>
#include <memory>

#include "../../kernels/core/packed.h"
#include "../../kernels/gemm/gemm_cpu_layout.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::test;

struct Case {
  Holder x, w, c, bias, residual, y;
  GemmArgs args;
  std::string text;

  void attach() {
    static_cast<TensorView&>(args.x) = x.view;
    static_cast<TensorView&>(args.w) = w.view;
    static_cast<TensorView&>(args.c) = c.view;
    static_cast<TensorView&>(args.bias) = bias.view;
    static_cast<TensorView&>(args.residual) = residual.view;
    static_cast<TensorView&>(args.y) = y.view;
  }
};

void describe(Case& t, const char* isa, int threads) {
  const GemmArgs& a = t.args;
  t.text = std::string(isa) + " threads " + std::to_string(threads) + test::describe("x", a.x) +
           test::describe("w", a.w) + test::describe("c", a.c) + test::describe("bias", a.bias) +
           test::describe("residual", a.residual) + test::describe("y", a.y) + " alpha " + std::to_string(a.alpha) +
           " beta " + std::to_string(a.beta) + " " + choice_names(a.activation).names[static_cast<int>(a.activation)] +
           (a.trans_x ? " trans_x" : "") + (a.trans_w ? " trans_w" : "");
}

std::string run(const GemmArgs& args, cpu::Isa isa, ThreadPool& pool) {
  return test::run(cpu::gemm(), args, isa, pool);
}

// A random problem. exact: small whole numbers and an epilogue that keeps every intermediate exact.
std::unique_ptr<Case> random_case(bool exact) {
  auto t = std::make_unique<Case>();
  GemmArgs& a = t->args;
  const auto extent = [](std::initializer_list<int64_t> edges, int64_t most) {
    return chance(0.6) ? one_of(edges) : pick(1, most);
  };
  const int64_t m = extent({1, 1, 2, 3, 4, 5, 6, 7, 13, 14, 15, 16, 17, 24, 25, 32, 33, 40, 41, 48, 49, 56, 57, 0}, 90);
  const int64_t n = extent({1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 65, 97, 0}, 130);
  const int64_t k = extent({1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 33, 64, 255, 256, 257, 511, 513, 1025, 0}, 300);
  a.activation = exact ? one_of({Activation::none, Activation::relu}) : static_cast<Activation>(pick(0, 7));
  const bool gated = is_gated(a.activation);
  const int64_t rows_w = gated ? 2 * n : n;
  const DType in = one_of({DType::f32, DType::f16, DType::bf16});
  const auto any = [] { return one_of({DType::f32, DType::f16, DType::bf16}); };
  const int64_t batch = chance(0.6) ? 0 : pick(1, 4);  // 0: no such dimension
  const auto dims = [&](int64_t b, int64_t rows, int64_t columns) {
    return b ? std::vector<int64_t>{b, rows, columns} : std::vector<int64_t>{rows, columns};
  };
  const auto operand = [&](Holder& h, DType dtype, int64_t rows, int64_t columns, bool broadcasts) {
    const int64_t b = batch && broadcasts && chance(0.4) ? one_of<int64_t>({0, 1}) : batch;
    const bool repeats = b > 1 && broadcasts && chance(0.2);
    h.shape(dtype, dims(b, rows, columns), chance(0.5), {}, {repeats});
  };
  a.trans_x = chance(0.3), a.trans_w = chance(0.3);
  operand(t->x, in, a.trans_x ? k : m, a.trans_x ? m : k, true);
  operand(t->w, in, a.trans_w ? k : rows_w, a.trans_w ? rows_w : k, true);
  operand(t->y, exact ? DType::f32 : any(), m, n, false);
  const bool with_c = chance(0.4), in_place = chance(0.5);
  if (with_c && !(in_place && !gated)) operand(t->c, any(), m, rows_w, true);
  if (chance(0.4)) t->bias.shape(any(), {rows_w}, chance(0.5));
  const bool with_residual = chance(0.4);
  if (with_residual && !(in_place && !with_c)) operand(t->residual, any(), m, n, true);
  if (!exact && chance(0.5)) a.alpha = one_of({0.5f, -1.25f, 0.0f, 0.1f});
  if (with_c) a.beta = exact ? one_of({1.0f, -2.0f}) : one_of({1.0f, 0.3f, -0.7f, 0.0f});

  const bool spread = chance(0.5);
  const auto value = [&, spread] {
    if (exact) return static_cast<float>(pick(-3, 3));
    return spread ? normal() : std::uniform_real_distribution<float>(-1, 1)(rng);
  };
  for (Holder* h : {&t->x, &t->w, &t->c, &t->bias, &t->residual}) h->fill(value);
  if (in_place && with_c && !gated) {
    t->y.fill(value);
    t->c.view = t->y.view;
  } else if (in_place && with_residual && !with_c) {
    t->y.fill(value);
    t->residual.view = t->y.view;
  }
  t->attach();
  return t;
}

std::map<std::string, int> ran;  // how often each configuration did

ReferenceOutput reference(const GemmArgs& args) {
  ReferenceOutputs out;
  ref::gemm(args, RowList{}, out);
  return std::move(out[0]);
}

// One case on one instruction set, then again on another number of threads: the same bytes. in-place inputs are put
// back.
void check(Case& t, bool exact, cpu::Isa isa, ThreadPool& pool, ThreadPool& other) {
  const ReferenceOutput r = reference(t.args);
  const std::vector<uint8_t> before = t.y.bytes;
  describe(t, cpu::name(isa), pool.threads());
  const std::string explained = run(t.args, isa, pool);
  if (explained.rfind("{\"variant\":\"gemm_cpu_", 0) != 0) return expect(false, t.text + ": " + explained);
  compare(t.text, t.y, r, exact);
  const std::vector<uint8_t> after = t.y.bytes;
  std::copy(before.begin(), before.end(), t.y.bytes.begin());
  run(t.args, isa, other);
  expect(t.y.bytes == after, t.text + ": differs with " + std::to_string(other.threads()) + " threads");
  std::copy(before.begin(), before.end(), t.y.bytes.begin());
}

// The case again with its weight packed as the instruction set wants it: the definition says the same of it, unpacking
// gives the elements back, and the result is right.
void check_packed(const Case& t, bool exact, cpu::Isa isa, ThreadPool& pool, bool configurations) {
  TensorView plain = t.args.w;
  if (t.args.trans_w) {
    std::swap(plain.shape[plain.rank - 2], plain.shape[plain.rank - 1]);
    std::swap(plain.stride[plain.rank - 2], plain.stride[plain.rank - 1]);
  }
  const kw_device_info device = device_of(isa, pool);
  Case p;
  p.args = t.args, p.y = t.y, p.args.trans_w = false;
  TensorView& w = p.args.w;
  w = plain;
  w.format = cpu::gemm().format(&device, "w", &plain);
  std::vector<uint8_t> bytes(packed_bytes(w), kGuard), again(t.w.bytes.size(), kGuard);
  w.data = bytes.data();
  const PackedExtent extent(w);
  pack_panels(plain, w, 0, extent.matrices * extent.panels());
  // A y that is also an input stays one.
  for (TensorView* side : {static_cast<TensorView*>(&p.args.c), static_cast<TensorView*>(&p.args.residual)}) {
    if (side->data == t.args.y.data && side->present())
      side->data = p.y.bytes.data() + p.y.offset * bits(p.y.view.dtype) / 8;
  }
  p.y.view.data = p.y.bytes.data() + p.y.offset * bits(p.y.view.dtype) / 8;
  static_cast<TensorView&>(p.args.y) = p.y.view;
  describe(p, cpu::name(isa), pool.threads());
  p.text += " packed";

  TensorView back = plain;
  back.data = again.data() + (static_cast<uint8_t*>(plain.data) - t.w.bytes.data());
  unpack_panels(w, back, 0, extent.matrices * extent.panels());
  const int64_t size = bits(w.dtype) / 8;
  bool same = true;
  t.w.each([&](int64_t at, const int64_t*) {
    same &=
        std::memcmp(static_cast<char*>(back.data) + at * size, static_cast<char*>(plain.data) + at * size, size) == 0;
  });
  expect(same, p.text + ": unpacking gives other elements");

  const ReferenceOutput r = reference(t.args), packed = reference(p.args);
  const int64_t n = t.args.y.dim(-1);
  const std::string explained = run(p.args, isa, pool);
  if (is_gated(t.args.activation) && n % extent.format.rows != 0) {
    return expect(explained.rfind("declined: gemm: n is ", 0) == 0, p.text + ": " + explained);
  }
  const auto equal = [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  bool alike = r.value.size() == packed.value.size();
  for (size_t i = 0; alike && i < r.value.size(); ++i) alike = equal(r.value[i], packed.value[i]);
  expect(alike, p.text + ": the definition says otherwise");
  compare(p.text, p.y, r, exact);
  if (configurations) compare_configurations(cpu::gemm(), p, reference(p.args), exact, isa, pool, ran);
}

// Activations over their whole range, through an epilogue without a product.
void check_activations(cpu::Isa isa, ThreadPool& pool) {
  for (const Activation activation :
       {Activation::relu, Activation::gelu_erf, Activation::gelu_tanh, Activation::silu}) {
    Case t;
    const int64_t n = 200003;
    t.x.shape(DType::f32, {1, 0}, false);
    t.w.shape(DType::f32, {n, 0}, false);
    t.c.shape(DType::f32, {1, n}, false);
    t.y.shape(DType::f32, {1, n}, false);
    const float inf = std::numeric_limits<float>::infinity();
    const float special[] = {0.0f,    -0.0f, inf,    -inf,  NAN,    1e-45f, -1e-45f, 1e-38f,
                             -1e-38f, 3e38f, -3e38f, 88.8f, -88.8f, 104.1f, -104.1f};
    int64_t i = 0;
    t.c.fill([&] {
      const int64_t at = i++;
      if (at < 15) return special[at];
      if (at % 2)
        return std::ldexp(static_cast<float>(pick(1 << 23, (1 << 24) - 1)) * (at % 4 == 1 ? 1.0f : -1.0f),
                          static_cast<int>(pick(-60, -16)));
      return -120 + 240 * static_cast<float>(at) / static_cast<float>(n);
    });
    t.args.beta = 1;
    t.args.activation = activation;
    t.attach();
    describe(t, cpu::name(isa), pool.threads());
    run(t.args, isa, pool);
    compare(t.text, t.y, reference(t.args), false);
  }
}

// NaN and infinity in an operand reach exactly the elements they belong to; with alpha or beta 0 the operand is not
// read.
void check_special(cpu::Isa isa, ThreadPool& pool, DType dtype, int64_t m) {
  for (const float alpha : {1.0f, 0.0f}) {
    Case t;
    const int64_t n = 40, k = 37;
    t.x.shape(dtype, {m, k}, true);
    t.w.shape(dtype, {n, k}, true);
    t.c.shape(DType::f32, {m, n}, true);
    t.y.shape(DType::f32, {m, n}, true);
    int64_t i = 0;
    t.x.fill([&] { return ++i == k ? NAN : 1.0f; });  // x[0, k - 1]
    i = 0;
    t.w.fill([&] { return ++i == 3 * k ? std::numeric_limits<float>::infinity() : 1.0f; });  // w[2, k - 1]
    t.c.fill([] { return NAN; });
    t.args.alpha = alpha;
    t.attach();
    describe(t, cpu::name(isa), pool.threads());
    run(t.args, isa, pool);
    compare(t.text, t.y, reference(t.args), false);
  }
}

// A plan made for a large problem serves smaller ones in the same workspace.
void check_rebind(cpu::Isa isa, ThreadPool& pool) {
  const kw_device_info device = device_of(isa, pool);
  const kw_op& op = cpu::gemm();
  const auto make = [](Case& t, int64_t batch, int64_t m, int64_t n, int64_t k) {
    t.x.shape(DType::bf16, {batch, m, k}, true);
    t.w.shape(DType::bf16, {n, k}, true);
    t.y.shape(DType::f32, {batch, m, n}, true);
    for (Holder* h : {&t.x, &t.w}) h->fill([] { return static_cast<float>(pick(-3, 3)); });
    t.attach();
  };
  Case large;
  make(large, 3, 61, 150, 400);
  kw_plan* plan = nullptr;
  op.plan_create(&device, &large.args, &plan);
  std::vector<uint8_t> space(op.plan_workspace(plan));
  for (const auto& [batch, m, n, k] : {std::array<int64_t, 4>{3, 61, 150, 400},
                                       {3, 60, 150, 400},
                                       {1, 1, 150, 400},
                                       {3, 1, 149, 399},
                                       {2, 24, 97, 257},
                                       {3, 25, 33, 400},
                                       {1, 0, 150, 400},
                                       {3, 61, 150, 0}}) {
    Case t;
    make(t, batch, m, n, k);
    describe(t, cpu::name(isa), pool.threads());
    std::fill(space.begin(), space.end(), kGuard);
    const bool ok = op.plan_rebind(plan, &t.args, space.data()) == 0 && op.plan_enqueue(plan, &pool) == 0;
    expect(ok, "rebind " + t.text + ": " + (ok ? "" : last_error()));
    if (ok) compare(t.text, t.y, reference(t.args), true);
  }
  op.plan_destroy(plan);
}

// More rows of x than the workspace holds packed: groups of them, or on tiles pieces that each thread packs for itself.
void check_pieces(cpu::Isa isa, ThreadPool& pool, ThreadPool& other) {
  for (const bool gated : {false, true}) {
    for (const bool transposed : {false, true}) {
      Case t;
      const int64_t m = pick(300, 340), n = gated ? 32 : pick(33, 48), k = pick(2030, 2090), rows_w = gated ? 2 * n : n;
      t.x.shape(DType::bf16, transposed ? std::vector<int64_t>{k, m} : std::vector<int64_t>{m, k}, true);
      t.w.shape(DType::bf16, transposed ? std::vector<int64_t>{k, rows_w} : std::vector<int64_t>{rows_w, k}, true);
      t.y.shape(DType::f32, {m, n}, true);
      for (Holder* h : {&t.x, &t.w}) h->fill([] { return static_cast<float>(pick(-3, 3)) / 16; });
      t.args.trans_x = t.args.trans_w = transposed;
      t.args.activation = gated ? Activation::swiglu : Activation::none;
      t.attach();
#if defined(__x86_64__)
      if (isa == cpu::Isa::amx_bf16) {
        const cpu::GemmMachine machine = cpu::gemm_machine(device_of(isa, pool));
        const cpu::GemmLayout l = cpu::gemm_layout(resolve(t.args), cpu::kGemmAmxBf16, machine, false);
        expect(l.own_x > 0 && l.packed_x == 0, "x is packed in pieces");
      }
#endif
      check(t, !gated, isa, pool, other);
      check_packed(t, !gated, isa, pool, true);
    }
  }
}

void check_declines() {
  Case t;
  t.x.shape(DType::i8, {2, 3}, false);
  t.w.shape(DType::i8, {4, 3}, false);
  t.y.shape(DType::f32, {2, 4}, false);
  t.attach();
  ThreadPool pool(1);
  expect(run(t.args, cpu::Isa::generic, pool) == "declined: gemm: x is i8, expected f32, f16 or bf16", "dtype of x");
  t.x.shape(DType::f32, {2, 3}, false), t.w.shape(DType::f16, {4, 3}, false);
  t.attach();
  expect(run(t.args, cpu::Isa::generic, pool) == "declined: gemm: w is f16, expected f32 as x", "dtype of w");
  t.w.shape(DType::f32, {4, 3}, false), t.attach(), t.args.y.stride[1] = 2;
  expect(run(t.args, cpu::Isa::generic, pool) == "declined: gemm: last dimension of y has stride 2, expected 1",
         "stride of y");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv, 600);
  each_isa(arguments, [&](cpu::Isa isa, Pools& pools) {
    for (int n = 0; n < arguments.cases; ++n) {
      const bool exact = n % 3 == 0;
      const auto t = random_case(exact);
      check(*t, exact, isa, pools.two, n % 2 ? pools.three : pools.one);
      check_packed(*t, exact, isa, pools.two, n % 4 == 0);
      if (n % 2 == 0) compare_configurations(cpu::gemm(), *t, reference(t->args), exact, isa, pools.two, ran);
    }
    check_activations(isa, pools.two);
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (const int64_t m : {1, 3, 50}) check_special(isa, pools.two, dtype, m);
    }
    check_rebind(isa, pools.two);
    check_pieces(isa, pools.two, pools.three);
    for (const char* way : {"/stream", "/blocks"}) {
      const std::string name = cpu::name(isa) + std::string(way);
      expect(ran[name] > 0, "some case runs as " + name);
    }
  });
  check_declines();
  return closing_line();
}
