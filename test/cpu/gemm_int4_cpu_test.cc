// The CPU backend of gemm_int4, every instruction set this machine has, against the definition: random cases over tile
// edges, groups, dtypes, zeros, NF4, activation order, both accuracies and modes, epilogues, strides and batches, under the
// tolerance rule of kernels/core/reference.h; whole numbers bit for bit; x rounded to int8 bit for bit; special values; equal
// results for any number of threads, and with batch_invariant for any number of rows. Built by test/cpu/CMakeLists.txt.
//
//   gemm_int4_cpu_test [cases [seed]]
#include <array>
#include <memory>
#include <numeric>

#include "../../kernels/gemm_int4/gemm_int4.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::test;

std::map<std::string, int> ran;  // how often each configuration did

// A tensor of 4-bit elements, its rows without gaps, in memory of its own with guard bytes at the end.
struct Packed {
  std::vector<uint8_t> bytes;
  TensorView view;

  void shape(DType dtype, int64_t rows, int64_t columns) {
    view = {};
    view.dtype = dtype, view.rank = 2;
    view.shape[0] = rows, view.shape[1] = columns, view.stride[0] = columns, view.stride[1] = 1;
    bytes.assign(static_cast<size_t>((rows * columns + 1) / 2 + 3), kGuard);
    view.data = bytes.data();
  }
  void set(int64_t i, int value) {
    uint8_t& b = bytes[static_cast<size_t>(i / 2)];
    b = static_cast<uint8_t>(i % 2 ? (b & 0x0f) | value << 4 : (b & 0xf0) | value);
  }
  void fill(const std::function<int()>& value) {
    for (int64_t i = 0; i < view.count(); ++i) set(i, value());
  }
};

struct Case {
  Holder x, scales, perm, bias, residual, y;
  Packed w, zeros;
  GemmInt4Args args;
  std::string text;

  void attach() {
    static_cast<TensorView&>(args.x) = x.view;
    static_cast<TensorView&>(args.w) = w.view;
    static_cast<TensorView&>(args.scales) = scales.view;
    static_cast<TensorView&>(args.zeros) = zeros.view;
    static_cast<TensorView&>(args.perm) = perm.view;
    static_cast<TensorView&>(args.bias) = bias.view;
    static_cast<TensorView&>(args.residual) = residual.view;
    static_cast<TensorView&>(args.y) = y.view;
  }
  void permute(int64_t k) {
    perm.shape(DType::i32, {k});
    auto* p = static_cast<int32_t*>(perm.view.data);
    std::iota(p, p + k, 0);
    std::shuffle(p, p + k, rng);
  }
};

void describe(Case& t, const char* isa, int threads) {
  const GemmInt4Args& a = t.args;
  t.text = std::string(isa) + " threads " + std::to_string(threads) + test::describe("x", a.x) +
           test::describe("w", a.w) + test::describe("scales", a.scales) + test::describe("zeros", a.zeros) +
           test::describe("perm", a.perm) + test::describe("bias", a.bias) + test::describe("residual", a.residual) +
           test::describe("y", a.y) + " " + choice_names(a.activation).names[static_cast<int>(a.activation)] +
           (a.mode == Int4Mode::dequant ? " dequant" : "") + (a.accuracy == Int4Accuracy::int8 ? " int8" : "") +
           (a.batch_invariant ? " batch_invariant" : "");
}

std::string run(const GemmInt4Args& args, cpu::Isa isa, ThreadPool& pool) {
  return test::run(cpu::gemm_int4(), args, isa, pool);
}

ReferenceOutput reference(const GemmInt4Args& args) {
  ReferenceOutputs out;
  ref::gemm_int4(args, RowList{}, out);
  return std::move(out[0]);
}

