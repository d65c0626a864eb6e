// Conformance of what emu/shim.h provides of CUDA C++ itself: shuffles, votes, reductions, atomics, arithmetic.
#include "../../../kernels/core/cuda/launch.cuh"
#include "../conformance.h"

namespace kw::test {
namespace {

constexpr int kLanes = 32;

// ---- warp functions of CUDA C++ ----------------------------------------------------------------
__global__ void shuffle_kernel(const int* in, const double* wide, int* out, double* wide_out, int operand, int width) {
  const uint32_t t = threadIdx.x;
  const int v = in[t];
  out[t * 4 + 0] = __shfl_sync(0xffffffffu, v, operand, width);
  out[t * 4 + 1] = __shfl_up_sync(0xffffffffu, v, static_cast<unsigned>(operand), width);
  out[t * 4 + 2] = __shfl_down_sync(0xffffffffu, v, static_cast<unsigned>(operand), width);
  out[t * 4 + 3] = __shfl_xor_sync(0xffffffffu, v, operand, width);
  wide_out[t] = __shfl_xor_sync(0xffffffffu, wide[t], operand, width);
}
KW_TEST(shuffles) {
  Random random(26);
  const auto in = random.integers<int>(kLanes, 1000);
  const auto wide = random.integers<double>(kLanes, 1 << 30);
  DeviceBuffer<int> din(in), out(kLanes * 4);
  DeviceBuffer<double> dwide(wide), wide_out(kLanes);
  for (const int width : {32, 16, 8, 2})
    for (const int operand : {0, 1, 3, 7, 16, 31}) {
      std::vector<int> want;
      std::vector<double> want_wide;
      for (int lane = 0; lane < kLanes; ++lane) {
        // CUDA programming guide, "Warp Shuffle Functions": sections of `width` lanes, out of range gives one's own.
        const int section = lane / width * width, in_section = lane % width;
        const int idx = section + operand % width, up = in_section < operand ? lane : lane - operand;
        const int down = in_section + operand >= width ? lane : lane + operand;
        const int bfly = (lane ^ operand) >= section + width ? lane : lane ^ operand;
        want.insert(want.end(), {in[idx], in[up], in[down], in[bfly]});
        want_wide.push_back(wide[bfly]);
      }
      launch({.grid = {1}, .block = {32}}, shuffle_kernel, din.data(), dwide.data(), out.data(), wide_out.data(),
             operand, width);
      const std::string name = "shfl " + std::to_string(operand) + " width " + std::to_string(width);
      conforms(name, out.download(), want);
      conforms(name + " of doubles", wide_out.download(), want_wide);
    }
}

// Two halves of a warp vote, match and reduce apart from each other.
__global__ void vote_kernel(const int* in, uint32_t* out) {
  const uint32_t t = threadIdx.x;
  const uint32_t mask = t % 3 ? 0xb6db6db6u : 0x49249249u;  // lanes 3 i, and the others
  const int v = in[t];
  uint32_t* o = out + t * 13;
  o[0] = __ballot_sync(mask, v & 1);
  o[1] = static_cast<uint32_t>(__any_sync(mask, v == 3));
  o[2] = static_cast<uint32_t>(__all_sync(mask, v < 8));
  o[3] = __match_any_sync(mask, v);
  o[4] = __reduce_add_sync(mask, static_cast<uint32_t>(v));
  o[5] = __reduce_min_sync(mask, static_cast<uint32_t>(v - 4));
  o[6] = __reduce_max_sync(mask, static_cast<uint32_t>(v - 4));
  o[7] = static_cast<uint32_t>(__reduce_min_sync(mask, v - 4));
  o[8] = static_cast<uint32_t>(__reduce_max_sync(mask, v - 4));
  o[9] = static_cast<uint32_t>(__reduce_add_sync(mask, v - 4));
  o[10] = __reduce_and_sync(mask, static_cast<uint32_t>(v));
  o[11] = __reduce_or_sync(mask, static_cast<uint32_t>(v));
  o[12] = __reduce_xor_sync(mask, static_cast<uint32_t>(v));
}
KW_TEST(votes_matches_reductions) {
  const auto in = Random(27).integers<int>(kLanes, 8);
  std::vector<uint32_t> want(kLanes * 13);
  for (int lane = 0; lane < kLanes; ++lane) {
    uint32_t* o = &want[lane * 13];
    o[2] = 1, o[5] = ~0u, o[7] = 100, o[10] = ~0u;
    int low = 100, high = -100;
    for (int other = 0; other < kLanes; ++other) {
      if ((other % 3 == 0) != (lane % 3 == 0)) continue;
      const int v = in[other];
      const auto u = static_cast<uint32_t>(v), shifted = static_cast<uint32_t>(v - 4);
      o[0] |= static_cast<uint32_t>(v & 1) << other;
      o[1] |= v == 3;
      o[3] |= static_cast<uint32_t>(v == in[lane]) << other;
      o[4] += u;
      o[5] = shifted < o[5] ? shifted : o[5];
      o[6] = shifted > o[6] ? shifted : o[6];
      low = v - 4 < low ? v - 4 : low;
      high = v - 4 > high ? v - 4 : high;
      o[9] += shifted;
      o[10] &= u, o[11] |= u, o[12] ^= u;
    }
    o[7] = static_cast<uint32_t>(low), o[8] = static_cast<uint32_t>(high);
  }
  DeviceBuffer<int> din(in);
  DeviceBuffer<uint32_t> out(want.size());
  launch({.grid = {1}, .block = {32}}, vote_kernel, din.data(), out.data());
  conforms("votes", out.download(), want);
}

// ---- atomics -----------------------------------------------------------------------------------
__global__ void atomic_kernel(int* i, unsigned* u, float* f) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&i[0], t);
  atomicMax(&i[1], t ^ 21);
  atomicMin(&i[2], t ^ 21);
  atomicOr(&u[0], 1u << (t % 32));
  atomicAdd(f, 0.5f);
  if (t == 5) u[1] = atomicExch(&u[2], 9u);
  if (t == 6) u[3] = atomicCAS(&u[4], 4u, 8u);
  if (t == 7) u[5] = atomicCAS(&u[6], 5u, 8u);
}
KW_TEST(atomics) {
  DeviceBuffer<int> i(std::vector<int>{0, -1, 1000});
  DeviceBuffer<unsigned> u(std::vector<unsigned>{0, 0, 3, 0, 4, 0, 4});
  DeviceBuffer<float> f(std::vector<float>{0});
  launch({.grid = {2}, .block = {64}}, atomic_kernel, i.data(), u.data(), f.data());
  conforms("atomics of int", i.download(), {127 * 128 / 2, 127, 0});
  conforms("atomics of unsigned", u.download(), {~0u, 3u, 9u, 4u, 8u, 4u, 4u});
  conforms("atomicAdd of float", f.download(), {64.f});
}

