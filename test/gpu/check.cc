// Is a library of kernels right? Runs every case of test/gpu/cases.jsonl on one device of a library with the C interface of
// kernels/core/abi.h, libkernwatt_cuda.so on a GPU or libkernwatt_emu.so anywhere, and compares with the definition in double
// precision. Needs neither Node nor a CUDA toolkit. kUsage below says how to call it.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "../../kernels/attention_gqa/attention_gqa_configuration.h"
#include "../../kernels/core/host/table.h"
#include "../../kernels/gemm_int4/gemm_int4_choose.h"
#include "cases.h"
#include "json.h"
#include "runner.h"

namespace kw::check {
namespace {

constexpr char kUsage[] =
    R"(Checks every case of every operator on a library of kernels against the definition in double precision.

  kernwatt_check LIBRARY CASES [options]

  LIBRARY          libkernwatt_cuda.so or libkernwatt_emu.so
  CASES            test/gpu/cases.jsonl
  --op NAME        only cases of this operator
  --case TEXT      only cases whose name contains this
  --each           every case of an operator with configurations once for each of them, asked for by name, and no other
                   cases; the results say "configuration", and a line for each counts
  --small          only cases of at most 200000 floating-point operations and 40000 elements, for slow ways of running
  --device N       device of the library, counted from 0 (default 0)
  --out FILE       one line of JSON for each case as soon as it is known:
                   { op, case, configuration?, state: passed | failed | declined, reasons, exact, kernels, seconds }
  --seconds S      begin no case after S seconds, and say how many were not run

Prints failures and why cases were declined; the last line counts. Exit status: 0 no failure, 1 failures or a device lost,
2 bad input, 77 no device.
)";

constexpr double kSmallFlops = 200000;
constexpr int64_t kSmallElements = 40000;

struct BadInput : Error {
  explicit BadInput(const std::string& message) : Error(Code::ARGUMENT, message) {}
};

struct Options {
  std::string library, cases, op, name, out;
  bool small = false, each = false;
  int device = 0;
  std::optional<double> seconds;
};

double number_of(const std::string& option, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= 0 && value <= 1e9)) {
    throw BadInput(option + " is " + text + ", expected a number from 0");
  }
  return value;
}

Options read_options(int argc, char** argv) {
  Options options;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == argc) throw BadInput(option + " has no value, expected one; see --help");
      return argv[++i];
    };
    if (option == "--small") {
      options.small = true;
    } else if (option == "--each") {
      options.each = true;
    } else if (option == "--op") {
      options.op = value();
    } else if (option == "--case") {
      options.name = value();
    } else if (option == "--out") {
      options.out = value();
    } else if (option == "--seconds") {
      options.seconds = number_of(option, value());
    } else if (option == "--device") {
      const double device = number_of(option, value());
      options.device = static_cast<int>(device);
      if (options.device != device) throw BadInput("--device is " + shortest(device) + ", expected a whole number");
    } else if (option.starts_with("-")) {
      throw BadInput("unknown option " + option + "; see --help");
    } else {
      files.push_back(option);
    }
  }
  if (files.size() != 2) {
    throw BadInput(std::to_string(files.size()) + " files given, expected a library and a file of cases; see --help");
  }
  options.library = files[0], options.cases = files[1];
  return options;
}

// Operators whose configurations have names, and what asks for one of them: where it does not take a problem, it is declined.
struct Named {
  const char *op, *variable;
  std::vector<const char*> names;
};

template <class Configurations>
std::vector<const char*> names_of(const Configurations& configurations) {
  std::vector<const char*> names;
  for (const auto& configuration : configurations) names.push_back(configuration.name);
  return names;
}

