// Reads cpuid (with the registers the operating system saves), sysfs, procfs and both versions of cgroups.
#include "features.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <thread>

#include "../error.h"

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace kw::cpu {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "2048K" -> 2097152; a plain number of bytes stays; anything else ("max", a missing file) is `otherwise`.
uint64_t parse_bytes(const std::string& text, uint64_t otherwise) {
  char* end = nullptr;
  const uint64_t value = std::strtoull(text.c_str(), &end, 10);
  if (end == text.c_str()) return otherwise;
  return *end == 'K' ? value << 10 : *end == 'M' ? value << 20 : *end == 'G' ? value << 30 : value;
}

// The value of "key: 123 kB" or "key 123" in a file of such lines.
uint64_t keyed(const std::string& path, const std::string& key, uint64_t unit, uint64_t otherwise) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string name;
    uint64_t value;
    if (fields >> name >> value && name == key) return value * unit;
  }
  return otherwise;
}

#if defined(__x86_64__)
struct Registers {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d)) return {};
  return r;
}

uint64_t saved_registers() {
  uint32_t low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

std::vector<std::string> read_flags() {
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), seven1 = cpuid(7, 1);
  const bool osxsave = one.c >> 27 & 1;
  const uint64_t saved = osxsave ? saved_registers() : 0;
  const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6, tiles = (saved & 0x60000) == 0x60000;
  const struct {
    const char* name;
    bool saved;
    uint32_t word;
    int bit;
  } known[] = {
      {"fma", ymm, one.c, 12},           {"f16c", ymm, one.c, 29},          {"avx", ymm, one.c, 28},
      {"avx2", ymm, seven.b, 5},         {"avx_vnni", ymm, seven1.a, 4},    {"avx512f", zmm, seven.b, 16},
      {"avx512dq", zmm, seven.b, 17},    {"avx512bw", zmm, seven.b, 30},    {"avx512vl", zmm, seven.b, 31},
      {"avx512_vnni", zmm, seven.c, 11}, {"avx512_bf16", zmm, seven1.a, 5}, {"avx512_fp16", zmm, seven.d, 23},
      {"amx_tile", tiles, seven.d, 24},  {"amx_bf16", tiles, seven.d, 22},  {"amx_int8", tiles, seven.d, 25},
      {"amx_fp16", tiles, seven1.a, 21},
  };
  std::vector<std::string> flags;
  for (const auto& flag : known) {
    if (flag.saved && (flag.word >> flag.bit & 1)) flags.push_back(flag.name);
  }
  return flags;
}
#else
std::vector<std::string> read_flags() { return {}; }
#endif

#if defined(__x86_64__)
std::string read_vendor() {
  const Registers r = cpuid(0, 0);
  std::string vendor(12, ' ');
  std::memcpy(vendor.data(), &r.b, 4);
  std::memcpy(vendor.data() + 4, &r.d, 4);
  std::memcpy(vendor.data() + 8, &r.c, 4);
  return vendor;
}
#else
std::string read_vendor() { return "unknown"; }
#endif

std::string read_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (colon != std::string::npos && line.rfind("model name", 0) == 0) return line.substr(colon + 2);
  }
  return "unknown";
}

void read_caches(Features& f) {
  int last = 0;
  for (int i = 0; i < 8; ++i) {
    const std::string cache = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    const int level = std::atoi(first_line(cache + "level").c_str());
    if (level == 0) break;
    if (first_line(cache + "type") == "Instruction") continue;
    const uint64_t bytes = parse_bytes(first_line(cache + "size"), 0);
    if (level == 1) f.l1d_bytes = bytes;
    if (level == 2) f.l2_bytes = bytes;
    if (level >= last) last = level, f.llc_bytes = bytes;
  }
}

Features read_features() {
  Features f;
  f.vendor = read_vendor();
  f.model = read_model();
  f.flags = read_flags();
  read_caches(f);
  return f;
}

bool has(const char* flag) {
  const auto& flags = features().flags;
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

// Why this process may not use the tile registers; empty when it may, or when the CPU has none.
std::string ask_for_tiles() {
#if defined(__x86_64__)
  const bool exists = (cpuid(7, 0).d >> 22 & 5) == 5;  // amx_bf16 and amx_tile
  if (exists && !(has("amx_tile") && has("amx_bf16"))) return "the operating system does not save the tile registers";
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h, XFEATURE_XTILEDATA
  if (exists && syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) {
    return std::string("the kernel refuses the tile registers: ") + std::strerror(errno);
  }
#else
  if (exists) return "tile registers are asked for on Linux alone";
#endif
#endif
  return "";
}

// Folders of this process's cgroup and its parents for a controller, innermost first. Version 2 has one hierarchy
// ("0::/path"), version 1 one per controller ("4:memory:/path"). Inside a container only the last may exist.
std::vector<std::string> cgroup_folders(const std::string& controller) {
  std::vector<std::string> folders;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    if (!names.empty() && ("," + names + ",").find("," + controller + ",") == std::string::npos) continue;
    const std::string root = names.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + names;
    for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
      if (path == "/") path.clear();
      folders.push_back(root + path);
      if (path.empty()) break;
    }
  }
  return folders;
}

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

}  // namespace

