// What gemm's CUDA chooser can return, over shapes of served models and odd ones, devices, dtypes and accesses: always a
// configuration of kConfigs that fits the device and the problem, each of them somewhere; parts of k within their bounds; and
// the rules of thumb that a wrong sign in the cost model would break. gemm_emu_configs.cc runs every entry of kConfigs.
#include "../../kernels/gemm/gemm_choose.h"

#include <algorithm>
#include <set>

#include "gpus.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::gemm_cuda;
using namespace kw::test;

// The access and element of every way operands can lie.
const struct {
  Access access;
  int element;
} kWays[] = {{Access::k_k, 2},       {Access::k_rows, 2}, {Access::rows_k, 2},
             {Access::rows_rows, 2}, {Access::any, 2},    {Access::any, 4}};

GemmProblem problem(int64_t m, int64_t columns, int64_t k, int64_t batch = 1) {
  GemmProblem p;
  p.batch = batch, p.m = m, p.columns = columns, p.k = k;
  p.access = Access::k_k;
  p.w_shared = true;
  p.epilogue_bytes = 2 * batch * m * columns;
  return p;
}

std::string text(const char* on, const GemmProblem& p, const GemmChoice& c) {
  return std::string(on) + ", " + std::to_string(p.batch) + " x " + std::to_string(p.m) + " x " +
         std::to_string(p.columns) + " x " + std::to_string(p.k) + ", access " +
         std::to_string(static_cast<int>(p.access)) + ": " + (c.config ? c.config->name : "nothing") + "/" +
         std::to_string(c.splits);
}

const GemmConfig* listed(const GemmConfig* config) {
  for (const GemmConfig& c : kConfigs)
    if (&c == config) return &c;
  return nullptr;
}

// Everything that must hold of a choice; also that predictions are finite and never beat the roofline.
void holds(const char* on, const GemmProblem& p, const kw_device_info& d, int64_t most, const GemmChoice& c) {
  const std::string what = text(on, p, c);
  expect(listed(c.config) != nullptr, what + ": is of the list that is emulated");
  if (!c.config) return;
  expect((c.config->access & bit(p.access)) && c.config->element == p.element, what + ": is compiled for the operands");
  expect(c.config->smem() <= static_cast<int64_t>(d.smem_bytes), what + ": fits in shared memory");
  expect(
      c.blocks_per_sm >= 1 && c.blocks_per_sm * (c.config->smem() + 1024) <= static_cast<int64_t>(d.smem_bytes) + 1024,
      what + ": that many blocks fit a multiprocessor");
  expect(c.splits >= 1 && c.splits <= kMostSplits, what + ": parts within bounds");
  expect(c.partial_bytes <= std::min(most, kMostPartialBytes), what + ": workspace within bounds");
  expect(c.splits == 1 || !p.invariant, what + ": batch_invariant has one part");
  if (const Sm90Configuration* sm90 = c.config->sm90) {
    expect(p.sm90 && !p.invariant, what + ": kernels for 9.0 only where they may run");
    expect(sm90_declines(*sm90, c.splits, p.k, p.gated).empty() && c.partial_bytes == 0,
           what + ": it can compute this");
  } else if (c.splits > 1) {
    expect(c.split_depth % 64 == 0 && c.split_depth >= kLeastDepth, what + ": parts are whole tiles and worth a block");
    expect(int64_t{c.split_depth} * (c.splits - 1) < p.k && int64_t{c.split_depth} * c.splits >= p.k,
           what + ": every part has some of k, and together they have all");
    expect(c.partial_bytes == p.batch * p.m * c.partial_pitch * 4 * c.splits, what + ": workspace holds every part");
  }
  expect(c.tiles_m * c.config->m >= p.m && c.tiles_n * c.config->n >= p.columns, what + ": tiles cover y");
  expect(std::isfinite(c.seconds) && c.seconds >= c.roof_seconds, what + ": predicted " + std::to_string(c.seconds) +
                                                                      " s, not below the roofline's " +
                                                                      std::to_string(c.roof_seconds));
}

void sweep() {
  const int64_t ms[] = {0, 1, 2, 8, 16, 17, 32, 33, 64, 100, 128, 256, 512, 1000, 4096, 16384};
  // Rows of w and k of models from 0.5B to 70B, their heads, and odd ones.
  const int64_t sizes[][2] = {{0, 64},       {1, 1},        {8, 4096},     {72, 0},        {129, 31},
                              {1152, 896},   {9728, 896},   {896, 4864},   {2048, 1536},   {17920, 1536},
                              {4096, 4096},  {28672, 4096}, {4096, 14336}, {128256, 4096}, {152064, 5120},
                              {55296, 5120}, {8192, 28672}, {5, 1000000}};
  std::set<std::string> seen;
  for (const Named& on : kDevices)
    for (const auto& way : kWays)
      for (const int64_t m : ms)
        for (const auto& [columns, k] : sizes)
          for (const int64_t batch : {1, 40})
            for (const int kind : {0, 1, 2, 3}) {  // as it comes, invariant, with kernels for 9.0, and gated there
              if (batch > 1 && m > 64) continue;
              const bool invariant = kind == 1, sm90 = kind > 1;
              if (sm90 && (on.info.cc_major != 9 || way.access != Access::k_k || m * columns * k == 0)) continue;
              GemmProblem p = problem(m, columns, k, batch);
              p.access = way.access, p.element = way.element, p.invariant = invariant, p.w_shared = batch == 1;
              p.sm90 = sm90, p.gated = kind == 3;
              const int64_t most = batch == 1 ? INT64_MAX : 1 << 20;
              const GemmChoice c = choose(p, on.info, most);
              holds(on.name, p, on.info, most, c);
              if (c.config) seen.insert(std::string(c.config->name) + (c.splits > 1 ? " in parts" : ""));
            }
  for (const GemmConfig& c : kConfigs) expect(seen.count(c.name), std::string("some problem takes ") + c.name);
  // Of what is made for large problems, parts of k are no use.
  for (const char* name : {"mma_16x64", "mma_64x64", "mma_any_64x64", "fma_16x64"})
    expect(seen.count(std::string(name) + " in parts"), std::string("some problem takes ") + name + " in parts");
}

