// gemm's kernels for compute capability 9.0 through the table of a kernel library: every configuration of gemm_sm90.h with k in
// every number of parts, both dtypes, gated and not, both ways out of shared memory; sizes on both sides of a tile's edges and of
// the ring's end; tile after tile in one block. Then what they decline, and that nothing runs them unasked.
//
// Arguments: program.h. --full takes every pair of edges instead of a sample of them; of the sample the race build takes a third.
// It runs on libkernwatt_cuda.so just as well.
#include "../../kernels/gemm/gemm_sm90.h"
#include "gemm_problem.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;
using gemm_cuda::kSm90Configurations;
using gemm_cuda::Sm90Configuration;

constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};

// How sums leave: by TMA, with everything an epilogue has, through a gate.
enum class Way { store, dressed, gated };

GemmCase lying(const Sm90Configuration& c, int splits, DType in, int64_t m, int64_t n, int64_t k) {
  GemmCase t;
  t.m = m, t.n = n, t.k = k, t.in = in;
  const auto pad = [](int64_t columns) { return (8 - columns % 8) % 8 + 8; };
  t.x_layout.pad = t.w_layout.pad = pad(k);
  t.y_layout.pad = pad(n);
  t.wish = std::string(c.name) + "/" + std::to_string(splits);
  return t;
}

void dress(GemmCase& t, Way way, std::mt19937& random) {
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
  t.c = random() % 2, t.c_type = pick(random, kFloats), t.alpha = 0.5f, t.beta = t.c ? 2 : 0;
  if (way == Way::gated) {
    t.n = std::max<int64_t>(1, t.n / 2);
    t.activation = static_cast<Activation>(static_cast<int>(Activation::swiglu) + random() % 3);
  } else if (!t.integers) {
    t.activation = static_cast<Activation>(random() % static_cast<int>(Activation::swiglu));
  }
  if (random() % 3 == 0) t.y_layout.pad = 3, t.y_layout.offset = 1;  // element by element
}

void configurations(const Device& d, size_t share, size_t shares) {
  const size_t every = race ? 3 * shares : shares;
  std::mt19937 random(static_cast<unsigned>(31 + share));
  size_t turn = 0;
  for (const Sm90Configuration& c : kSm90Configurations) {
    if (turn++ % shares == share) {  // more tokens than are walked before the next tile of w
      GemmCase t = lying(c, 1, DType::bf16, 2048 + c.tokens + 1, c.rows + 8, 8);
      t.integers = true;
      const std::string wrong = run(d, t);
      expect(wrong.empty(), t.text() + ": " + wrong);
    }
    const std::vector<int64_t> ms = {1, c.tokens - 1, c.tokens, c.tokens + 1, 2 * c.tokens + 3};
    const std::vector<int64_t> ns = {1, c.rows - 1, c.rows, c.rows + 8, 2 * c.rows + 2};
    Walk<int64_t> some_m(ms, random()), some_n(ns, random());
    for (int splits = 1; splits <= std::max(c.most_splits, 1); splits *= 2) {
      // Parts of one stage, of unequal lengths, and round the ring; the last stage full, ragged, or a single element.
      const int64_t stage = c.kDepth, ring = c.stages * stage;
      Walk<int64_t> ks(
          {splits * stage, splits * stage - 63, (splits + 1) * stage - 31, splits * ring + 1, splits * (ring + stage)},
          random());
      for (const Way way : {Way::store, Way::dressed, Way::gated}) {
        if (way == Way::gated && !c.gated) continue;
        for (const DType in : {DType::bf16, DType::f16}) {
          const auto one = [&](int64_t m, int64_t n) {
            GemmCase t = lying(c, splits, in, m, n, ks.next());
            dress(t, way, random);
            t.seed = random();
            // Matrices of a batch make the tiles that a block goes on to.
            if (m * n <= 256 * 128 && random() % 2) {
              t.batch = 2 + random() % 2;
              (random() % 2 ? t.w_layout.flat : t.x_layout.broadcast) = true;
            }
            const std::string wrong = run(d, t);
            expect(wrong.empty(), t.text() + ": " + wrong);
          };
          if (full) {
            for (const int64_t m : ms)
              for (const int64_t n : ns) one(m, n);
          } else if (turn++ % every == share) {
            for (int i = 0; i < (race ? 1 : 2); ++i) one(some_m.next(), some_n.next());
          }
        }
      }
    }
  }
}

