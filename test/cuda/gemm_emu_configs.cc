// Every configuration of gemm that can be chosen (kConfigs in gemm_choose.h), for every dtype and access it is compiled for, with
// k whole and in parts: sizes on both sides of its tile's edges, exact integers and full epilogues. And what holds for any of
// them: bits that do not depend on m and batch where that was asked for, workspace, refusals.
//
// --full takes every pair of edges instead of a sample of them.
#include <algorithm>

#include "../../kernels/gemm/gemm_choose.h"
#include "gemm_problem.h"

namespace kw::test {
namespace {

using gemm_cuda::Access;
using gemm_cuda::GemmConfig;
using gemm_cuda::kConfigs;

constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};

// A problem that lies as `access` says, for one configuration.
GemmCase lying(Access access, const GemmConfig& c, DType in, int64_t m, int64_t n, int64_t k, int parts) {
  GemmCase t;
  t.m = m, t.n = n, t.k = k, t.in = in;
  t.trans_x = access == Access::rows_k || access == Access::rows_rows;
  t.trans_w = access == Access::k_rows || access == Access::rows_rows;
  const auto pad = [](int64_t columns) { return (8 - columns % 8) % 8 + 8; };
  t.x_layout.pad = pad(t.trans_x ? m : k);
  t.w_layout.pad = pad(t.trans_w ? n : k);
  if (access == Access::any) t.x_layout.offset = 1;
  t.y_layout.pad = n % 2 ? 3 : pad(n);
  t.wish = std::string(c.name) + (parts > 1 ? "/" + std::to_string(parts) : "");
  return t;
}

// The epilogue with everything in it.
void dress(GemmCase& t, std::mt19937& random) {
  t.bias = t.c = t.residual = true;
  t.bias_type = pick(random, kFloats), t.c_type = pick(random, kFloats), t.residual_type = pick(random, kFloats);
  t.alpha = 0.5f, t.beta = 2;
  t.out = pick(random, kFloats);
  // A gate's halves of a transposed w must not start between 16-byte pieces.
  const bool gated = t.n % 2 == 0 && !(t.trans_w && t.n / 2 % 8);
  t.activation = gated ? Activation::swiglu : Activation::gelu_tanh;
  if (gated) t.n /= 2;
}

}  // namespace

void configurations(const Device& d, size_t share, size_t shares) {
  std::mt19937 random(static_cast<unsigned>(11 + share));
  size_t turn = 0;
  for (const GemmConfig& c : kConfigs) {
    if (c.sm90) continue;  // gemm_sm90_emu_test.cc
    if (gemm_cuda::resident_blocks(c, static_cast<int64_t>(d.info.smem_bytes)) == 0) continue;
    const std::vector<int64_t> ms = {1, c.m - 1, c.m, c.m + 1}, ns = {c.n - 1, c.n, c.n + 8, 2 * c.n + 2};
    Walk<int64_t> some_m(ms, random()), some_n(ns, random());
    for (const DType in : kFloats) {
      if ((in == DType::f32) != (c.element == 4)) continue;
      for (int a = 0; a <= static_cast<int>(Access::any); ++a) {
        const auto access = static_cast<Access>(a);
        if (!(c.access & bit(access))) continue;
        for (const int parts : {1, 2, 3}) {
          // Parts are 64 long or more; the last one is short, or a single element.
          const int64_t ks[] = {parts * 64 - 31, parts * 64 - 63 + 64 * (parts == 1), parts * 64};
          const auto one = [&](int64_t m, int64_t n) {
            GemmCase t = lying(access, c, in, m, n, pick(random, ks), parts);
            t.seed = random();
            if (random() % 2) {
              dress(t, random);
            } else {
              t.integers = true;
              t.activation = random() % 2 ? Activation::relu : Activation::none;
              t.out = DType::f32;
            }
            if (m * n <= 64 * 64 && random() % 3 == 0) t.batch = 2, t.w_layout.broadcast = random() % 2;
            const std::string wrong = run(d, t);
            expect(wrong.empty(), t.text() + ": " + wrong);
          };
          if (full) {
            for (const int64_t m : ms)
              for (const int64_t n : ns) one(m, n);
          } else if (turn++ % shares == share) {
            one(some_m.next(), some_n.next());
          }
        }
      }
    }
  }
}

namespace {

// y = x wT with w [n, k]; x and w are drawn once, and x's first rows are the operand.
struct Rows {
  Operand x, w, y;
  GemmArgs args;
  Rows(const Device& d, DType in, int64_t batch, int64_t m, int64_t n, int64_t k) {
    std::mt19937 random(3);
    x.make(d, in, batch, m, k, {});
    w.make(d, in, 1, n, k, {.flat = true});
    y.make(d, DType::f32, batch, m, n, {});
    x.fill(random, false);  // row by row: the first are the same whatever m is
    random.seed(4);
    w.fill(random, false);
    x.upload(), w.upload(), y.upload();
    static_cast<TensorView&>(args.x) = x.device;
    static_cast<TensorView&>(args.w) = w.device;
    static_cast<TensorView&>(args.y) = y.device;
  }
  std::vector<uint8_t> result(const Device& d, BoundPlan& plan) {
    d.must(plan.enqueue(), "plan_enqueue");
    y.download();
    d.must(d.sync(), "sync");
    return y.bytes;
  }
  bool right() {
    GemmArgs host = args;
    static_cast<TensorView&>(host.x) = x.host;
    static_cast<TensorView&>(host.w) = w.host;
    static_cast<TensorView&>(host.y) = y.host;
    ReferenceOutputs reference;
    ref::gemm(host, {}, reference);
    return compare(y, reference[0], "y").empty();
  }
};

bool saw_parts = false;  // a row for which the chooser took parts of k by itself
constexpr int64_t kN = 72, kK = 400;
bool same_first_row(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  return std::equal(a.begin(), a.begin() + kN * 4, b.begin());
}

}  // namespace