void rules() {
  for (const char* name : {"A100", "L40S", "H200", "4090"}) {
    const kw_device_info& d = on(name);
    const auto choice = [&](int64_t m, int64_t n, int64_t k) { return choose(problem(m, n, k), d, INT64_MAX); };
    const GemmChoice square = choice(8192, 8192, 8192);
    expect(square.splits == 1 && square.config->m == 128 && !square.bandwidth_bound,
           text(name, problem(8192, 8192, 8192), square) + ": large squares take large tiles, whole");
    const GemmChoice decode = choice(1, 4096, 14336);
    expect(decode.config->m == 16 && decode.bandwidth_bound,
           text(name, problem(1, 4096, 14336), decode) + ": decoding takes the tile of few rows");
    if (d.smem_bytes > 100 << 10)
      expect(decode.splits > 1, text(name, problem(1, 4096, 14336), decode) + ": and much bandwidth needs parts of k");
    const GemmChoice head = choice(16, 128256, 4096);
    expect(head.seconds < head.roof_seconds / 0.72,
           text(name, problem(16, 128256, 4096), head) + ": 1 GB of weights at 72 % of bandwidth, predicted");
    // More work takes longer.
    double before = 0;
    for (const int64_t m : {16, 256, 4096, 65536}) {
      const double seconds = choice(m, 4096, 4096).seconds;
      expect(seconds > before, std::string(name) + ": predicted time grows with m");
      before = seconds;
    }
    expect(choice(16, 28672, 4096).seconds < choice(16, 28672, 8192).seconds, std::string(name) + ": and with k");
  }
  // Tile and stages follow the device's shared memory.
  const GemmProblem square = problem(4096, 4096, 4096);
  kw_device_info small = on("A100");
  small.smem_bytes = 40 << 10;
  const GemmChoice tight = choose(square, small, INT64_MAX);
  holds("40 KB", square, small, INT64_MAX, tight);
  small.smem_bytes = 8 << 10;
  expect(choose(square, small, INT64_MAX).config == nullptr, "8 KB of shared memory fit nothing");
  expect(resident_blocks(kConfigs[1], 163 << 10) == 2 && resident_blocks(kConfigs[1], 99 << 10) == 1 &&
             resident_blocks(kConfigs[2], 99 << 10) == 2,
         "two deep rings need 163 KB, two shallow ones 99");
  // A wish is met or nothing is returned.
  for (const GemmConfig& c : kConfigs) {
    GemmProblem p = problem(100, 200, 300);
    p.element = c.element, p.access = c.access & bit(Access::k_k) ? Access::k_k : Access::any;
    p.sm90 = c.sm90;
    for (const int splits : {1, 2, c.sm90 ? 4 : 3}) {
      if (c.sm90 && splits > std::max(1, c.sm90->most_splits)) continue;
      const GemmChoice wished = choose(p, on("H200"), INT64_MAX, {&c, splits});
      expect(wished.config == &c && wished.splits == splits, std::string("a wish for ") + c.name + " is met");
    }
    expect(!choose(p, on("H200"), INT64_MAX, {&c, 6}).config, "300 of k have no six parts");
  }
}

// All that may run a problem: first what is chosen, none twice, and each of them is what its name asks for.
void all_candidates() {
  const auto wanted = [](const std::vector<std::string>& names, const char* part) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return name.find(part) != std::string::npos; });
  };
  for (const char* name : {"A100", "L40S", "H200", "emulated sm_89"}) {
    const kw_device_info& d = on(name);
    for (const int64_t m : {1, 16, 300, 4096}) {
      GemmProblem p = problem(m, 4096, 4096);
      for (const bool invariant : {false, true})
        for (const bool sm90 : {false, true}) {
          p.invariant = invariant, p.sm90 = sm90;
          const auto names = candidates(p, d, INT64_MAX);
          const GemmChoice chosen = choose(p, d, INT64_MAX);
          const std::string what = text(name, p, chosen);
          expect(
              static_cast<int>(names.size()) == chosen.candidates && names[0] == name_of(*chosen.config, chosen.splits),
              what + ": the choice is the first of all it compared, not " + names[0]);
          expect(std::set<std::string>(names.begin(), names.end()).size() == names.size(),
                 what + ": none is named twice");
          expect(!invariant || !wanted(names, "/"), what + ": batch_invariant has k in one part");
          expect(wanted(names, "sm90") == (sm90 && !invariant), what + ": kernels for 9.0 with leave alone");
          for (const std::string& each : names) {
            GemmWish wish = wish_of(each, p.configs);
            if (wish.splits == 0) wish.splits = 1;
            const GemmChoice again = choose(p, d, INT64_MAX, wish);
            holds(name, p, d, INT64_MAX, again);
            expect(again.config && name_of(*again.config, again.splits) == each, what + ": its name asks for " + each);
          }
        }
    }
  }
  for (const char* wrong : {"", "mma", "mma_64x64/0", "mma_64x64/33", "mma_64x64/x", "sm90_64x128 "})
    expect(!wish_of(wrong, {}).config, std::string("no configuration is called '") + wrong + "'");
}

}  // namespace

int main() {
  sweep();
  rules();
  all_candidates();
  return closing_line();
}