const Features& features() {
  static const Features& f =
      *new Features(read_features());  // never destroyed: threads may ask while the process exits
  return f;
}

const std::string& amx_withheld() {
  static const std::string& reason = *new std::string(ask_for_tiles());
  return reason;
}

Isa best() {
  static const Isa isa = [] {
    if (!has("avx2") || !has("fma") || !has("f16c")) return Isa::generic;
    if (!has("avx512f") || !has("avx512bw") || !has("avx512vl") || !has("avx512dq")) return Isa::avx2;
    if (!has("avx512_bf16") || !has("avx512_vnni")) return Isa::avx512;
    return has("amx_bf16") && has("amx_int8") && amx_withheld().empty() ? Isa::amx_bf16 : Isa::avx512_bf16;
  }();
  return isa;
}

Isa parse(const std::string& name) {
  std::string list;
  for (int i = 0; i < kIsaCount; ++i) {
    if (name != kIsaNames[i]) {
      list += (i ? ", " : "") + std::string(kIsaNames[i]);
      continue;
    }
    if (i <= static_cast<int>(best())) return static_cast<Isa>(i);
    throw Error(Code::UNSUPPORTED,
                "cpu: isa is " + name + ", expected at most " + cpu::name(best()) + ", the best of this CPU");
  }
  throw Error(Code::ARGUMENT, "cpu: isa is " + name + ", expected one of " + list);
}

bool dot_bf16_pays() {
  const char* forced = std::getenv("KERNWATT_DOT_BF16");
  return forced ? *forced == '1' : features().vendor == "AuthenticAMD";
}

std::vector<int> cpus() {
  std::vector<int> found;
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return found;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &allowed)) found.push_back(i);
  }
#endif
  return found;
}

int cores() {
  int count = std::max(1u, std::thread::hardware_concurrency());
  if (const size_t allowed = cpus().size(); allowed != 0) count = static_cast<int>(allowed);
  for (const std::string& folder : cgroup_folders("cpu")) {
    double quota = -1, period = 0;
    std::istringstream(first_line(folder + "/cpu.max")) >> quota >> period;  // "max 100000" leaves quota 0
    if (period == 0) {
      std::istringstream(first_line(folder + "/cpu.cfs_quota_us")) >> quota;
      std::istringstream(first_line(folder + "/cpu.cfs_period_us")) >> period;
    }
    if (quota > 0 && period > 0) count = std::clamp(static_cast<int>(quota / period), 1, count);
  }
  return count;
}

uint64_t memory_bytes() {
  uint64_t bytes = keyed("/proc/meminfo", "MemTotal:", 1024, 0);
  for (const std::string& folder : cgroup_folders("memory")) {
    for (const char* file : {"/memory.max", "/memory.limit_in_bytes"}) {
      const uint64_t limit = parse_bytes(first_line(folder + file), kUnlimited);
      if (bytes != 0) bytes = std::min(bytes, limit);
    }
  }
  return bytes;
}

uint64_t available_bytes() {
  uint64_t bytes = keyed("/proc/meminfo", "MemAvailable:", 1024, 0);
  if (bytes == 0) return 0;
  const struct {
    const char *limit, *used, *reclaimable;
  } versions[] = {{"/memory.max", "/memory.current", "inactive_file"},
                  {"/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file"}};
  for (const std::string& folder : cgroup_folders("memory")) {
    for (const auto& v : versions) {
      const uint64_t limit = parse_bytes(first_line(folder + v.limit), kUnlimited);
      const uint64_t used = parse_bytes(first_line(folder + v.used), kUnlimited);
      if (limit == kUnlimited || used == kUnlimited) continue;
      const uint64_t cache = std::min(used, keyed(folder + "/memory.stat", v.reclaimable, 1, 0));
      bytes = std::min(bytes, limit > used - cache ? limit - (used - cache) : 0);
    }
  }
  return bytes;
}

}  // namespace kw::cpu
