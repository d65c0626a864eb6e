// gemm_int4's kernels for compute capability 9.0 through the table of a kernel library: every configuration of
// gemm_int4_sm90.h with k in every number of parts, weights made in shared memory and in registers, both dtypes, gated and not; sizes
// on both sides of a tile's edges and of the ring's end, groups from half a stage to all of k. Then what they decline.
//
// Arguments: program.h. --full takes every pair of edges instead of a sample of them. The race build takes two cases of each
// configuration and number of parts.
#include <algorithm>

#include "../../kernels/gemm_int4/gemm_int4_sm90.h"
#include "gemm_int4_problem.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;
using namespace kw::test::int4;
using gemm_cuda::kSm90Int4Configurations;
using gemm_cuda::Sm90Configuration;

// How sums leave: by TMA, with everything an epilogue has, through a gate.
enum class Way { store, dressed, gated };

Case lying(const Sm90Configuration& c, int splits, DType in, int64_t m, int64_t n, int64_t k) {
  Case t;
  t.m = m, t.n = n, t.k = k, t.in = in, t.scale_type = in;
  t.x_layout.pad = 8;
  t.y_layout.pad = (8 - n % 8) % 8 + 8;
  t.wish = std::string(c.name) + "/" + std::to_string(splits);
  return t;
}

void dress(Case& t, Way way, std::mt19937& random) {
  t.seed = random();
  std::vector<int64_t> groups;
  for (int64_t g = 1; g <= t.k / 32; ++g)
    if (t.k / 32 % g == 0) groups.push_back(g);
  t.groups = groups[random() % groups.size()];
  t.scale_type = random() % 2 ? t.in : pick(random, kFloats);
  t.scale_offset = random() % 3, t.scale_pad = random() % 3;
  t.zeros = random() % 2, t.zeros_offset = random() % 5;
  t.perm = random() % 4 == 0;
  if (t.perm) t.x_layout.pad = 3;  // what is multiplied is the copy
  t.bias = random() % 4 != 0;
  t.bias_type = pick(random, kFloats), t.bias_offset = random() % 2;
  if (way == Way::store) {
    t.out = t.in;
    t.integers = true;
    t.activation = random() % 2 ? Activation::relu : Activation::none;
    return;
  }
  t.out = pick(random, kFloats);
  t.integers = way == Way::dressed && random() % 2;
  t.residual = random() % 2, t.residual_type = pick(random, kFloats);
  if (way == Way::gated) {
    t.n = std::max<int64_t>(1, t.n / 2);
    t.activation = static_cast<Activation>(static_cast<int>(Activation::swiglu) + random() % 3);
  } else if (!t.integers) {
    t.activation = static_cast<Activation>(random() % static_cast<int>(Activation::swiglu));
  }
  if (random() % 3 == 0) t.y_layout.pad = 3, t.y_layout.offset = 1;  // element by element
}

void configurations(const Device& d, size_t share, size_t shares) {
  std::mt19937 random(static_cast<unsigned>(47 + share));
  size_t turn = 0, pair = 0;  // of a way out and a dtype; of a configuration and a number of parts
  for (const Sm90Configuration& c : kSm90Int4Configurations) {
    const std::vector<int64_t> ms = {1, c.tokens - 1, c.tokens, c.tokens + 1, 2 * c.tokens + 3};
    const std::vector<int64_t> ns = {1, c.rows - 1, c.rows, c.rows + 8, 2 * c.rows + 2};
    Walk<int64_t> some_m(ms, random()), some_n(ns, random());
    for (int splits = 1; splits <= std::max(c.most_splits, 1); splits *= 2, ++pair) {
      size_t kind = 0;
      const size_t kinds = c.gated ? 6 : 4;
      // Parts of one stage, of unequal lengths, and round the ring; the last stage full or half.
      const int64_t stage = c.kDepth, ring = c.stages * stage;
      Walk<int64_t> ks(
          {splits * stage, splits * stage - 32, (splits + 1) * stage - 32, splits * ring + 32, splits * (ring + stage)},
          random());
      for (const Way way : {Way::store, Way::dressed, Way::gated}) {
        if (way == Way::gated && !c.gated) continue;
        for (const DType in : {DType::bf16, DType::f16}) {
          const auto one = [&](int64_t m, int64_t n) {
            Case t = lying(c, splits, in, m, n, ks.next());
            dress(t, way, random);
            if (m * n <= 256 * 128 && random() % 3 == 0) t.batch = 2;  // tiles that a block goes on to
            check(d, t);
          };
          if (full) {
            for (const int64_t m : ms)
              for (const int64_t n : ns) one(m, n);
          } else if (race) {  // neighbouring pairs take different kinds
            if (pair % shares == share && (kind + 5 * pair) % kinds % 3 == 0) one(some_m.next(), some_n.next());
          } else if (turn++ % shares == share) {
            for (int i = 0; i < 2; ++i) one(some_m.next(), some_n.next());
          }
          ++kind;
        }
      }
    }
  }
}