std::string variant_of(const Device& d, const GemmArgs& args) { return GemmPlan(d, args).variant(); }
bool says(const Device& d, const GemmArgs& args, const char* words) {
  return GemmPlan(d, args).explanation().find(words) != std::string::npos;
}

// What they decline runs all the same, on the portable kernels; without leave they never run.
void choices(const Device& d) {
  GemmCase t;
  t.m = 512, t.n = 1024, t.k = 2048;
  Operand x, w, y;
  x.make(d, DType::bf16, 1, t.m, t.k, {.flat = true});
  w.make(d, DType::bf16, 1, t.n, t.k, {.flat = true});
  y.make(d, DType::bf16, 1, t.m, t.n, {.flat = true});
  GemmArgs args;
  static_cast<TensorView&>(args.x) = x.device;
  static_cast<TensorView&>(args.w) = w.device;
  static_cast<TensorView&>(args.y) = y.device;
  const auto is_sm90 = [](const std::string& variant) { return variant.rfind("sm90_", 0) == 0; };
  expect(is_sm90(variant_of(d, args)), "with KERNWATT_UNPROVED=1 one of them is chosen, not " + variant_of(d, args));
  GemmArgs other = args;
  other.batch_invariant = true;
  expect(!is_sm90(variant_of(d, other)), "not with batch_invariant");
  other = args;
  other.x.data = static_cast<uint16_t*>(args.x.data) + 1;
  other.x.shape[1] = other.w.shape[1] = t.k - 8;
  expect(!is_sm90(variant_of(d, other)), "not where rows begin between 16-byte pieces");
  expect(says(d, other, "no kernel for 9.0: rows of x are not contiguous"), "and explain() says so");
  other = args;
  other.trans_w = true;
  other.w.shape[0] = t.k, other.w.shape[1] = t.n, other.w.stride[0] = t.n;
  expect(!is_sm90(variant_of(d, other)), "not where w is contiguous along its rows");
  other = args;
  other.x.stride[0] = 0;
  expect(!is_sm90(variant_of(d, other)), "not where one row of x is all of them");
  kw_device_info older = d.info;
  older.cc_minor = 1;
  Device neighbour = d;
  neighbour.info = older;
  expect(!is_sm90(variant_of(neighbour, args)), "not on another compute capability");
  unsetenv("KERNWATT_UNPROVED");
  expect(!is_sm90(variant_of(d, args)), "not without KERNWATT_UNPROVED=1");
  expect(says(d, args, "no kernel for 9.0: no GPU has proved it yet"), "and explain() says so");
  setenv("KERNWATT_GEMM", "sm90_64x128", 1);
  const int32_t status = gemm_of(*d.table).supports(&d.info, &args);
  unsetenv("KERNWATT_GEMM");
  expect(status == static_cast<int32_t>(Code::UNSUPPORTED), "nor by name");
  setenv("KERNWATT_UNPROVED", "1", 1);
}

}  // namespace

int main(int argc, char** argv) {
  Program program = sm90_program();
  program.turn = [](const Device& d, const Turn& turn) {
    configurations(d, turn.share, turn.shares);
    if (turn.share == 0) choices(d);
  };
  program.closing = [](bool) {
    for (const Sm90Configuration& c : kSm90Configurations) ran(c.name, c.streams());
  };
  return run_program(argc, argv, program);
}
