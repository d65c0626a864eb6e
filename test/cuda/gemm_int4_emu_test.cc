// gemm_int4 through the table of a kernel library: every configuration that can be chosen, k whole and in parts, sizes on both
// sides of its tile's edges; groups, scales, zeros, perm, epilogues, alignments and mode dequant against the definition, exact
// integers bit for bit; then rows that do not depend on m, workspace, values out of range, refusals.
//
// Arguments: program.h. On an emulated device the cases are dealt out over its schedules; --full takes every pair of edges and
// more cases.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../../kernels/gemm_int4/gemm_int4_choose.h"
#include "gemm_int4_problem.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;
using namespace kw::test::int4;
using gemm_cuda::GemmConfig;
using gemm_int4_cuda::kInt4Configs;

// Everything but the sizes: alignments, dtypes, options.
void dress(Case& t, std::mt19937& random) {
  t.seed = random();
  t.in = pick(random, kHalves), t.out = pick(random, kFloats), t.scale_type = pick(random, kFloats);
  const int64_t chunks = t.k / 32;
  std::vector<int64_t> divisors;
  for (int64_t g = 1; g <= chunks; ++g)
    if (chunks % g == 0) divisors.push_back(g);
  t.groups = divisors[random() % divisors.size()];
  t.zeros = random() % 2, t.perm = random() % 4 == 0;
  t.integers = random() % 2;
  constexpr Activation kSmooth[] = {Activation::gelu_erf, Activation::gelu_tanh, Activation::silu,
                                    Activation::swiglu,   Activation::geglu_erf, Activation::geglu_tanh};
  t.activation = t.integers ? (random() % 2 ? Activation::relu : Activation::none) : pick(random, kSmooth);
  if (is_gated(t.activation)) t.n = (t.n + 1) / 2;
  const bool aligned = random() % 2;
  const auto layout = [&](int64_t columns) {
    return Layout{.offset = aligned ? 8 * static_cast<int64_t>(random() % 2) : static_cast<int64_t>(random() % 9),
                  .pad = aligned ? (8 - columns % 8) % 8 : static_cast<int64_t>(random() % 4)};
  };
  t.x_layout = layout(t.k), t.y_layout = layout(t.n), t.residual_layout = layout(t.n);
  if (t.batch > 1) t.x_layout.broadcast = random() % 3 == 0;
  t.bias = random() % 2, t.bias_type = pick(random, kFloats), t.bias_offset = aligned ? 8 : random() % 3;
  t.residual = random() % 3 == 0, t.residual_type = pick(random, kFloats);
  if (!aligned) t.scale_offset = random() % 3, t.scale_pad = random() % 3, t.zeros_offset = random() % 5;
}

// What the chooser takes by itself, and mode dequant.
void random_cases(const Device& d, size_t share, size_t shares) {
  std::mt19937 random(5);
  Walk<int64_t> ms({0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65}, 1),
      ns({0, 1, 7, 8, 9, 16, 31, 63, 64, 65, 72, 130}, 2);
  Walk<int64_t> ks({32, 64, 96, 128, 160, 192, 256, 288, 384}, 3);
  const size_t count = full ? 1600 : 160;
  for (size_t i = 0; i < count; ++i) {
    Case t;
    t.m = ms.next(), t.n = ns.next(), t.k = ks.next();
    if (random() % 5 == 0) t.batch = 2 + random() % 2, t.m = std::min<int64_t>(t.m, 20);
    dress(t, random);
    if (i % 3 == 2) {
      t.mode = Int4Mode::dequant;
      t.normal_float = random() % 2;
      if (t.normal_float) t.zeros = t.integers = false;
    }
    if (i % shares == share) check(d, t);
  }
}

