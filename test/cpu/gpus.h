// GPUs that tests of choosers ask about: their limits and nominal clocks.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../kernels/core/abi.h"

namespace kw::test {

struct Named {
  const char* name;
  kw_device_info info;
};

inline kw_device_info device(const char* name, int major, int minor, int sms, int smem_kb, double l2_mb, int mhz,
                             int memory_mhz, int bus) {
  kw_device_info d{};
  d.size = sizeof(d);
  std::snprintf(d.name, sizeof(d.name), "%s", name);
  d.cc_major = major, d.cc_minor = minor, d.sm_count = sms;
  d.smem_bytes = static_cast<uint64_t>(smem_kb) << 10;
  d.llc_bytes = static_cast<uint64_t>(l2_mb * 1048576);
  d.clock_khz = mhz * 1000, d.memory_clock_khz = memory_mhz * 1000, d.memory_bus_bits = bus;
  return d;
}

// Data sheets; the last two tell no clocks, as the emulator.
inline const Named kDevices[] = {
    {"A100", device("NVIDIA A100-SXM4-80GB", 8, 0, 108, 163, 40, 1410, 1593, 5120)},
    {"A10", device("NVIDIA A10", 8, 6, 72, 99, 6, 1695, 6251, 384)},
    {"3090", device("NVIDIA GeForce RTX 3090", 8, 6, 82, 99, 6, 1695, 9751, 384)},
    {"4090", device("NVIDIA GeForce RTX 4090", 8, 9, 128, 99, 72, 2520, 10501, 384)},
    {"L40S", device("NVIDIA L40S", 8, 9, 142, 99, 96, 2520, 9001, 384)},
    {"H200", device("NVIDIA H200", 9, 0, 132, 227, 60, 1830, 3201, 6144)},
    {"H100 PCIe", device("NVIDIA H100 PCIe", 9, 0, 114, 227, 50, 1755, 1593, 5120)},
    {"B200", device("NVIDIA B200", 10, 0, 148, 227, 126, 1850, 3996, 8192)},
    {"5090", device("NVIDIA GeForce RTX 5090", 12, 0, 170, 99, 96, 2407, 14001, 512)},
    {"slice", device("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 8, 0, 14, 163, 5, 1410, 1593, 640)},
    {"emulated sm_90", device("emulated sm_90, 227 KB", 9, 0, 2, 227, 0, 0, 0, 0)},
    {"emulated sm_89", device("emulated sm_89, 99 KB", 8, 9, 2, 99, 0, 0, 0, 0)},
};

inline const kw_device_info& on(const char* name) {
  for (const Named& d : kDevices)
    if (!std::strcmp(d.name, name)) return d.info;
  std::abort();
}

}  // namespace kw::test
