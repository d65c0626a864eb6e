// The tests of the emulator and of ptx.cuh.
//
//   simt_test [FILTER] [--faults] [--soak N] [--record FILE | --golden FILE]
//
// Without a mode: every test whose name contains FILTER. --faults: the deliberate-fault list. --soak N: correct kernels
// under N seeds of every schedule. --record writes what the kernels computed, --golden compares with such a file. Built by
// nvcc it runs the conformance tests on a GPU. Last line: "N passed, N failed"; exits 1 on a failure, 77 without a GPU.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "harness.h"
#if defined(KW_EMU)
#include "faults.h"
#else
#include <cuda_runtime_api.h>
#endif
#ifndef KW_SIMT_RACE
#define KW_SIMT_RACE 0
#endif

namespace kw::test {

Golden& golden() {
  static Golden g;
  return g;
}

void Golden::compare_with(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  for (std::string line; std::getline(file, line);) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos) throw std::runtime_error(path + ": a line without a tab");
    auto& bytes = values_[line.substr(0, tab)];
    for (size_t i = tab + 1; i + 1 < line.size(); i += 2)
      bytes.push_back(static_cast<unsigned char>(std::stoi(line.substr(i, 2), nullptr, 16)));
  }
  comparing_ = true;
}

void Golden::save() const {
  if (out_path_.empty()) return;
  std::ofstream file(out_path_);
  for (const auto& [name, bytes] : values_) {
    file << name << '\t';
    for (const unsigned char b : bytes) {
      char hex[3];
      std::snprintf(hex, sizeof hex, "%02x", b);
      file << hex;
    }
    file << '\n';
  }
  file.close();
  if (!file) throw std::runtime_error(out_path_ + ": cannot be written");
}

namespace {

#if !defined(KW_EMU)
struct Counts {
  int passed = 0, failed = 0;
};
#endif

// cc: of the device; the emulator has profiles for all.
Counts run_tests(const std::string& filter, int cc) {
  Counts counts;
  for (const Test& test : all_tests()) {
    if (std::string(test.name).find(filter) == std::string::npos) continue;
    if (test.cc == 90 ? cc != 90 : cc < test.cc) {
      std::printf("  skipped %s: needs sm_%d%s, the device is sm_%d\n", test.name, test.cc, test.cc == 90 ? "a" : "",
                  cc);
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    std::string failure;
    try {
      test.run();
    } catch (const std::exception& e) {
      failure = e.what();
    }
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    std::printf("  %-6s %-50s %8.1f ms%s%s\n", failure.empty() ? "ok" : "FAILED", test.name, ms,
                failure.empty() ? "" : "\n         ", failure.c_str());
    ++(failure.empty() ? counts.passed : counts.failed);
  }
  return counts;
}

int usage(const char* what) {
  std::fprintf(
      stderr, "simt_test: %s; usage: simt_test [FILTER] [--faults] [--soak N] [--record FILE | --golden FILE]\n", what);
  return 2;
}

int run(int argc, char** argv) {
  std::string filter;
  bool faults = false;
  int soak = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const bool takes_value = arg == "--soak" || arg == "--record" || arg == "--golden";
    if (takes_value && i + 1 == argc) return usage((arg + " needs a value").c_str());
    if (arg == "--faults")
      faults = true;
    else if (arg == "--soak")
      soak = std::atoi(argv[++i]);
    else if (arg == "--record")
      golden().record_to(argv[++i]);
    else if (arg == "--golden")
      golden().compare_with(argv[++i]);
    else if (arg[0] == '-')
      return usage(("unknown option " + arg).c_str());
    else
      filter = arg;
  }
  Counts counts;
#if defined(KW_EMU)
  if (faults)
    counts = run_faults(KW_SIMT_RACE);
  else if (soak > 0)
    counts = run_soak(KW_SIMT_RACE, soak);
  else
    counts = run_tests(filter, 90);
#else
  if (faults || soak) return usage("--faults and --soak are the emulator's");
  int devices = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&devices); status != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(status));
    return 77;
  }
  cudaDeviceProp device;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) throw std::runtime_error("device 0 does not answer");
  std::printf("  %s, sm_%d%d\n", device.name, device.major, device.minor);
  counts = run_tests(filter, 10 * device.major + device.minor);
#endif
  golden().save();
  if (golden().comparing()) std::printf("  %zu results compared with the golden file\n", golden().compared());
  if (counts.passed + counts.failed == 0) return usage("no test of that name");
  std::printf("%d passed, %d failed\n", counts.passed, counts.failed);
  return counts.failed ? 1 : 0;
}

}  // namespace
}  // namespace kw::test

int main(int argc, char** argv) {
  try {
    return kw::test::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "simt_test: %s\n", e.what());
    return 2;
  }
}
