// The emulator's own test: kernels with one deliberate fault each, and fault-free controls. A fault whose column says
// that it is noticed must be noticed; a control must run in silence. Every run is a process of its own.
#include "faults.h"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "../../kernels/core/emu/emu.h"
#include "demos.h"

namespace kw::test {

int current_fault = 0;

namespace {

// What a run says. diagnosed: the emulator stopped it with a diagnosis; wrong: only the numbers tell; quiet: nothing does.
enum Verdict { quiet, wrong, diagnosed };
constexpr const char* kVerdicts[] = {"-", "wrong", "DIAGNOSED"};

struct Result {
  Verdict verdict = quiet;
  std::string message;
};

// A fault, and the least that each way of running must notice of it:
//   naive  round robin, copies take effect at once, no poison: what a simple emulator would do
//   late   copies and wgmma take effect as late as they may, shared memory poisoned: the default
//   race   the happens-before build, every plain access checked
struct Fault {
  const char* name;
  Outcome (*run)();
  int number;
  const char* what;
  Verdict naive, late, race;
};

Outcome mma() { return gemm_mma(128, 128, 128); }
Outcome mma_m_tail() { return gemm_mma(100, 128, 128); }
Outcome mma_k_tail() { return gemm_mma(128, 128, 72); }
Outcome wgmma() { return gemm_wgmma(128, 128, 512, false); }
Outcome attention() { return attention_wgmma(1, 256, false); }

constexpr Fault kFaults[] = {
    {"gemm_mma", mma, 0, "control", quiet, quiet, quiet},
    {"gemm_mma", mma_m_tail, 0, "control, M tail", quiet, quiet, quiet},
    {"gemm_mma", mma_k_tail, 0, "control, K tail", quiet, quiet, quiet},
    {"gemm_wgmma", wgmma, 0, "control", quiet, quiet, quiet},
    {"attention", attention, 0, "control", quiet, quiet, quiet},
    {"block_sum", block_sum, 0, "control", quiet, quiet, quiet},
    {"transpose", transpose, 0, "control", quiet, quiet, quiet},
    {"histogram", histogram, 0, "control", quiet, quiet, quiet},
    {"named", named_barriers, 0, "control", quiet, quiet, quiet},
    {"cluster", cluster_pair, 0, "control", quiet, quiet, quiet},

    {"gemm_mma", mma, 1, "no __syncthreads in the k loop", quiet, wrong, diagnosed},
    {"gemm_mma", mma, 2, "no cp.async wait", quiet, wrong, diagnosed},
    {"gemm_mma", mma, 3, "cp.async wait too lax by one group", quiet, wrong, diagnosed},
    {"gemm_mma", mma, 4, "ldmatrix of A without the swizzle", wrong, wrong, wrong},
    {"gemm_mma", mma, 5, "ldmatrix past the tile, inside the allocation", wrong, wrong, wrong},
    {"gemm_mma", mma, 16, "ldmatrix past the allocation", diagnosed, diagnosed, diagnosed},
    {"gemm_mma", mma_m_tail, 6, "store row not predicated (M tail)", diagnosed, diagnosed, diagnosed},
    {"gemm_mma", mma_m_tail, 7, "load row not predicated (M tail)", diagnosed, diagnosed, diagnosed},
    {"gemm_mma", mma, 8, "ldmatrix.trans forgotten", wrong, wrong, wrong},
    {"gemm_mma", mma, 9, "ldmatrix lane to row wrong", wrong, wrong, wrong},
    {"gemm_mma", mma, 10, "prefetch into the stage being read", wrong, wrong, diagnosed},
    {"gemm_mma", mma, 11, "accumulator fragment mapping wrong", wrong, wrong, wrong},
    {"gemm_mma", mma, 12, "commit_group forgotten in the loop", quiet, diagnosed, diagnosed},
    {"gemm_mma", mma_k_tail, 13, "K tail not zero-filled", diagnosed, diagnosed, diagnosed},
    {"gemm_mma", mma, 14, "accumulator not initialised", wrong, wrong, wrong},
    {"gemm_mma", mma, 15, "__syncthreads in divergent code", quiet, wrong, diagnosed},
    {"gemm_wgmma", wgmma, 1, "consumer does not wait on full", quiet, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 2, "stage released before wgmma has read it", quiet, wrong, diagnosed},
    {"gemm_wgmma", wgmma, 3, "producer does not wait on empty", diagnosed, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 4, "producer parity wrong", diagnosed, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 5, "expect_tx bytes too small", diagnosed, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 6, "TMA swizzle differs from the descriptor's", wrong, wrong, wrong},
    {"gemm_wgmma", wgmma, 7, "descriptor SBO wrong", wrong, wrong, wrong},
    {"gemm_wgmma", wgmma, 8, "descriptor K advance wrong", wrong, wrong, wrong},
    {"gemm_wgmma", wgmma, 9, "wgmma.fence missing", diagnosed, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 10, "last wgmma.wait missing", quiet, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 11, "fence.proxy.async missing before the TMA store", quiet, quiet, diagnosed},
    {"gemm_wgmma", wgmma, 12, "barrier missing before the TMA store", wrong, wrong, diagnosed},
    {"gemm_wgmma", wgmma, 13, "fence.mbarrier_init missing", diagnosed, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 14, "__syncthreads after mbarrier.init missing", quiet, quiet, diagnosed},
    {"gemm_wgmma", wgmma, 15, "empty barrier's count wrong", diagnosed, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 16, "bulk wait before exit missing", quiet, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 17, "epilogue writes shared memory without the swizzle", wrong, wrong, wrong},
    {"gemm_wgmma", wgmma, 18, "stage base not 1024-byte aligned", diagnosed, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 19, "scale_d = 1 on the first wgmma", wrong, wrong, wrong},
    {"gemm_wgmma", wgmma, 21, "setmaxnreg sum over the register file", diagnosed, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 22, "phase bit toggles at the wrong place", diagnosed, diagnosed, diagnosed},
    {"gemm_wgmma", wgmma, 23, "one thread fences the proxy for all", quiet, quiet, diagnosed},
    {"attention", attention, 5, "A registers overwritten before wgmma.wait", quiet, wrong, wrong},
    {"attention", attention, 1, "wgmma.fence missing after writing A registers", diagnosed, diagnosed, diagnosed},
    {"attention", attention, 2, "row maximum over 2 of 4 lanes", wrong, wrong, wrong},
    {"attention", attention, 3, "O not rescaled", wrong, wrong, wrong},
    {"attention", attention, 4, "V released before wgmma has read it", quiet, quiet, diagnosed},
    {"block_sum", block_sum, 1, "shfl mask names lanes that are elsewhere", diagnosed, diagnosed, diagnosed},
    {"block_sum", block_sum, 2, "no __syncthreads after the partial sums", quiet, wrong, diagnosed},
    {"transpose", transpose, 3, "no __syncwarp", wrong, wrong, diagnosed},
    {"transpose", transpose, 4, "shared index off by one", wrong, wrong, diagnosed},
    {"histogram", histogram, 5, "increment not atomic", quiet, quiet, diagnosed},
    {"named", named_barriers, 6, "named barrier 'empty' not awaited", diagnosed, diagnosed, diagnosed},
    {"named", named_barriers, 7, "named barrier's thread counts differ", diagnosed, diagnosed, diagnosed},
    {"cluster", cluster_pair, 8, "no cluster_sync after mbarrier.init", diagnosed, diagnosed, diagnosed},
    {"cluster", cluster_pair, 9, "cluster_sync reached by one thread", diagnosed, diagnosed, diagnosed},
    {"cluster", cluster_pair, 10, "block exits while its peer reads its memory", quiet, quiet, diagnosed},
};

Result run_here(Outcome (*run)(), int fault, const emu::Options& options) {
  emu::options() = options;
  current_fault = fault;
  try {
    const Outcome outcome = run();
    if (outcome.wrong)
      return {wrong, std::to_string(outcome.wrong) + " wrong elements, worst error " + std::to_string(outcome.worst)};
    return {};
  } catch (const std::exception& e) {
    return {diagnosed, e.what()};
  }
}

// In a process of its own, so that a fault may corrupt or stop it. A crash or 60 seconds count as wrong.
Result run_apart(Outcome (*run)(), int fault, const emu::Options& options) {
  int ends[2];
  if (pipe(ends)) return {wrong, "pipe failed"};
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return {wrong, "fork failed"};
  if (child == 0) {
    alarm(60);
    const Result r = run_here(run, fault, options);
    const std::string text = std::to_string(r.verdict) + r.message;
    const bool written = write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) return {wrong, "signal " + std::to_string(WTERMSIG(status))};
  if (status || text.empty()) return {wrong, "the run ended without a result"};
  return {static_cast<Verdict>(text[0] - '0'), text.substr(1)};
}

struct Column {
  const char* name;
  const char* options;
  Verdict Fault::*expected;
};

std::string first_line(const std::string& s) { return s.substr(0, s.find('\n')); }

}  // namespace

Counts run_faults(bool race_build) {
  const std::vector<Column> columns =
      race_build
          ? std::vector<Column>{{"race", "race=1", &Fault::race}}
          : std::vector<Column>{{"naive", "sched=rr,async=eager,poison=0", &Fault::naive}, {"late", "", &Fault::late}};
  Counts counts;
  int faults = 0;
  std::vector<int> noticed(columns.size()), explained(columns.size());
  for (const Fault& f : kFaults) {
    std::string line, messages;
    faults += f.number != 0;
    for (size_t c = 0; c < columns.size(); ++c) {
      const Result r = run_apart(f.run, f.number, emu::parse_options(columns[c].options));
      const Verdict expected = f.*columns[c].expected;
      const bool ok = f.number == 0 ? r.verdict == quiet : r.verdict >= expected;
      ++(ok ? counts.passed : counts.failed);
      noticed[c] += f.number != 0 && r.verdict != quiet;
      explained[c] += f.number != 0 && r.verdict == diagnosed;
      char cell[64];
      std::snprintf(cell, sizeof cell, "  %s %-9s", columns[c].name, kVerdicts[r.verdict]);
      line += cell;
      if (!ok) line += std::string(" FAILED, expected ") + kVerdicts[expected];
      if (!ok || race_build) messages += r.message.empty() ? "" : "\n      " + first_line(r.message);
    }
    std::printf("  %-11s %2d %-50s%s%s\n", f.name, f.number, f.what, line.c_str(), messages.c_str());
  }
  for (size_t c = 0; c < columns.size(); ++c)
    std::printf("  %s: %d of %d faults noticed, %d with a diagnosis\n", columns[c].name, noticed[c], faults,
                explained[c]);
  return counts;
}

Counts run_soak(bool race_build, int seeds) {
  struct Control {
    const char* name;
    Outcome (*run)();
    const char* options;
  };
  constexpr Control kControls[] = {
      {"gemm_mma", [] { return gemm_mma(128, 64, 96); }, "profile=sm_80"},
      {"gemm_mma tails", [] { return gemm_mma(100, 72, 72); }, "profile=sm_89"},
      {"gemm_wgmma", [] { return gemm_wgmma(128, 256, 320, false); }, ""},
      {"gemm_wgmma n-major", [] { return gemm_wgmma(200, 128, 256, true); }, ""},
      {"attention causal", [] { return attention_wgmma(1, 192, true); }, ""},
      {"block_sum", block_sum, ""},
      {"transpose", transpose, ""},
      {"histogram", histogram, ""},
      {"named", named_barriers, ""},
      {"last_block", last_block, "resident=0"},
      {"cluster", cluster_pair, ""},
  };
  Counts counts;
  for (const Control& control : kControls)
    for (const emu::Sched sched :
         {emu::Sched::rr, emu::Sched::ahead, emu::Sched::rev, emu::Sched::random, emu::Sched::pct})
      for (const emu::Async async : {emu::Async::eager, emu::Async::late, emu::Async::random})
        for (int seed = 1; seed <= seeds; ++seed) {
          emu::Options o = emu::parse_options(control.options);
          o.sched = sched, o.async = async, o.seed = static_cast<uint64_t>(seed), o.race = race_build;
          const Result r = run_apart(control.run, 0, o);
          ++(r.verdict == quiet ? counts.passed : counts.failed);
          if (r.verdict != quiet)
            std::printf("  %s sched %d async %d seed %d: %s\n", control.name, static_cast<int>(sched),
                        static_cast<int>(async), seed, r.message.c_str());
        }
  return counts;
}

}  // namespace kw::test
