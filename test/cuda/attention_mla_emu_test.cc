// attention_mla through the table of a kernel library: heads and latents on both sides of every compiled size, pages of every size in
// any order, parts of keys, the kernel for compute capability 9.0, against the definition.
// Arguments: program.h.
#include "../../kernels/attention_mla/attention_mla.h"
#include "attention_paged_problem.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;

struct Mla {
  using Args = AttentionMlaArgs;
  static constexpr const char* kName = "attention_mla";
  static void caches(Args& args, const TensorView& rows, const TensorView&) {
    TensorView& c = args.c_cache;
    c = rows;
    c.rank = 3;
    c.shape[2] = rows.shape[3], c.stride[2] = rows.stride[3];
    c.shape[3] = c.stride[3] = 0;
  }
  static void parameters(Args& args, const PagedCase& t) { args.latent = t.dim_v; }
  static void reference(const Args& args, ReferenceOutputs& out) { ref::attention_mla(args, {}, out); }
};

PagedCase random_case(unsigned seed, bool for_90) {
  std::mt19937 random(seed);
  const auto yes = [&](unsigned of) { return random() % of == 0; };
  constexpr int64_t kPages[] = {1, 3, 8, 15, 16, 17, 32, 64, 100, 128}, kReach[] = {1, 20, 70, 140, 300, 700};
  constexpr int64_t kBoxes[] = {8, 16, 32, 64, 128};
  constexpr int64_t kQueries[] = {1, 1, 1, 2, 3, 5}, kHeads[] = {1, 4, 15, 16, 17, 31, 33, 40, 64, 65, 128};
  constexpr std::pair<int64_t, int64_t> kSizes[] = {{576, 512}, {320, 256}, {192, 128}, {96, 64}, {41, 40},
                                                    {250, 129}, {321, 30},  {520, 500}, {576, 64}};
  constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16, DType::bf16}, kHalves[] = {DType::bf16, DType::f16};
  PagedCase t;
  t.seed = seed;
  do {
    t.page_size = for_90 ? pick(random, kBoxes) : pick(random, kPages);
    t.max_pages = std::max<int64_t>(1, pick(random, kReach) / t.page_size);
    t.len_q = pick(random, kQueries), t.group = pick(random, kHeads);
    std::tie(t.dim, t.dim_v) = pick(random, kSizes);
    const int64_t reach = t.page_size * t.max_pages, batch = yes(8) ? 35 : 1 + random() % 4;
    t.lens_kv.clear(), t.lens_q.clear();
    const bool ragged = yes(3);
    for (int64_t b = 0; b < batch; ++b) {
      t.lens_kv.push_back(static_cast<int32_t>(yes(6) ? 0 : yes(3) ? reach : random() % (reach + 1)));
      if (ragged) t.lens_q.push_back(static_cast<int32_t>(random() % (t.len_q + 1)));
    }
  } while (t.batch() * t.len_q * t.group * t.page_size * t.max_pages * (t.dim + t.dim_v) >
               (race ? 3'000'000 : 15'000'000) ||
           (for_90 && (t.len_q * t.group <= 32 || t.dim <= 320)));
  t.in = for_90 ? pick(random, kHalves) : pick(random, kFloats), t.out = yes(2) ? t.in : pick(random, kFloats);
  t.causal = !yes(4), t.misaligned = !for_90 && yes(4), t.shared = yes(4), t.batch_invariant = yes(4);
  if (yes(3)) t.splits = 1 + random() % 3;
  return t;
}

}  // namespace

int main(int argc, char** argv) {
  setenv("KERNWATT_UNPROVED", "1", 1);
  Program program;
  program.turn = [](const Device& d, const Turn& turn) {
    const unsigned cases = full ? 300 : race ? 8 : 24;
    const bool for_90 = d.info.cc_major == 9 && d.info.cc_minor == 0;
    for (unsigned i = 0; i < cases; ++i)
      check<Mla>(d, random_case(static_cast<unsigned>(turn.of_all) * cases + i, for_90 && i % 2));
    const PagedCase few{.group = 4, .dim = 96, .dim_v = 64}, many{.group = 40, .dim = 576, .dim_v = 512};
    for (const PagedCase& like : {few, many}) {
      if (turn.share == 0) wrong_values<Mla>(d, like);
      if (turn.share == 1 % turn.shares) captured<Mla>(d, like);
      if (turn.share == 2 % turn.shares) repeated<Mla>(d, like, full ? 200 : 2);
    }
  };
  program.closing = [](bool every_device) {
    for (const char* what : {"mla_16", "mla_32", "mla_64", "mla_fma_16", "async", "not async", "whole", "parts"})
      expect(seen.count(what) > 0, std::string(what) + " was never chosen");
    if (every_device) expect(seen.count("sm90_mla_64") > 0, "sm90_mla_64 was never chosen");
  };
  return run_program(argc, argv, program);
}