// A random problem. exact: small whole numbers and an epilogue that keeps every intermediate exact, x rounded to int8
// included: its blocks hold their largest magnitude, 127.
std::unique_ptr<Case> random_case(bool exact) {
  auto t = std::make_unique<Case>();
  GemmInt4Args& a = t->args;
  const auto extent = [](std::initializer_list<int64_t> edges, int64_t most) {
    return chance(0.6) ? one_of(edges) : pick(1, most);
  };
  const int64_t m = extent({1, 1, 2, 3, 4, 5, 8, 11, 12, 13, 15, 16, 17, 24, 31, 32, 33, 47, 64, 65, 0}, 90);
  const int64_t n = extent({1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 65, 97, 0}, 150);
  const int64_t group = 32 * (chance(0.7) ? one_of<int64_t>({1, 2, 4}) : pick(1, 40));
  const int64_t groups = chance(0.25) ? 1 : pick(1, std::max<int64_t>(1, 1300 / group)), k = group * groups;
  a.activation = exact ? one_of({Activation::none, Activation::relu}) : static_cast<Activation>(pick(0, 7));
  a.mode = chance(0.25) ? Int4Mode::dequant : Int4Mode::fused;
  a.accuracy = chance(0.4) ? Int4Accuracy::int8 : Int4Accuracy::exact;
  a.batch_invariant = chance(0.2);
  const int64_t rows_w = is_gated(a.activation) ? 2 * n : n;
  const auto any = [] { return one_of({DType::f32, DType::f16, DType::bf16}); };
  const int64_t batch = chance(0.6) ? 0 : pick(1, 4);  // 0: no such dimension
  const auto operand = [&](Holder& h, DType dtype, int64_t columns, bool broadcasts) {
    const int64_t b = batch && broadcasts && chance(0.4) ? one_of<int64_t>({0, 1}) : batch;
    const bool repeats = b > 1 && broadcasts && chance(0.2);
    h.shape(dtype, b ? std::vector<int64_t>{b, m, columns} : std::vector<int64_t>{m, columns}, chance(0.5), {},
            {repeats});
  };
  operand(t->x, any(), k, true);
  operand(t->y, exact ? DType::f32 : any(), n, false);
  const DType type = !exact && chance(0.25) ? DType::nf4 : DType::u4;
  t->w.shape(type, rows_w, k);
  t->scales.shape(any(), {groups, rows_w}, chance(0.5));
  if (type == DType::u4 && chance(0.5)) t->zeros.shape(DType::u4, groups, rows_w);
  if (chance(0.3)) t->permute(k);
  if (chance(0.4)) t->bias.shape(any(), {rows_w}, chance(0.5));
  const bool with_residual = chance(0.4), in_place = chance(0.5);
  if (with_residual && !in_place) operand(t->residual, any(), n, true);

  const bool spread = chance(0.5);
  const auto value = [&, spread] {
    if (exact) return static_cast<float>(pick(-3, 3));
    return spread ? normal() : std::uniform_real_distribution<float>(-1, 1)(rng);
  };
  for (Holder* h : {&t->x, &t->bias, &t->residual}) h->fill(value);
  if (exact && a.accuracy == Int4Accuracy::int8) t->x.fill([&] { return chance(0.5) ? 127.0f : -127.0f; });
  t->scales.fill([&] {
    if (exact) return one_of({1.0f, 2.0f, -1.0f});
    return 0.02f + 0.1f * std::abs(normal());
  });
  t->w.fill([] { return static_cast<int>(pick(0, 15)); });
  t->zeros.fill([] { return static_cast<int>(pick(0, 15)); });
  if (in_place && with_residual) {
    t->y.fill(value);
    t->residual.view = t->y.view;
  }
  t->attach();
  return t;
}

// One case on one instruction set, then again on another number of threads: the same bytes. An in-place input is put back.
void check(Case& t, bool exact, cpu::Isa isa, ThreadPool& pool, ThreadPool& other) {
  const ReferenceOutput r = reference(t.args);
  const std::vector<uint8_t> before = t.y.bytes;
  describe(t, cpu::name(isa), pool.threads());
  const std::string explained = run(t.args, isa, pool);
  if (explained.rfind("{\"variant\":\"gemm_int4_cpu_", 0) != 0) return expect(false, t.text + ": " + explained);
  compare(t.text, t.y, r, exact);
  const std::vector<uint8_t> after = t.y.bytes;
  std::copy(before.begin(), before.end(), t.y.bytes.begin());
  run(t.args, isa, other);
  expect(t.y.bytes == after, t.text + ": differs with " + std::to_string(other.threads()) + " threads");
  std::copy(before.begin(), before.end(), t.y.bytes.begin());
}