// Every configuration, k whole and in parts; parts and stages that end within a group, k shorter and longer than the ring.
void configurations(const Device& d, size_t share, size_t shares) {
  std::mt19937 random(static_cast<unsigned>(11 + share));
  size_t turn = share + static_cast<size_t>(d.index);
  for (const GemmConfig& c : kInt4Configs) {
    if (c.sm90) continue;  // gemm_int4_sm90_emu_test.cc
    if (gemm_cuda::resident_blocks(c, static_cast<int64_t>(d.info.smem_bytes)) == 0) continue;
    const std::vector<int64_t> ms = {1, c.m - 1, c.m, c.m + 1}, ns = {c.n - 1, c.n, c.n + 8, c.n + 1};
    Walk<int64_t> some_m(ms, random()), some_n(ns, random());
    for (const DType in : kHalves)
      for (const int parts : {1, 2, 3})
        for (const int64_t k : {parts * 64 - 32, parts * 64, 32 * (4 * parts * (c.stages + 1) + 3)}) {
          const auto one = [&](int64_t m, int64_t n) {
            Case t;
            t.m = m, t.n = n, t.k = k;
            dress(t, random);
            t.in = in;
            t.wish = std::string(c.name) + "/" + std::to_string(parts);
            check(d, t);
          };
          if (full) {
            for (const int64_t m : ms)
              for (const int64_t n : ns) one(m, n);
          } else if (turn++ % shares == 0) {
            one(some_m.next(), some_n.next());
          }
        }
  }
}

// ---- what holds for any of them --------------------------------------------------------------------------------------

constexpr int64_t kN = 72, kK = 384;

std::vector<uint8_t> result(const Device& d, Problem& problem, BoundPlan& plan) {
  const std::string failed = finish(d, problem.y, plan.enqueue());
  expect(failed.empty(), failed);
  return problem.y.bytes;
}

Case rows_case(DType in, int64_t m, int64_t k = kK) {
  Case t;
  t.m = m, t.n = kN, t.k = k, t.in = in, t.groups = k / 96, t.zeros = true, t.scale_type = DType::f32, t.seed = 3;
  return t;
}

void same_rows(const Device& d) {
  for (const DType in : kHalves) {
    std::vector<uint8_t> alone;
    const auto same = [&](const Case& t, const std::string& wish) {
      Problem problem(d, t);
      if (t.m > 1) {  // the first row is the row that was alone
        Problem one(d, rows_case(in, 1));
        std::memcpy(problem.x.host.data, one.x.host.data, kK * 2);
        std::memcpy(problem.scales.bytes.data(), one.scales.bytes.data(), one.scales.bytes.size());
        std::memcpy(problem.w.bytes.data(), one.w.bytes.data(), one.w.bytes.size());
        std::memcpy(problem.zeros.bytes.data(), one.zeros.bytes.data(), one.zeros.bytes.size());
        problem.x.upload(), problem.scales.upload(), problem.w.upload(), problem.zeros.upload();
      }
      Plan plan(d, problem.there, wish);
      expect(plan.splits() == 1 && plan.workspace_bytes() == 0, "batch_invariant: k in one part");
      const auto got = result(d, problem, plan);
      if (alone.empty()) alone = got;
      expect(std::equal(alone.begin(), alone.begin() + kN * 4, got.begin()),
             "batch_invariant: a row has the bits it has alone, " + std::string(name(in)) + " " + plan.variant());
    };
    for (const int64_t m : {1, 2, 17, 70}) {
      Case t = rows_case(in, m);
      t.invariant = true;
      same(t, "");
    }
    for (const GemmConfig& c : kInt4Configs) {
      if (c.sm90) continue;  // they decline
      Case t = rows_case(in, 3);
      t.invariant = true;
      same(t, c.name);
    }
  }
}

