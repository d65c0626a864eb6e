// What gemm_int4's CUDA chooser can return, over shapes of served models and odd ones, and devices: always a configuration of
// kInt4Configs that fits the device, each of them somewhere; parts of k within their bounds; and the rules of thumb that a wrong
// sign would break. gemm_int4_emu_test.cc and gemm_int4_sm90_emu_test.cc run every entry of kInt4Configs.
#include "../../kernels/gemm_int4/gemm_int4_choose.h"

#include <set>
#include <string>

#include "gpus.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::gemm_cuda;
using namespace kw::test;
using gemm_int4_cuda::kInt4Choices;
using gemm_int4_cuda::kInt4Configs;

GemmProblem problem(int64_t m, int64_t columns, int64_t k, int64_t group = 128) {
  GemmProblem p;
  p.m = m, p.columns = columns, p.k = k;
  p.access = Access::k_k;
  p.w_shared = true;
  p.epilogue_bytes = 2 * m * columns;
  p.configs = kInt4Choices;
  p.w_element = gemm_int4_cuda::weight_bytes(group, 2, false);
  return p;
}

std::string text(const char* on, const GemmProblem& p, const GemmChoice& c) {
  return std::string(on) + ", " + std::to_string(p.m) + " x " + std::to_string(p.columns) + " x " +
         std::to_string(p.k) + ": " + (c.config ? c.config->name : "nothing") + "/" + std::to_string(c.splits);
}

void sweep() {
  const int64_t ms[] = {0, 1, 2, 8, 16, 17, 32, 33, 64, 65, 128, 129, 512, 4096, 16384};
  const int64_t sizes[][2] = {{1, 32},        {8, 4096},     {72, 64},     {1152, 896},   {896, 4864},
                              {17920, 1536},  {4096, 4096},  {8192, 8192}, {28672, 8192}, {4096, 14336},
                              {128256, 4096}, {8192, 28672}, {1024, 1024}, {5, 1048576}};
  std::set<std::string> seen;
  for (const Named& on : kDevices)
    for (const int64_t m : ms)
      for (const auto& [columns, k] : sizes)
        for (const int64_t group : {int64_t{32}, k})
          for (int kind = 0; kind < 3; ++kind) {
            const bool invariant = kind == 1, sm90 = kind == 2;
            if (sm90 && (on.info.cc_major != 9 || m == 0)) continue;
            GemmProblem p = problem(m, columns, k, group);
            p.invariant = invariant, p.sm90 = sm90;
            const GemmChoice c = choose(p, on.info, INT64_MAX);
            const std::string what = text(on.name, p, c);
            expect(c.config >= kInt4Choices.begin() && c.config < kInt4Choices.end(), what + ": is of the list");
            expect(c.config->smem() <= static_cast<int64_t>(on.info.smem_bytes) && c.blocks_per_sm >= 1,
                   what + ": fits in shared memory");
            expect(!invariant || c.splits == 1, what + ": batch_invariant has one part");
            if (c.config->sm90)
              expect(sm90 && !c.config->sm90->registers && c.partial_bytes == 0 &&
                         sm90_declines(*c.config->sm90, c.splits, k, false).empty(),
                     what + ": kernels for 9.0 where they may run, by name alone those with registers");
            else if (c.splits > 1)
              expect(c.split_depth % 64 == 0 && int64_t{c.split_depth} * (c.splits - 1) < k &&
                         int64_t{c.split_depth} * c.splits >= k &&
                         c.partial_bytes == m * c.partial_pitch * 4 * c.splits && c.partial_bytes <= kMostPartialBytes,
                     what + ": every part has some of k, together they have all, and workspace holds them");
            expect(c.tiles_m * c.config->m >= m && c.tiles_n * c.config->n >= columns, what + ": tiles cover y");
            expect(std::isfinite(c.seconds) && c.seconds >= c.roof_seconds, what + ": not below the roofline");
            if (m > 0) seen.insert(std::string(c.config->name) + (c.splits > 1 ? " in parts" : ""));
          }
  for (const GemmConfig& c : kInt4Configs)
    for (const char* how : {"", " in parts"})
      expect(
          (c.sm90 && (c.sm90->registers || c.sm90->streams() == (*how != 0))) || seen.count(std::string(c.name) + how),
          std::string("some problem takes ") + c.name + how);
}

void rules() {
  for (const char* name : {"A100", "L40S", "H200", "4090"}) {
    const kw_device_info& d = on(name);
    const auto choice = [&](int64_t m, int64_t n, int64_t k) { return choose(problem(m, n, k), d, INT64_MAX); };
    GemmProblem dense = problem(16, 8192, 8192);
    dense.configs = {}, dense.w_element = 0;
    const GemmChoice few = choice(16, 8192, 8192), whole = choose(dense, d, INT64_MAX);
    expect(few.config->m == 16 && choice(1, 8192, 8192).config->m == 8 && few.bandwidth_bound &&
               few.seconds < 0.7 * whole.seconds,
           text(name, problem(16, 8192, 8192), few) + ": few rows gain from a quarter of the bytes");
    expect(few.roof_seconds < 0.3 * whole.roof_seconds, std::string(name) + ": their bytes are counted");
    const GemmChoice many = choice(4096, 8192, 8192);
    expect(many.config->m == 128 && many.splits == 1 && !many.bandwidth_bound,
           text(name, problem(4096, 8192, 8192), many) + ": many rows take the largest tile, whole");
    expect(choice(40, 8192, 8192).config->m <= 64, std::string(name) + ": 40 rows waste no tile of 128");
    double before = 0;
    for (const int64_t m : {16, 256, 4096, 65536}) {
      const double seconds = choice(m, 4096, 4096).seconds;
      expect(seconds > before, std::string(name) + ": predicted time grows with m");
      before = seconds;
    }
  }
  kw_device_info small = on("A100");
  small.smem_bytes = 48 << 10;
  expect(choose(problem(1, 64, 64), small, INT64_MAX).config == nullptr, "48 KB of shared memory fit nothing");
  for (const GemmConfig& c : kInt4Configs) {
    if (c.sm90) {
      GemmProblem p = problem(100, 200, 384);
      p.sm90 = true;
      const int splits = c.sm90->streams() ? 1 : 4;
      const GemmChoice wished = choose(p, on("H200"), INT64_MAX, {&c, splits});
      expect(wished.config == &c && wished.splits == splits, std::string("a wish for ") + c.name + " is met");
      continue;
    }
    expect(resident_blocks(c, 99 << 10) >= 1, std::string(c.name) + " fits 99 KB");
    const GemmChoice wished = choose(problem(100, 200, 384), on("H200"), INT64_MAX, {&c, 3});
    expect(wished.config == &c && wished.splits == 3, std::string("a wish for ") + c.name + " is met");
  }
}

}  // namespace

int main() {
  sweep();
  rules();
  return closing_line();
}