// x̂ is the definition's bit for bit: with one weight of 1 in a row of zeros a product is one element of it.
void check_rounding(cpu::Isa isa, ThreadPool& pool, int64_t m, int64_t group) {
  Case t;
  const int64_t k = 3 * group, n = k;
  t.x.shape(DType::f32, {m, k}, true);
  t.w.shape(DType::u4, n, k);
  t.scales.shape(DType::f32, {3, n});
  t.y.shape(DType::f32, {m, n}, true);
  // Half-way cases among them: the block's largest is 127 sixty-fourths.
  t.x.fill([] {
    return chance(0.1) ? 127 / 64.0f : chance(0.5) ? static_cast<float>(pick(-253, 253)) / 128 : normal() / 3;
  });
  t.w.fill([] { return 8; });
  for (int64_t r = 0; r < n; ++r) t.w.set(r * k + r, 9);
  t.scales.fill([] { return 1.0f; });
  t.args.accuracy = Int4Accuracy::int8;
  t.attach();
  describe(t, cpu::name(isa), pool.threads());
  run(t.args, isa, pool);
  const ReferenceOutput r = reference(t.args);  // `plain` is the sum of x̂ with zeros
  int64_t i = 0, wrong = 0;
  t.y.each(
      [&](int64_t at, const int64_t*) { wrong += double{load_f32(t.y.view.data, DType::f32, at)} != r.plain[i++]; });
  expect(wrong == 0, t.text + ": " + std::to_string(wrong) + " of " + std::to_string(i) + " are not the rounded x");
}

// NaN and infinity in x reach exactly their row, in a row alone and among others.
void check_special(cpu::Isa isa, ThreadPool& pool, DType dtype, int64_t m, Int4Accuracy accuracy) {
  for (const float special : {NAN, std::numeric_limits<float>::infinity()}) {
    Case t;
    const int64_t n = 40, k = 96;
    t.x.shape(dtype, {m, k}, true);
    t.w.shape(DType::u4, n, k);
    t.scales.shape(DType::f32, {3, n});
    t.y.shape(DType::f32, {m, n}, true);
    int64_t i = 0;
    t.x.fill([&] { return ++i == k ? special : 1.0f; });
    t.w.fill([] { return static_cast<int>(pick(9, 15)); });
    t.scales.fill([] { return 0.5f; });
    t.args.accuracy = accuracy;
    t.attach();
    describe(t, cpu::name(isa), pool.threads());
    run(t.args, isa, pool);
    ReferenceOutput r = reference(t.args);
    // The definition multiplies x itself; rounded to int8 a block that is not finite is NaN.
    if (accuracy == Int4Accuracy::int8) std::fill(r.value.begin(), r.value.begin() + n, NAN);
    compare(t.text, t.y, r, true);
  }
}

// Magnitudes near the ends of f32's range neither overflow nor vanish on the way.
void check_range(cpu::Isa isa, ThreadPool& pool, int64_t m, float x, float scale) {
  Case t;
  const int64_t n = 33, k = 256;
  t.x.shape(DType::f32, {m, k}, true);
  t.w.shape(DType::u4, n, k);
  t.scales.shape(DType::f32, {2, n});
  t.y.shape(DType::f32, {m, n}, true);
  t.x.fill([&] { return x * std::uniform_real_distribution<float>(0.5, 1)(rng); });
  t.w.fill([] { return static_cast<int>(pick(0, 15)); });
  t.scales.fill([&] { return scale; });
  t.attach();
  describe(t, cpu::name(isa), pool.threads());
  t.text += " x about " + std::to_string(std::log2(x));
  run(t.args, isa, pool);
  compare(t.text, t.y, reference(t.args), false);
}