void workspace(const Device& d) {
  Case many = rows_case(DType::bf16, 40), few = rows_case(DType::bf16, 1);
  many.perm = few.perm = true;
  Problem rows(d, many), row(d, few);
  Plan plan(d, rows.there, "int4_64x128/2");
  const uint64_t gathered = (40 * kK * 2 + 255) / 256 * 256;
  expect(plan.workspace_bytes() >= gathered + 2 * 40 * kN * 4, "workspace holds gathered x and the parts");
  const auto first = result(d, rows, plan);
  expect(rows.wrong(false).empty() && first == result(d, rows, plan),
         "parts are added in one order: the same bits again");
  plan.rebind(&row.there);
  result(d, row, plan);
  expect(row.wrong(false).empty(), "bound to fewer rows: " + row.wrong(false));
  plan.rebind(&rows.there);
  result(d, rows, plan);
  expect(rows.wrong(false).empty(), "and to more again");

  many.mode = few.mode = Int4Mode::dequant;
  Problem dense(d, many), less(d, few);
  Plan other(d, dense.there);
  expect(other.variant() == "dequant" && other.explain().find("\"gemm\":{\"variant\":\"mma_") != std::string::npos,
         "mode dequant says what multiplies: " + other.explain());
  expect(other.workspace_bytes() >= gathered + kN * kK * 2, "workspace holds gathered x and the weights");
  result(d, dense, other);
  expect(dense.wrong(false).empty(), "mode dequant: " + dense.wrong(false));
  other.rebind(&less.there);
  result(d, less, other);
  expect(less.wrong(false).empty(), "mode dequant bound to fewer rows: " + less.wrong(false));
}

// Values of perm out of range are clamped and raise INDEX once; the stream goes on.
void wild_perm(const Device& d, Int4Mode mode, int given, int clamped) {
  Case t = rows_case(DType::f16, 3);
  t.perm = true, t.mode = mode;
  Problem problem(d, t);
  problem.order()[5] = given;
  problem.perm.upload();
  Plan plan(d, problem.there);
  const std::string failed = finish(d, problem.y, plan.enqueue());
  const std::string wanted = "INDEX: gemm_int4: perm[5] is " + std::to_string(given) + ", expected 0 to 383";
  expect(failed.find(wanted) == 0, "a wild perm raises INDEX: " + failed);
  problem.order()[5] = clamped;
  expect(problem.wrong(false).empty(), "and is clamped: " + problem.wrong(false));
  problem.perm.upload();
  result(d, problem, plan);
  expect(problem.wrong(false).empty(), "the stream goes on once it was reported");
}

void explains(const Device& d) {
  Case t = rows_case(DType::bf16, 1, 6144);
  t.n = 40;
  Problem problem(d, t);
  const Plan plan(d, problem.there);
  const std::string why = plan.explanation();
  const auto number = [&](const char* key) { return std::atof(explained(why.c_str(), key).c_str()); };
  expect(explained(why.c_str(), "bound") == "bandwidth" && number("group") == 96 && number("predictedShare") > 0 &&
             number("predictedMicroseconds") * number("predictedShare") <= 1.02 * number("microseconds"),
         "explain() tells the bound and a predicted share of it: " + why);
  expect(plan.splits() > 1, "one row and long k take parts: " + why);
}

// By name, as tune() takes them; in mode dequant they are gemm's. A plan of one that is bound to another problem chooses again.
void named(const Device& d) {
  const kw_op& op = op_of(d);
  Case t = rows_case(DType::bf16, 20);
  t.perm = true;
  for (const Int4Mode mode : {Int4Mode::fused, Int4Mode::dequant}) {
    t.mode = mode;
    Problem problem(d, t);
    const int count = every_named(d, op, &problem.there, kVariable, [&](BoundPlan& plan) {
      result(d, problem, plan);
      return problem.wrong(false).empty();
    });
    expect(count > 8, "all that may run are named");
    for (const char* wrong : {"int4_1x1", "fma_64x64", "int4_16x64/33"}) refuses_named(d, op, &problem.there, wrong);
  }
  t.mode = Int4Mode::fused;
  Problem many(d, t), few(d, rows_case(DType::bf16, 3));
  Plan plan(d, many.there, "", "int4_128x128");
  plan.rebind(&few.there);
  result(d, few, plan);
  expect(plan.variant() == "int4_128x128" && few.wrong(false).empty(), "bound to few rows: " + plan.explain());
  expect(explained(plan.explain().c_str(), "variant") != "int4_128x128", "it chooses again: " + plan.explain());
}

