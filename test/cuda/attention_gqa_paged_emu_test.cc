// attention_gqa_paged through the table of a kernel library: pages of every size in any order, lengths at the edges of tiles and
// pages, parts of keys, against the definition, with NaN in every slot and entry that nothing may read; values out of range; a
// graph that is launched again with other lengths and tables; the same bits every time.
// Arguments: program.h.
#include "../../kernels/attention_gqa_paged/attention_gqa_paged.h"
#include "attention_paged_problem.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;

struct Paged {
  using Args = AttentionGqaPagedArgs;
  static constexpr const char* kName = "attention_gqa_paged";
  static void caches(Args& args, const TensorView& keys, const TensorView& values) {
    static_cast<TensorView&>(args.k_cache) = keys;
    static_cast<TensorView&>(args.v_cache) = values;
  }
  static void parameters(Args& args, const PagedCase& t) { args.softcap = t.softcap, args.window_left = t.left; }
  static void reference(const Args& args, ReferenceOutputs& out) { ref::attention_gqa_paged(args, {}, out); }
};

void random_case(const Device& d, unsigned seed) {
  std::mt19937 random(seed);
  const auto yes = [&](unsigned of) { return random() % of == 0; };
  constexpr int64_t kPages[] = {1, 2, 3, 7, 8, 15, 16, 17, 32, 64, 100, 256}, kReach[] = {1, 20, 70, 140, 300, 700};
  constexpr int64_t kQueries[] = {1, 1, 1, 2, 4, 5, 17, 40}, kGroups[] = {1, 2, 4, 7, 8, 17};
  constexpr int64_t kDims[] = {1, 8, 33, 64, 80, 128, 200, 256}, kLeft[] = {0, 1, 15, 16, 64, 130};
  constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16, DType::bf16};
  PagedCase t;
  t.seed = seed;
  do {
    t.page_size = pick(random, kPages);
    t.max_pages = std::max<int64_t>(1, pick(random, kReach) / t.page_size);
    t.len_q = pick(random, kQueries), t.heads_kv = 1 + random() % 3, t.group = pick(random, kGroups);
    t.dim = pick(random, kDims), t.dim_v = yes(3) ? pick(random, kDims) : t.dim;
    const int64_t reach = t.page_size * t.max_pages, batch = yes(8) ? 35 : 1 + random() % 4;
    t.lens_kv.clear(), t.lens_q.clear();
    const bool ragged = yes(3);
    for (int64_t b = 0; b < batch; ++b) {
      t.lens_kv.push_back(static_cast<int32_t>(yes(6) ? 0 : yes(3) ? reach : random() % (reach + 1)));
      if (ragged) t.lens_q.push_back(static_cast<int32_t>(random() % (t.len_q + 1)));
    }
  } while (t.batch() * t.len_q * t.heads_kv * t.group * t.page_size * t.max_pages * (t.dim + t.dim_v) >
           (race ? 300'000 : 1'500'000));
  t.in = pick(random, kFloats), t.out = yes(2) ? t.in : pick(random, kFloats);
  t.causal = !yes(4), t.sink = yes(3), t.misaligned = yes(4), t.shared = yes(4), t.batch_invariant = yes(4);
  if (yes(3)) t.left = pick(random, kLeft);
  if (yes(4)) t.softcap = 5;
  if (yes(3)) t.splits = 1 + random() % 3;
  check<Paged>(d, t);
}

}  // namespace

int main(int argc, char** argv) {
  Program program;
  program.turn = [](const Device& d, const Turn& turn) {
    const unsigned cases = full ? 200 : race ? 12 : 30;
    for (unsigned i = 0; i < cases; ++i) random_case(d, static_cast<unsigned>(turn.of_all) * cases + i);
    const PagedCase like{.heads_kv = 2, .group = 2};
    if (turn.share == 0) wrong_values<Paged>(d, like);
    if (turn.share == 1 % turn.shares) captured<Paged>(d, like);
    if (turn.share == 2 % turn.shares) repeated<Paged>(d, like, full ? 200 : 3);
  };
  program.closing = [](bool) {
    for (const char* what : {"paged_mma_16", "paged_mma_64", "paged_fma_32", "async", "not async", "whole", "parts"})
      expect(seen.count(what) > 0, std::string(what) + " was never chosen");
  };
  return run_program(argc, argv, program);
}