// With batch_invariant a row alone has the bits that it has among others.
void check_invariant(cpu::Isa isa, ThreadPool& pool, DType dtype, Int4Accuracy accuracy) {
  const int64_t m = 37, n = 50, k = 256;
  Case t;
  t.x.shape(dtype, {m, k});
  t.w.shape(DType::u4, n, k);
  t.scales.shape(DType::f32, {4, n});
  t.y.shape(DType::f32, {m, n});
  t.x.fill(normal);
  t.w.fill([] { return static_cast<int>(pick(0, 15)); });
  t.scales.fill([] { return std::abs(normal()); });
  t.args.accuracy = accuracy, t.args.batch_invariant = true;
  t.attach();
  describe(t, cpu::name(isa), pool.threads());
  run(t.args, isa, pool);
  const std::vector<uint8_t> all = t.y.bytes;
  for (const int64_t rows : {1, 5, 20}) {
    std::fill(t.y.bytes.begin(), t.y.bytes.end(), kGuard);
    t.args.x.shape[0] = rows, t.args.y.shape[0] = rows;
    run(t.args, isa, pool);
    expect(std::equal(all.begin(), all.begin() + rows * n * 4, t.y.bytes.begin()),
           t.text + ": other bits in a call of " + std::to_string(rows) + " rows");
  }
}

// x larger than the least workspace: more than a few megabytes when packed.
void check_many_rows(cpu::Isa isa, ThreadPool& pool, DType dtype) {
  const int64_t m = 1200, n = 40, k = 1536;
  Case t;
  t.x.shape(dtype, {m, k}, true);
  t.w.shape(DType::u4, n, k);
  t.scales.shape(DType::f32, {12, n});
  t.y.shape(DType::f32, {m, n}, true);
  t.x.fill([] { return static_cast<float>(pick(-3, 3)); });
  t.w.fill([] { return static_cast<int>(pick(0, 15)); });
  t.scales.fill([] { return 1.0f; });
  t.attach();
  describe(t, cpu::name(isa), pool.threads());
  run(t.args, isa, pool);
  compare(t.text, t.y, reference(t.args), true);
}

kw_device_info device_of(cpu::Isa isa, const ThreadPool& pool) {
  kw_device_info device{};
  device.sm_count = pool.threads();
  device.isa = static_cast<int32_t>(isa);
  return device;
}

// A plan made for a large problem serves smaller ones in the same workspace.
void check_rebind(cpu::Isa isa, ThreadPool& pool, DType dtype, Int4Accuracy accuracy) {
  const kw_device_info device = device_of(isa, pool);
  const kw_op& op = cpu::gemm_int4();
  const auto make = [&](Case& t, int64_t batch, int64_t m, int64_t n, int64_t k) {
    t.x.shape(dtype, {batch, m, k}, true);
    t.w.shape(DType::u4, n, k);
    t.scales.shape(DType::f32, {k / 32, n});
    t.y.shape(DType::f32, {batch, m, n}, true);
    t.x.fill([&] {
      return accuracy == Int4Accuracy::int8 ? one_of({127.0f, -127.0f}) : static_cast<float>(pick(-3, 3));
    });
    t.w.fill([] { return static_cast<int>(pick(0, 15)); });
    t.scales.fill([] { return 1.0f; });
    t.args.accuracy = accuracy;
    t.attach();
  };
  Case large;
  make(large, 3, 121, 150, 416);
  kw_plan* plan = nullptr;
  op.plan_create(&device, &large.args, &plan);
  std::vector<uint8_t> memory(op.plan_workspace(plan) + 64);
  uint8_t* const space = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  for (const auto& [batch, m, n, k] : {std::array<int64_t, 4>{3, 121, 150, 416},
                                       {3, 60, 150, 416},
                                       {1, 1, 150, 416},
                                       {3, 1, 149, 384},
                                       {2, 24, 97, 256},
                                       {3, 121, 33, 32},
                                       {1, 0, 150, 416},
                                       {3, 7, 150, 0}}) {
    Case t;
    make(t, batch, m, n, k);
    describe(t, cpu::name(isa), pool.threads());
    std::fill(memory.begin(), memory.end(), kGuard);
    const bool ok = op.plan_rebind(plan, &t.args, space) == 0 && op.plan_enqueue(plan, &pool) == 0;
    expect(ok, "rebind " + t.text + ": " + (ok ? "" : last_error()));
    if (ok) compare(t.text, t.y, reference(t.args), true);
  }
  op.plan_destroy(plan);
}

