// The CPU backend of gemm_int4, every instruction set this machine has, against the definition: random cases over tile
// edges, groups, dtypes, zeros, NF4, activation order, both accuracies and modes, epilogues, strides and batches, under the
// tolerance rule of kernels/core/reference.h; whole numbers bit for bit; the same with w, scales and zeros packed; x rounded to int8 bit for bit; special values; equal
// results for any number of threads, and with batch_invariant for any number of rows. Built by test/cpu/CMakeLists.txt.
//
//   gemm_int4_cpu_test [cases [seed]]
#include "gemm_int4_case.h"

namespace {

using namespace kw;
using namespace kw::test;

std::map<std::string, int> ran;  // how often each configuration did

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

// The case with some operands packed: the definition says the same of it, and the result is right in every way there is.
void check_packed(Case& t, bool exact, cpu::Isa isa, Pools& pools, std::array<bool, 3> which) {
  const ReferenceOutput plain = reference(t.args);
  const PackedOperands packed(t, isa, pools.two, which);
  if (is_gated(t.args.activation) && t.args.y.dim(-1) % 16 != 0) {
    const std::string said = run(t.args, isa, pools.two);
    return expect(said.rfind("declined: gemm_int4: n is ", 0) == 0, t.text + t.packed + ": " + said);
  }
  check(t, exact, isa, pools.two, pools.one);
  const ReferenceOutput r = reference(t.args);
  const auto equal = [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  expect(std::equal(r.value.begin(), r.value.end(), plain.value.begin(), plain.value.end(), equal),
         t.text + ": the definition says otherwise of packed operands");
  compare_configurations(cpu::gemm_int4(), t, r, exact, isa, pools.two, ran);
}

// Every number of rows of x around the sizes at which few rows become many, with every kind of group.
void check_packed_edges(cpu::Isa isa, Pools& pools) {
  for (int64_t m = 1; m <= 33; ++m) {
    Case t;
    const int64_t group = one_of<int64_t>({32, 64, 96, 128, 288}), k = group * pick(1, 2),
                  n = one_of<int64_t>({1, 15, 16, 17, 34, 48});
    t.x.shape(one_of({DType::f32, DType::f16, DType::bf16}), {m, k}, true);
    t.w.shape(DType::u4, n, k);
    t.scales.shape(one_of({DType::f32, DType::f16, DType::bf16}), {k / group, n}, true);
    if (m % 2) t.zeros.shape(DType::u4, k / group, n);
    if (m % 3 == 0) t.permute(k);
    t.y.shape(DType::f32, {m, n}, true);
    t.x.fill([] { return one_of({127.0f, -127.0f}); });
    t.w.fill([] { return static_cast<int>(pick(0, 15)); });
    t.scales.fill([] { return one_of({1.0f, 0.5f, -2.0f}); });
    t.zeros.fill([] { return static_cast<int>(pick(0, 15)); });
    for (const Int4Accuracy accuracy : {Int4Accuracy::exact, Int4Accuracy::int8}) {
      t.args.accuracy = accuracy;
      t.attach();
      check_packed(t, true, isa, pools, {true, true, true});
    }
  }
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
void check_special(cpu::Isa isa, ThreadPool& pool, DType dtype, int64_t m, Int4Accuracy accuracy, bool packed) {
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
    const PackedOperands operands(t, isa, pool, {packed, packed, packed});
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
  make(), t.args.w.format = kInt4Panels.tag() + (1ull << 8);
  refused(
      "declined: gemm_int4: w is packed in panels of 17 rows, runs of 8 along k (version 1), expected panels of 16 "
      "rows, "
      "runs of 8 along k (version 1)");
  make(), t.args.scales.format = int4_sides(3).tag();
  refused(
      "declined: gemm_int4: scales is packed in panels of 3 rows, runs of 16 along k (version 1), expected panels of 2 "
      "rows, runs of 16 along k (version 1)");
  make(), t.args.w.format = kInt4Panels.tag() + 1;
  refused("declined: packed: format is " + std::to_string(kInt4Panels.tag() + 1) + ", expected panels of version 1");
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
      if (n % 4 == 0) check_packed(*t, exact, isa, pools, {true, chance(0.8), chance(0.8)});
      if (n % 16 == 2) check_packed(*t, exact, isa, pools, {false, true, true});
    }
    check_packed_edges(isa, pools);
    for (const int64_t m : {1, 40}) {
      for (const int64_t group : {32, 64, 96, 128}) check_rounding(isa, pools.two, m, group);
      for (const float x : {3e38f, 1e-36f, 1e-42f}) check_range(isa, pools.two, m, x, x > 1 ? 1e-4f : 1.0f);
    }
    for (const Int4Accuracy accuracy : {Int4Accuracy::exact, Int4Accuracy::int8}) {
      for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        for (const int64_t m : {1, 3, 50}) {
          for (const bool packed : {false, true}) check_special(isa, pools.two, dtype, m, accuracy, packed);
        }
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
