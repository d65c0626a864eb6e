// main() of the tests of a kernel library: arguments, every device over its schedules, counting and the closing line.
//
//   NAME_emu_test LIBRARY.so [--full] [--device N]... [--turn N]...
//
// --full, or KERNWATT_FULL=1, takes every case instead of a sample. A turn is one schedule of one device; the line printed after
// each says how long it took and what it found, and --turn N takes those of that number alone, so that a long run can go on where
// it was cut off. Last line: "N passed, N failed"; exit 1 on a failure, 2 on wrong arguments, 77 without a device for it.
#pragma once
#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>

#include "../../kernels/core/cuda/sm90.h"
#include "harness.h"

namespace kw::test {

// A device's cases are dealt out over its turns, or over those of all devices.
struct Turn {
  size_t share, shares;  // of this device
  size_t of_all, all;
};

struct Program {
  std::function<void(const Device&, const Turn&)> turn;
  // What must have been seen by then; every_device: none was asked for by its number. Not called with --turn.
  std::function<void(bool every_device)> closing = [](bool) {};
  std::function<bool(const kw_device_info&)> takes = [](const kw_device_info&) { return true; };
};

// Of kernels for compute capability 9.0, those among them that no GPU has proved.
inline Program sm90_program() {
  setenv("KERNWATT_UNPROVED", "1", 1);
  Program program;
  program.takes = is_sm90;
  return program;
}

struct ProgramOptions {
  const char* library = nullptr;
  std::vector<int> devices;
  std::vector<size_t> turns;
};

// Empty when they make no sense; sets `full`.
inline std::optional<ProgramOptions> program_options(int argc, char** argv) {
  ProgramOptions options;
  full = std::getenv("KERNWATT_FULL") != nullptr;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const bool numbered = arg == "--device" || arg == "--turn";
    if (arg == "--full") {
      full = true;
    } else if (numbered && i + 1 < argc) {
      char* end = nullptr;
      const long number = std::strtol(argv[++i], &end, 10);
      if (*end || number < 0) return std::nullopt;
      if (arg == "--device") options.devices.push_back(static_cast<int>(number));
      if (arg == "--turn") options.turns.push_back(static_cast<size_t>(number));
    } else if (arg[0] == '-' || options.library) {
      return std::nullopt;
    } else {
      options.library = argv[i];
    }
  }
  return options.library ? std::optional(options) : std::nullopt;
}

inline void take_turn(const Program& program, Device d, const Turn& turn, const char* schedule) {
  const auto started = std::chrono::steady_clock::now();
  const int before = failed;
  setenv("KERNWATT_EMU", schedule, 1);  // read by the stream's thread when it starts
  d.open();
  const uint64_t free = d.free_bytes();
  program.turn(d, turn);
  if (d.info.emulated) expect(d.free_bytes() == free, "every allocation was freed");
  d.close();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  std::printf("%s, turn %zu, %s: %.1f s, %s\n", d.info.name, turn.share, d.info.emulated ? schedule : "hardware",
              seconds, failed == before ? "ok" : "FAILED");
}

inline int run_program(int argc, char** argv, const Program& program) {
  auto options = program_options(argc, argv);
  if (!options) {
    std::fprintf(stderr, "usage: %s LIBRARY.so [--full] [--device N]... [--turn N]...\n", argv[0]);
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a run that is cut off has said how far it came
  const bool every_device = options->devices.empty();
  const kw_table* table = open_library(options->library, options->devices);
  race = std::strstr(table->build, "race build") != nullptr;
  try {
    std::vector<Device> devices;
    size_t all = 0, of_all = 0;
    for (const int index : options->devices) {
      Device d{table, index};
      d.must(table->device_info(index, &d.info), "device_info");
      if (!program.takes(d.info)) continue;
      devices.push_back(d);
      all += schedules_of(d.info).size();
    }
    if (devices.empty()) return std::printf("no device of a kind that these kernels run on\n"), 77;
    size_t taken = 0;
    for (const Device& d : devices) {
      const auto schedules = schedules_of(d.info);
      for (size_t share = 0; share < schedules.size(); ++share, ++of_all) {
        const auto& turns = options->turns;
        if (!turns.empty() && std::find(turns.begin(), turns.end(), share) == turns.end()) continue;
        ++taken;
        take_turn(program, d, {share, schedules.size(), of_all, all}, schedules[share]);
      }
    }
    if (taken == 0) return std::fprintf(stderr, "no device has a turn of that number\n"), 2;
    if (options->turns.empty()) program.closing(every_device && all > 1);
    for (const auto& [what, times] : seen) std::printf("%s: %d  ", what.c_str(), times);
    if (!seen.empty()) std::printf("\n");
  } catch (const std::exception& error) {
    expect(false, error.what());
  }
  return closing_line();
}

}  // namespace kw::test