// The workspace of a layer stays at the contract's twentieth of the operands, or at what the smallest pieces take.
void check_refusals() {
  Case t;
  ThreadPool pool(1);
  const auto make = [&] {
    t.x.shape(DType::f32, {2, 64}), t.w.shape(DType::u4, 4, 64), t.scales.shape(DType::f32, {2, 4});
    t.y.shape(DType::f32, {2, 4}), t.zeros = {}, t.perm = {};
    t.x.fill(normal), t.scales.fill(normal), t.w.fill([] { return 3; });
    t.attach();
  };
  const auto refused = [&](const std::string& expected) {
    const std::string said = run(t.args, cpu::Isa::generic, pool);
    expect(said == expected, "said " + said + ", expected " + expected);
  };
  make(), t.args.x.dtype = DType::i8;
  refused("declined: gemm_int4: x is i8, expected f32, f16 or bf16");
  make(), t.args.w.dtype = DType::i4;
  refused("declined: gemm_int4: w is i4, expected u4 or nf4");
  make(), t.args.y.stride[1] = 2;
  refused("declined: gemm_int4: last dimension of y has stride 2, expected 1");
  make(), t.zeros.shape(DType::u4, 2, 4), t.attach(), t.args.w.dtype = DType::nf4;
  refused("declined: gemm_int4: zeros is given with nf4, expected none");
  make(), t.scales.shape(DType::f32, {4, 4}), t.attach();
  refused("declined: gemm_int4: k is 64 with 4 groups, expected groups of a multiple of 32");
  make(), t.permute(64), static_cast<int32_t*>(t.perm.view.data)[9] = 64, t.attach();
  refused("error: gemm_int4: perm[9] is 64, expected 0 to 63");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv, 600);
  each_isa(arguments, [&](cpu::Isa isa, Pools& pools) {
    for (int n = 0; n < arguments.cases; ++n) {
      const bool exact = n % 3 == 0;
      const auto t = random_case(exact);
      check(*t, exact, isa, pools.two, n % 2 ? pools.three : pools.one);
      if (n % 2) compare_configurations(cpu::gemm_int4(), *t, reference(t->args), exact, isa, pools.two, ran);
    }
    for (const int64_t m : {1, 40}) {
      for (const int64_t group : {32, 64, 96, 128}) check_rounding(isa, pools.two, m, group);
      for (const float x : {3e38f, 1e-36f, 1e-42f}) check_range(isa, pools.two, m, x, x > 1 ? 1e-4f : 1.0f);
    }
    for (const Int4Accuracy accuracy : {Int4Accuracy::exact, Int4Accuracy::int8}) {
      for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        for (const int64_t m : {1, 3, 50}) check_special(isa, pools.two, dtype, m, accuracy);
        if (accuracy == Int4Accuracy::exact) check_many_rows(isa, pools.two, dtype);
        check_rebind(isa, pools.two, dtype, accuracy);
        check_invariant(isa, pools.two, dtype, accuracy);
      }
    }
    if (isa == cpu::Isa::generic) return;
    for (const char* way : {"/stream", "/blocks"}) {
      const std::string name = cpu::name(isa) + std::string(way);
      expect(ran[name] > 0, "some case runs as " + name);
    }
  });
  check_refusals();
  return closing_line();
}
