// The tests of the emulator and of ptx.cuh.
//
//   simt_test [FILTER] [--faults] [--soak N] [--record FILE | --golden FILE]
//
// Without a mode: every test whose name contains FILTER. --faults: the deliberate-fault list. --soak N: correct kernels
// under N seeds of every schedule. --record writes what the kernels of the conformance tests computed, --golden compares with
// such a file and runs what the device that wrote it could run. Built by nvcc it runs the conformance tests on a GPU. Last line: "N passed, N failed"; exits 1 on a failure, 77 without a GPU.
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
  std::string line;
  if (!file || !std::getline(file, line)) throw std::runtime_error(path + ": cannot be read");
  const size_t sm = line.rfind(", sm_");
  if (line.rfind("# device ", 0) != 0 || sm == std::string::npos)
    throw std::runtime_error(path + ": the first line is \"" + line + "\", expected \"# device NAME, sm_N\"");
  cc_ = std::atoi(line.c_str() + sm + 5);
  while (std::getline(file, line)) {
    const size_t kind = line.find('\t'), text = line.find('\t', kind + 1);
    if (kind == std::string::npos || text == std::string::npos)
      throw std::runtime_error(path + ": a line without two tabs");
    lines_[line.substr(0, kind)] = {line.substr(kind + 1, text - kind - 1), line.substr(text + 1)};
  }
  comparing_ = true;
}

void Golden::save(const std::string& device, int cc) const {
  std::ofstream file(out_path_);
  file << "# device " << device << ", sm_" << cc << '\n';
  for (const auto& [name, line] : lines_) file << name << '\t' << line.kind << '\t' << line.text << '\n';
  file.close();
  if (!file) throw std::runtime_error(out_path_ + ": cannot be written");
}

void Golden::require_complete() const {
  for (const auto& [name, line] : lines_) require(line.met, "the golden file holds " + name + ", which no test gave");
}

std::string Golden::hex(const void* data, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<const unsigned char*>(data)[i]);
    text += digits;
  }
  return text;
}

// 64-bit FNV-1a: against accidents, not against intent.
std::string Golden::digest(const void* data, size_t bytes) {
  if (bytes <= 32) return hex(data, bytes);
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < bytes; ++i) hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

void Golden::unhex(const std::string& text, void* data) {
  for (size_t i = 0; i + 1 < text.size(); i += 2)
    static_cast<unsigned char*>(data)[i / 2] =
        static_cast<unsigned char>(std::strtoul(text.substr(i, 2).c_str(), nullptr, 16));
}

namespace {

#if !defined(KW_EMU)
struct Counts {
  int passed = 0, failed = 0;
};
#endif

// Tests of ptx.cuh: what they compute can be recorded, and each must give something to record.
bool is_conformance(const Test& test) {
  const std::string path = test.file;
  return path.compare(path.rfind('/') + 1, 11, "conformance") == 0;
}

// cc: of the device; the emulator has profiles for all.
Counts run_tests(const std::string& filter, int cc) {
  Counts counts;
  for (const Test& test : all_tests()) {
    if (std::string(test.name).find(filter) == std::string::npos) continue;
    if ((golden().recording() || golden().comparing()) && !is_conformance(test)) continue;
    if (test.cc == 90 ? cc != 90 : cc < test.cc) {
      std::printf("  skipped %s: needs sm_%d%s, the device is sm_%d\n", test.name, test.cc, test.cc == 90 ? "a" : "",
                  cc);
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    std::string failure;
    const size_t seen = golden().seen();
    try {
      test.run();
      require(!is_conformance(test) || golden().seen() > seen, "a conformance test that passes nothing to conforms()");
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
    counts = run_tests(filter, golden().comparing() ? golden().cc() : 90);
  if (golden().recording()) golden().save("emulator", 90);
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
  const int cc = 10 * device.major + device.minor;
  counts = run_tests(filter, cc);
  if (golden().recording()) golden().save(device.name, cc);
#endif
  if (golden().comparing()) {
    if (filter.empty() && counts.failed == 0) golden().require_complete();
    std::printf("  %zu results compared with the golden file\n", golden().seen());
  }
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