void properties(const Device& d) {
  for (const DType in : kFloats) {
    const std::string type = name(in);
    {
      std::vector<uint8_t> alone;
      for (const auto& [batch, m] : {std::pair<int64_t, int64_t>{1, 1}, {1, 5}, {1, 33}, {2, 70}, {3, 1}}) {
        Rows rows(d, in, batch, m, kN, kK);
        rows.args.batch_invariant = true;
        GemmPlan plan(d, rows.args);
        expect(plan.splits() == 1 && plan.workspace_bytes() == 0, "batch_invariant: k in one part");
        const auto got = rows.result(d, plan);
        if (alone.empty()) alone = got;
        expect(same_first_row(alone, got),
               "batch_invariant: a row has the bits it has alone, " + type + ", " + plan.variant());
      }
    }
    Rows many(d, in, 1, 40, kN, kK), few(d, in, 1, 1, kN, kK);
    {
      GemmPlan plan(d, few.args, in == DType::f32 ? "fma_64x64/4" : "mma_16x64/4");
      const auto first = few.result(d, plan);
      const std::string why = plan.explain();
      const auto number = [&](const char* name) { return std::atof(explained(why.c_str(), name).c_str()); };
      expect(explained(why.c_str(), "bound") == "bandwidth" && number("predictedShare") > 0 &&
                 number("predictedMicroseconds") * number("predictedShare") <= 1.02 * number("microseconds"),
             "explain() tells the bound and a predicted share of it: " + why);
      expect(first == few.result(d, plan) && few.right(), "parts are added in one order: the same bits again, " + type);
    }
    {
      const char* name = in == DType::f32 ? "fma_64x64/2" : "mma_64x64/2";
      GemmPlan plan(d, many.args, name);
      const uint64_t bytes = plan.workspace_bytes();
      expect(bytes == 2 * 40 * kN * 4, "workspace holds the parts, " + type);
      plan.rebind(few.args);  // alone it would take more parts, for which a row of this workspace has room
      few.result(d, plan);
      expect(few.right(), "bound to fewer rows, " + type);
      plan.rebind(many.args);
      many.result(d, plan);
      expect(many.right(), "and to more again, " + type);
    }
  }
  {
    Rows rows(d, DType::bf16, 6, 1, kN, kK);
    GemmPlan plan(d, rows.args, "mma_16x64");
    rows.result(d, plan);
    expect(rows.right() && plan.explain().find("\"tiles\":[1,2,1]") != std::string::npos,
           "six rows in a batch share one reading of their w: " + plan.explain());
  }
  {
    Rows many(d, DType::bf16, 1, 200, kN, 8 * kK), few(d, DType::bf16, 1, 1, kN, 8 * kK);
    GemmPlan plan(d, many.args), alone(d, few.args);
    expect(plan.workspace_bytes() >= alone.workspace_bytes(), "a plan has room for the parts of one row");
    plan.rebind(few.args);
    few.result(d, plan);
    expect(few.right() && explained(plan.explain().c_str(), "splits") == std::to_string(alone.splits()),
           "and bound to one row takes as many as a plan of its own: " + plan.explain());
    saw_parts = saw_parts || alone.splits() > 1;
  }
  Rows rows(d, DType::bf16, 1, 1, kN, kK), none(d, DType::bf16, 1, 0, kN, kK);
  expect(GemmPlan(d, none.args).explain().find("roofline") == std::string::npos, "of nothing nothing is predicted");
  {
    Rows some(d, DType::bf16, 1, 20, kN, kK);
    const int count = every_named(d, gemm_of(*d.table), &some.args, "KERNWATT_GEMM", [&](BoundPlan& plan) {
      some.result(d, plan);
      return some.right();
    });
    expect(count > 8, "all that may run are named");
    // Bound to another problem, a plan of one of them chooses as any other does.
    Rows most(d, DType::bf16, 1, 200, kN, kK), fewer(d, DType::bf16, 1, 3, kN, kK);
    GemmPlan plan(d, most.args, "", "mma_128x128");
    plan.rebind(fewer.args);
    fewer.result(d, plan);
    expect(plan.variant() == "mma_128x128" && fewer.right(), "bound to few rows: " + plan.explain());
    expect(explained(plan.explain().c_str(), "variant") != "mma_128x128", "it chooses again: " + plan.explain());
    for (const char* wrong : {"mma_1x1", "fma_64x64", "mma_64x64/33"})
      refuses_named(d, gemm_of(*d.table), &some.args, wrong);
  }
  const auto refused = [&](const char* wish, const char* words) {
    setenv("KERNWATT_GEMM", wish, 1);
    const int32_t status = gemm_of(*d.table).supports(&d.info, &rows.args);
    unsetenv("KERNWATT_GEMM");
    expect(status == static_cast<int32_t>(Code::UNSUPPORTED) && std::strstr(d.table->last_error(), words),
           std::string("supports refuses with '") + words + "': " + d.table->last_error());
  };
  refused("mma_1x1", "KERNWATT_GEMM is mma_1x1, expected a configuration");
  refused("mma_64x64/33", "KERNWATT_GEMM is mma_64x64/33, expected a configuration");
  refused("fma_64x64", "KERNWATT_GEMM is fma_64x64, expected a configuration that takes this problem");
  rows.args.batch_invariant = true;
  refused("mma_64x64/2", "expected a configuration that takes this problem");
}

void every_configuration_ran(bool every_device) {
  expect(saw_parts, "on some device one row takes parts of k");
  if (!every_device) return;
  for (const GemmConfig& c : kConfigs)
    if (!c.sm90) ran(c.name);
}

}  // namespace kw::test