const Named* named(const std::string& op) {
  static const Named kNamed[] = {{"gemm", "KERNWATT_GEMM", names_of(gemm_cuda::kConfigs)},
                                 {"gemm_int4", "KERNWATT_GEMM_INT4", names_of(gemm_int4_cuda::kInt4Configs)},
                                 {"attention_gqa", "KERNWATT_ATTENTION_GQA", attention_gqa_cuda::kernel_names()}};
  for (const Named& n : kNamed)
    if (op == n.op) return &n;
  return nullptr;
}

// The case that runs, for a signal that ends the program.
char current[512] = "";

extern "C" void on_signal(int signal) {
  const ssize_t written = write(STDERR_FILENO, current, strnlen(current, sizeof(current)));
  static_cast<void>(written);
  std::signal(signal, SIG_DFL);
  raise(signal);
}

void name_the_case_on_signals() {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT}) std::signal(signal, on_signal);
}

// Lines that are on disk, or at least with the system, when write returns.
class Results {
 public:
  explicit Results(const std::string& path) : path_(path) {
    if (path.empty()) return;
    file_ = std::fopen(path.c_str(), "w");
    if (file_ == nullptr) fail();
  }
  ~Results() {
    if (file_ != nullptr) std::fclose(file_);
  }
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;

  // configuration: that was asked for, or null.
  void write(const Case& c, const char* configuration, const Outcome& outcome, double seconds) {
    if (file_ == nullptr) return;
    const std::string as = configuration ? ",\"configuration\":" + quoted(configuration) : "";
    const std::string line = "{\"op\":" + quoted(c.op) + ",\"case\":" + quoted(c.name) + as + ",\"state\":\"" +
                             kStates[outcome.state] + "\",\"reasons\":" + list(outcome.reasons) +
                             ",\"exact\":" + (c.exact.empty() ? "false" : "true") +
                             ",\"kernels\":" + list(outcome.kernels) + ",\"seconds\":" + shortest(seconds) + "}\n";
    if (std::fputs(line.c_str(), file_) < 0 || std::fflush(file_) != 0) fail();
  }

 private:
  [[noreturn]] void fail() const { throw BadInput(path_ + " cannot be written: " + std::strerror(errno)); }
  static std::string list(const std::vector<std::string>& texts) {
    std::string out = "[";
    for (const std::string& text : texts) out += (out.size() > 1 ? "," : "") + quoted(text);
    return out + "]";
  }

  const std::string path_;
  std::FILE* file_ = nullptr;
};

std::vector<Case> select(std::vector<Case> cases, const Options& options) {
  std::erase_if(cases, [&](const Case& c) {
    return (!options.op.empty() && c.op != options.op) || c.name.find(options.name) == std::string::npos ||
           (options.each && !named(c.op)) ||
           (options.small && (c.flops > kSmallFlops || c.elements() > kSmallElements));
  });
  if (cases.empty()) throw BadInput(options.cases + ": no case is what the options ask for");
  return cases;
}

int32_t count_devices(const kw_table& table) {
  int32_t devices = 0;
  if (table.device_count(&devices) != 0) throw Error(Code::UNSUPPORTED, table.last_error());
  if (devices > 0) return devices;
  const std::string reason = table.last_error();
  throw Error(Code::UNSUPPORTED, reason.empty() ? "no device found" : reason);
}

// Counts outcomes, and says what each was that is not a pass.
class Tally {
 public:
  void add(const Case& c, const char* configuration, const Outcome& outcome) {
    for (Counts* counts : {&all_, configuration ? &by_name_[c.op + " as " + configuration] : nullptr})
      if (counts) ++counts->of[outcome.state];
    const std::string which = name_of(c, configuration);
    if (outcome.state == Outcome::declined && !configuration) ++declined_[outcome.reasons.at(0)];
    if (outcome.state == Outcome::failed) {
      for (const std::string& reason : outcome.reasons) std::printf("failed: %s: %s\n", which.c_str(), reason.c_str());
    }
    if (outcome.lost) std::printf("stopped: the device does nothing any more since %s\n", which.c_str());
    std::fflush(stdout);
  }
  static std::string name_of(const Case& c, const char* configuration) {
    return c.op + " " + quoted(c.name) + (configuration ? std::string(" as ") + configuration : "");
  }
  // The last line counts; those before say of what kind. Returns the exit status.
  int print(size_t not_run) const {
    for (const auto& [reason, count] : declined_) std::printf("declined: %s (%zu)\n", reason.c_str(), count);
    for (const auto& [name, counts] : by_name_) std::printf("%s: %s\n", name.c_str(), counts.text().c_str());
    std::printf("%s", all_.text().c_str());
    if (not_run > 0) std::printf(", %zu not run", not_run);
    std::printf("\n");
    return all_.of[Outcome::failed] > 0 ? 1 : 0;
  }

