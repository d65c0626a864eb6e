// Which configuration a plan of gemm or of gemm_int4 takes: the one that was asked for by name or in the environment, else what the
// cost model of gemm_choose.h expects to be fastest; and why, in words. Host code without CUDA.
#pragma once
#include <sstream>

#include "../core/error.h"
#include "gemm_choose.h"

namespace kw::gemm_cuda {

// What was asked for, and by which name a message calls that; empty: nothing was.
struct Asked {
  GemmWish wish;
  std::string by, text;
};

// An operator of which a GemmProblem is a part, as messages name it.
struct Chooser {
  const char* where;
  const char* variable;  // of the environment: NAME or NAME/PARTS, for experiments, allows one configuration alone
  const char* file;      // lists the configurations
  const char* smem;      // of a block, the least that any of them takes
  GemmConfigs configs;

  std::string expected(const std::string& what, const std::string& received, const std::string& wanted) const {
    return std::string(where) + ": " + what + " is " + received + ", expected " + wanted;
  }

  Asked asked(const char* by, const std::string& text) const {
    Asked all{wish_of(text, configs), by, text};
    if (!all.wish.config)
      throw Error(Code::UNSUPPORTED, expected(by, text,
                                              std::string("a configuration of ") + file + " and at most " +
                                                  std::to_string(kMostSplits) + " parts, NAME or NAME/PARTS"));
    return all;
  }
  Asked asked_by_environment() const {
    const char* given = std::getenv(variable);
    return given && *given ? asked(variable, given) : Asked{};
  }

  // Empty, or why nothing runs the problem.
  std::string choose_or_say(const GemmProblem& problem, const kw_device_info& device, int64_t most_bytes,
                            const Asked& asked, GemmChoice& choice) const {
    choice = choose(problem, device, most_bytes, asked.wish);
    if (!choice.config && asked.wish.config)
      return expected(asked.by, asked.text, "a configuration that takes this problem");
    if (!choice.config)
      return expected("shared memory per block", std::to_string(device.smem_bytes) + " bytes",
                      std::string("at least ") + smem);
    const int64_t tiles = choice.tiles_m * choice.tiles_n;
    if (tiles >= int64_t{1} << 31) return expected("the number of tiles of y", std::to_string(tiles), "below 2^31");
    return "";
  }
  std::string declines(const GemmProblem& problem, const kw_device_info& device) const {
    GemmChoice choice;
    return choose_or_say(problem, device, INT64_MAX, asked_by_environment(), choice);
  }

  std::vector<std::string> configurations(const GemmProblem& problem, const kw_device_info& device) const {
    return candidates(problem, device, INT64_MAX, asked_by_environment().wish);
  }
};

// The choice of one plan. A configuration asked for by name holds for the problem that the plan was created for; bound to another
// one later it chooses again.
class GemmDecision {
 public:
  // configuration: one of configurations(), or empty.
  GemmDecision(const Chooser& chooser, const kw_device_info& device, const GemmProblem& created_for,
               const std::string& configuration)
      : chooser_(chooser), device_(device), created_for_(created_for) {
    if (configuration.empty()) return;
    asked_ = chooser.asked("configuration", configuration);
    asked_.wish.splits = std::max(asked_.wish.splits, 1);  // configurations() names them whole
  }

  // Throws UNSUPPORTED where nothing runs the problem within most_bytes of workspace.
  void decide(const GemmProblem& problem, int64_t most_bytes) {
    if (choice_.config && problem == chosen_for_) return;
    const Asked asked = asked_for(problem);
    GemmChoice choice;
    const std::string wrong = chooser_.choose_or_say(problem, device_, most_bytes, asked, choice);
    if (!wrong.empty()) throw Error(Code::UNSUPPORTED, wrong);
    choice_ = choice;
    chosen_for_ = problem;
    asked_by_ = asked.by;
  }

  const GemmChoice& choice() const { return choice_; }

  // Of workspace for parts of k: what was chosen takes, and what fewer rows would, which the plan of a server may be bound to later.
  int64_t partial_bytes() const {
    int64_t bytes = choice_.partial_bytes;
    for (const int64_t m : {1, 16, 64}) {
      GemmProblem fewer = chosen_for_;
      if (m >= fewer.m) break;
      fewer.epilogue_bytes = fewer.epilogue_bytes / fewer.m * m;
      fewer.m = m;
      GemmChoice choice;
      if (chooser_.choose_or_say(fewer, device_, INT64_MAX, asked_for(fewer), choice).empty())
        bytes = std::max(bytes, choice.partial_bytes);
    }
    return bytes;
  }

  // sm90_reason: why no kernel for compute capability 9.0 can run, or empty.
  std::string reason(const std::string& sm90_reason) const {
    std::ostringstream text;
    text.precision(2);
    if (chosen_for_.invariant) text << "; batch_invariant: k in one part";
    if (!asked_by_.empty() && choice_.candidates == 1) {
      text << "; " << asked_by_ << " asks for it";
    } else {
      text << "; the least predicted time of " << choice_.candidates;
      if (!asked_by_.empty()) text << " that " << asked_by_ << " allows";
    }
    if (choice_.second && choice_.seconds > 0) {
      text << ", before " << choice_.second->name;
      if (choice_.second_splits > 1) text << " in " << choice_.second_splits << " parts of k";
      text << " by " << 100 * (choice_.second_seconds / choice_.seconds - 1) << " %";
    }
    if (!sm90_reason.empty() && device_.cc_major == 9) text << "; no kernel for 9.0: " << sm90_reason;
    return text.str();
  }

 private:
  Asked asked_for(const GemmProblem& problem) const {
    return asked_.wish.config && problem == created_for_ ? asked_ : chooser_.asked_by_environment();
  }

  const Chooser& chooser_;
  kw_device_info device_;
  GemmProblem created_for_, chosen_for_;
  Asked asked_;
  std::string asked_by_;  // what decided the choice; empty: the prediction
  GemmChoice choice_;
};

}  // namespace kw::gemm_cuda
