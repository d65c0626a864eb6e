// What this machine's CPU can do and how much of it this process may use.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace kw::cpu {

// Instruction sets that operators are written for, weakest first; the order is the wire format (kw_device_info::isa).
// avx2 includes FMA and F16C; avx512 is F, BW, VL, DQ; avx512_bf16 adds vdpbf16ps and vpdpbusd; amx_bf16 adds tdpbf16ps
// and products of int8 on tiles. Other architectures have generic alone.
enum class Isa : int32_t { generic, avx2, avx512, avx512_bf16, amx_bf16 };
inline constexpr const char* kIsaNames[] = {"generic", "avx2", "avx512", "avx512_bf16", "amx_bf16"};
inline constexpr int kIsaCount = sizeof(kIsaNames) / sizeof(kIsaNames[0]);

inline const char* name(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

// The strongest set that both the CPU and the operating system (saved registers) support. The first call asks the kernel
// for the tile registers of AMX, which Linux grants to processes on request; it is for all threads and for good.
Isa best();

// Why best() is not amx_bf16 on a CPU that has it; empty otherwise.
const std::string& amx_withheld();

// Throws ARGUMENT for a name that is none of kIsaNames, UNSUPPORTED for one beyond best().
Isa parse(const std::string& name);

// Whether bf16 sums are faster by vdpbf16ps than by f32 multiply-adds on widened values, given avx512_bf16. AMD's
// processors run it at full rate (twice the FLOP/s of f32); Intel's at half of f32's (measured: 115 against 225 GFLOP/s
// on one core). KERNWATT_DOT_BF16=0 or 1 in the environment decides instead, for comparing the two.
bool dot_bf16_pays();

struct Features {
  std::string vendor;              // as cpuid spells it: GenuineIntel, AuthenticAMD; "unknown" elsewhere
  std::string model;               // "unknown" when the system does not say
  std::vector<std::string> flags;  // the ones that matter here, as /proc/cpuinfo spells them
  uint64_t l1d_bytes = 0, l2_bytes = 0, llc_bytes = 0;  // of one instance; 0: unknown
};

// Read once; lives as long as the process.
const Features& features();

// Numbers of the CPUs that the calling thread may run on, ascending; empty: unknown.
std::vector<int> cpus();

// CPUs this process may keep busy: its affinity mask, less whatever the cgroup's quota takes away; at least 1.
int cores();

// Bytes of memory: the machine's or the cgroup's limit, and what is still to be had of it. 0: unknown.
uint64_t memory_bytes();
uint64_t available_bytes();

}  // namespace kw::cpu