 private:
  struct Counts {
    size_t of[std::size(kStates)] = {};
    std::string text() const {
      return std::to_string(of[Outcome::passed]) + " passed, " + std::to_string(of[Outcome::failed]) + " failed, " +
             std::to_string(of[Outcome::declined]) + " declined";
    }
  };
  Counts all_;
  std::map<std::string, Counts> by_name_;
  std::map<std::string, size_t> declined_;
};

int run_all(const std::vector<Case>& cases, const Options& options, Runner& runner) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  struct Run {
    size_t nth;  // case of its operator
    const Case* of;
    const Named* named;
    const char* configuration;
  };
  std::vector<Run> runs;
  std::map<std::string, size_t> seen;
  for (const Case& c : cases) {
    const size_t nth = seen[c.op]++;
    if (!options.each) {
      runs.push_back({nth, &c, nullptr, nullptr});
      continue;
    }
    const Named* op = named(c.op);
    for (const char* name : op->names) runs.push_back({nth, &c, op, name});
  }
  // When time is up, every configuration of every operator has had as many cases.
  if (options.each)
    std::stable_sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.nth < b.nth; });
  Results results(options.out);
  Tally tally;
  const Clock::time_point begin = Clock::now();
  size_t done = 0;
  bool lost = false;
  for (const auto& [nth, c, op, configuration] : runs) {
    if (lost || (options.seconds && seconds_since(begin) >= *options.seconds)) break;
    std::snprintf(current, sizeof(current), "kernwatt_check: ended while running %s\n",
                  Tally::name_of(*c, configuration).c_str());
    if (op) setenv(op->variable, configuration, 1);
    const Clock::time_point started = Clock::now();
    const Outcome outcome = runner.run(*c);
    results.write(*c, configuration, outcome, seconds_since(started));
    if (op) unsetenv(op->variable);
    tally.add(*c, configuration, outcome);
    lost = outcome.lost;
    ++done;
  }
  current[0] = '\0';
  return tally.print(runs.size() - done);
}

int run(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--help") == 0) return std::fputs(kUsage, stdout), 0;
  }
  const Options options = read_options(argc, argv);
  const std::vector<Case> cases = select(read_cases(options.cases), options);
  const kw_table& table = open_table(options.library);
  const auto no_device = [](const Error& error) {
    std::fprintf(stderr, "kernwatt_check: no device: %s\n", error.what());
    return 77;
  };
  std::optional<Runner> runner;
  try {
    const int32_t devices = count_devices(table);
    if (options.device >= devices) {
      throw BadInput("--device is " + std::to_string(options.device) + ", expected 0 to " +
                     std::to_string(devices - 1));
    }
    runner.emplace(table, options.device);
  } catch (const BadInput&) {
    throw;
  } catch (const Error& error) {
    return no_device(error);
  }
  std::printf("%s on %s, %zu cases\n", table.build, runner->info().name, cases.size());
  return run_all(cases, options, *runner);
}

}  // namespace
}  // namespace kw::check

int main(int argc, char** argv) {
  kw::check::name_the_case_on_signals();
  try {
    return kw::check::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kernwatt_check: %s\n", error.what());
    return 2;
  }
}