void refusals(const Device& d) {
  Problem problem(d, rows_case(DType::bf16, 1));
  const kw_op& op = op_of(d);
  const auto declines = [&](GemmInt4Args args, const char* words) {
    const int32_t status = op.supports(&d.info, &args);
    expect(status == static_cast<int32_t>(Code::UNSUPPORTED) && std::strstr(d.table->last_error(), words),
           std::string("supports refuses with '") + words + "': " + d.table->last_error());
  };
  GemmInt4Args args = problem.there;
  args.x.dtype = DType::f32;
  declines(args, "dtype of x is f32, expected bf16 or f16");
  args = problem.there, args.accuracy = Int4Accuracy::int8;
  declines(args, "accuracy is int8, expected exact");
  args = problem.there, args.w.dtype = DType::nf4, args.zeros = {};
  declines(args, "dtype of w is nf4, expected u4, or mode dequant");
  args = problem.there, args.w.dtype = DType::nf4, args.mode = Int4Mode::dequant;
  declines(args, "zeros is given, expected none with nf4");
  args = problem.there, args.w.dtype = DType::i8;
  declines(args, "dtype of w is i8");
  args = problem.there, args.w.format = 1;
  declines(args, "w is packed for another backend, expected plain");
  args = problem.there, args.scales.shape[0] = 5;
  declines(args, "k / groups is 384 / 5, expected a multiple of 32");
  args = problem.there, args.y.stride[2] = 2;
  declines(args, "last stride of y is 2, expected 1");
  args = problem.there, args.w.data = static_cast<char*>(args.w.data) + 8;
  declines(args, "the address of w is a multiple of 8, expected a multiple of 16");
  const auto wished = [&](const char* wish, const char* words) {
    setenv(kVariable, wish, 1);
    declines(problem.there, words);
    unsetenv(kVariable);
  };
  wished("int4_1x1", "KERNWATT_GEMM_INT4 is int4_1x1, expected a configuration");
  wished("int4_16x64/33", "KERNWATT_GEMM_INT4 is int4_16x64/33, expected a configuration");
  problem.there.batch_invariant = true;
  wished("int4_16x64/2", "expected a configuration that takes this problem");
}

void emulated_only(const Device& d) {
  Problem problem(d, rows_case(DType::bf16, 1));
  Plan plan(d, problem.there);
  GemmInt4Args beyond = problem.there;
  beyond.w.data = static_cast<char*>(beyond.w.data) + 64;
  plan.rebind(&beyond);
  d.must(plan.enqueue(), "plan_enqueue");
  expect(d.sync() == static_cast<int32_t>(Code::CUDA), "reading past w fails the wait");
}

}  // namespace

int main(int argc, char** argv) {
  Program program;
  program.turn = [](const Device& d, const Turn& turn) {
    random_cases(d, turn.share, turn.shares);
    configurations(d, turn.share, turn.shares);
    if (turn.share != 0) return;
    same_rows(d);
    workspace(d);
    for (const Int4Mode mode : {Int4Mode::fused, Int4Mode::dequant}) {
      wild_perm(d, mode, -4, 0);
      wild_perm(d, mode, 384, 383);
    }
    explains(d);
    named(d);
    refusals(d);
    if (d.info.emulated) emulated_only(d);
  };
  program.closing = [](bool) {
    for (const GemmConfig& c : kInt4Configs)
      if (!c.sm90) ran(c.name);
  };
  return run_program(argc, argv, program);
}