// What they decline runs all the same, on the portable kernels; without leave they never run; the register ones only by name.
void choices(const Device& d) {
  Case t;
  t.m = 512, t.n = 256, t.k = 512, t.groups = 4;
  Problem problem(d, t);
  const auto variant = [&](const GemmInt4Args& args, const Device& device) { return Plan(device, args).variant(); };
  const auto is_sm90 = [](const std::string& name) { return name.rfind("sm90_int4_", 0) == 0; };
  const std::string chosen = variant(problem.there, d);
  expect(is_sm90(chosen), "with KERNWATT_UNPROVED=1 one of them is chosen, not " + chosen);
  expect(chosen.find("_r_") == std::string::npos, "not one with registers, " + chosen);
  GemmInt4Args other = problem.there;
  other.batch_invariant = true;
  expect(!is_sm90(variant(other, d)), "not with batch_invariant");
  other = problem.there;
  other.x.data = static_cast<uint16_t*>(other.x.data) + 1;
  expect(!is_sm90(variant(other, d)), "not where rows of x begin between 16-byte pieces");
  Device neighbour = d;
  neighbour.info.cc_minor = 1;
  expect(!is_sm90(variant(problem.there, neighbour)), "not on another compute capability");
  unsetenv("KERNWATT_UNPROVED");
  const Plan plan(d, problem.there);
  expect(!is_sm90(plan.variant()) &&
             plan.explanation().find("no kernel for 9.0: no GPU has proved it yet") != std::string::npos,
         "not without KERNWATT_UNPROVED=1, and explain() says so: " + plan.explanation());
  setenv("KERNWATT_UNPROVED", "1", 1);
}

// Found by --full: elements at which an error of the textbook algorithm cancels by chance, that of rounding w in a long sum,
// and that of rounding y.
void cancellations(const Device& d) {
  Case t;
  t.m = 63, t.n = 128, t.k = 6656, t.groups = 2, t.in = DType::f16, t.scale_type = DType::f16, t.scale_pad = 2;
  t.zeros = true, t.perm = true, t.x_layout.pad = 3, t.y_layout = {.offset = 1, .pad = 3};
  t.seed = 1916321077, t.wish = "sm90_int4_64x128/8";
  check(d, t);
  t = {};
  t.m = 259, t.n = 68, t.k = 800, t.in = t.out = DType::f16, t.scale_type = DType::f16, t.scale_pad = 1;
  t.bias = t.residual = true, t.residual_type = DType::f16, t.activation = Activation::swiglu;
  t.x_layout.pad = 8, t.y_layout = {.offset = 1, .pad = 3}, t.seed = 4154692400, t.wish = "sm90_int4_128x128/2";
  check(d, t);
}

}  // namespace

int main(int argc, char** argv) {
  Program program = sm90_program();
  program.turn = [](const Device& d, const Turn& turn) {
    configurations(d, turn.share, turn.shares);
    if (turn.share == 0) choices(d), cancellations(d);
  };
  program.closing = [](bool) {
    for (const Sm90Configuration& c : kSm90Int4Configurations) ran(c.name, c.streams());
  };
  return run_program(argc, argv, program);
}
