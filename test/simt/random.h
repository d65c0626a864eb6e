// Seeded inputs for tests.
#pragma once
#include <cstdint>
#include <random>
#include <vector>

#include "../../kernels/core/cuda/launch.cuh"

namespace kw::test {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t word() { return engine_(); }
  uint32_t below(uint32_t n) { return engine_() % n; }
  float uniform(float low, float high) { return low + (high - low) * static_cast<float>(engine_() >> 8) * 0x1p-24f; }
  std::vector<__nv_bfloat16> bf16(size_t n) {
    std::vector<__nv_bfloat16> v(n);
    for (auto& x : v) x = __float2bfloat16_rn(uniform(-1, 1));
    return v;
  }
  template <class T>
  std::vector<T> integers(size_t n, uint32_t range) {
    std::vector<T> v(n);
    for (auto& x : v) x = static_cast<T>(below(range));
    return v;
  }

 private:
  std::mt19937 engine_;
};

}  // namespace kw::test