// ---- arithmetic and memory ---------------------------------------------------------------------
__global__ void integer_functions_kernel(const int* in, int* out) {
  const int t = static_cast<int>(threadIdx.x), v = __ldg(&in[t]);
  int* o = out + t * 8;
  o[0] = __popc(static_cast<unsigned>(v));
  o[1] = __ffs(v);
  o[2] = __clz(v);
  o[3] = min(v, 5);
  o[4] = max(v, 5);
  o[5] = static_cast<int>(min(static_cast<unsigned>(v), 5u));
  o[6] = __float_as_int(__int_as_float(v));
  __stcs(&o[7], __ldcs(&in[t]));
}
KW_TEST(integer_functions) {
  const std::vector<int> in{0, 1, -1, 5, 6, INT32_MIN, INT32_MAX, 0x40800000};
  std::vector<int> want;
  for (const int v : in) {
    const auto u = static_cast<unsigned>(v);
    int ones = 0, first = 0, leading = 32;
    for (int bit = 31; bit >= 0; --bit) {
      if (!(u >> bit & 1)) continue;
      ++ones;
      first = bit + 1;
      if (leading == 32) leading = 31 - bit;
    }
    const int low = u < 5 ? v : 5;
    want.insert(want.end(), {ones, first, leading, v < 5 ? v : 5, v > 5 ? v : 5, low, v, v});
  }
  DeviceBuffer<int> din(in), out(want.size());
  launch({.grid = {1}, .block = {8}}, integer_functions_kernel, din.data(), out.data());
  conforms("integer functions", out.download(), want);
}

__global__ void float_functions_kernel(const float* in, float* out) {
  const float v = in[threadIdx.x];
  float* o = out + threadIdx.x * 8;
  o[0] = __expf(v);
  o[1] = __logf(v);
  o[2] = __fdividef(1.f, v);
  o[3] = __frcp_rn(v);
  o[4] = __fmaf_rn(v, v, 1.f);
  o[5] = rsqrtf(v);
  o[6] = fmaxf(v, 1.f) + min(v, 1.f);
  o[7] = __uint_as_float(__float_as_uint(v));
}
KW_TEST(float_functions) {
  const std::vector<float> in{0.25f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 5.f};
  std::vector<float> want;
  for (const double v : in)
    for (const double w : {std::exp(v), std::log(v), 1 / v, 1 / v, v * v + 1, 1 / std::sqrt(v), v + 1, v})
      want.push_back(static_cast<float>(w));
  DeviceBuffer<float> din(in), out(want.size());
  launch({.grid = {1}, .block = {8}}, float_functions_kernel, din.data(), out.data());
  conforms("float functions", out.download(), want, 1e-4);
}

}  // namespace
}  // namespace kw::test
