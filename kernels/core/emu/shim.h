// The part of CUDA C++ that a host compiler lacks: included by core/cuda/launch.cuh instead of the CUDA runtime. Types and
// conversions come from the host halves of the toolkit's own headers.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_functions.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "emu.h"

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __shared__ static_assert(false, "plain __shared__ cannot be emulated: use KW_SHARED or kw::dyn_smem()");

#define threadIdx (::kw::emu::cur->thread)
#define blockIdx (::kw::emu::cur->block)
#define blockDim (::kw::emu::cur->block_dim)
#define gridDim (::kw::emu::cur->grid_dim)
constexpr int warpSize = 32;

namespace kw::emu::cuda {

// ---- synchronisation ---------------------------------------------------------------------------
inline void __syncthreads(KW_LOC) { syncthreads(loc); }
inline void __syncwarp(uint32_t mask = 0xffffffffu, KW_LOC) { syncwarp(mask, loc); }
inline void __threadfence() { thread_fence(); }
inline void __threadfence_system() { thread_fence(); }
inline void __threadfence_block() {}
inline void __nanosleep(unsigned, KW_LOC) { yield_point(loc); }
[[noreturn]] inline void __trap(KW_LOC) { fail("trap", "__trap() reached", loc); }

// ---- warp ----------------------------------------------------------------------------------------
template <class T>
T shfl_any(uint32_t mask, T value, int operand, int width, Shuffle mode, Loc loc) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8));
  uint32_t words[2] = {0, 0};
  std::memcpy(words, &value, sizeof(T));
  words[0] = shfl(mask, words[0], operand, width, mode, loc);
  if constexpr (sizeof(T) == 8) words[1] = shfl(mask, words[1], operand, width, mode, loc);
  std::memcpy(&value, words, sizeof(T));
  return value;
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int lane, int width = 32, KW_LOC) {
  return shfl_any(mask, value, lane, width, Shuffle::idx, loc);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32, KW_LOC) {
  return shfl_any(mask, value, static_cast<int>(delta), width, Shuffle::up, loc);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32, KW_LOC) {
  return shfl_any(mask, value, static_cast<int>(delta), width, Shuffle::down, loc);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32, KW_LOC) {
  return shfl_any(mask, value, lanes, width, Shuffle::bfly, loc);
}
inline uint32_t __ballot_sync(uint32_t mask, int p, KW_LOC) { return vote(mask, p != 0, loc); }
inline int __any_sync(uint32_t mask, int p, KW_LOC) { return vote(mask, p != 0, loc) != 0; }
inline int __all_sync(uint32_t mask, int p, KW_LOC) { return vote(mask, p != 0, loc) == mask; }
template <class T>
uint32_t __match_any_sync(uint32_t mask, T value, KW_LOC) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return match_any(mask, bits, loc);
}
inline uint32_t __reduce_add_sync(uint32_t mask, uint32_t v, KW_LOC) { return reduce(mask, v, Reduce::add, loc); }
inline uint32_t __reduce_min_sync(uint32_t mask, uint32_t v, KW_LOC) { return reduce(mask, v, Reduce::min_u, loc); }
inline uint32_t __reduce_max_sync(uint32_t mask, uint32_t v, KW_LOC) { return reduce(mask, v, Reduce::max_u, loc); }
inline int __reduce_add_sync(uint32_t mask, int v, KW_LOC) {
  return static_cast<int>(reduce(mask, static_cast<uint32_t>(v), Reduce::add, loc));
}
inline int __reduce_min_sync(uint32_t mask, int v, KW_LOC) {
  return static_cast<int>(reduce(mask, static_cast<uint32_t>(v), Reduce::min_s, loc));
}
inline int __reduce_max_sync(uint32_t mask, int v, KW_LOC) {
  return static_cast<int>(reduce(mask, static_cast<uint32_t>(v), Reduce::max_s, loc));
}
inline uint32_t __reduce_and_sync(uint32_t mask, uint32_t v, KW_LOC) { return reduce(mask, v, Reduce::op_and, loc); }
inline uint32_t __reduce_or_sync(uint32_t mask, uint32_t v, KW_LOC) { return reduce(mask, v, Reduce::op_or, loc); }
inline uint32_t __reduce_xor_sync(uint32_t mask, uint32_t v, KW_LOC) { return reduce(mask, v, Reduce::op_xor, loc); }

// ---- arithmetic ----------------------------------------------------------------------------------
inline int __popc(uint32_t v) { return std::popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return std::countl_zero(static_cast<unsigned>(v)); }
inline uint32_t __float_as_uint(float f) { return std::bit_cast<uint32_t>(f); }
inline float __uint_as_float(uint32_t u) { return std::bit_cast<float>(u); }
inline int __float_as_int(float f) { return std::bit_cast<int>(f); }
inline float __int_as_float(int i) { return std::bit_cast<float>(i); }
// Macros, because the C library declares functions of these names.
#define __expf(x) ::std::exp(static_cast<float>(x))
#define __logf(x) ::std::log(static_cast<float>(x))
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
template <class T>
  requires std::is_integral_v<T>
T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
  requires std::is_integral_v<T>
T max(T a, T b) {
  return a > b ? a : b;
}
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

// ---- memory --------------------------------------------------------------------------------------
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}
// *p = f(*p), atomically; returns the old value. Floats too, for which the compiler has no atomic arithmetic.
template <class T, class F>
T atomic_update(T* p, F&& f) {
  T old, desired;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do desired = f(old);
  while (!__atomic_compare_exchange(p, &old, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [v](T old) { return static_cast<T>(old + v); });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [v](T old) { return old < v ? v : old; });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [v](T old) { return v < old ? v : old; });
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [v](T old) { return old | v; });
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [v](T) { return v; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> desired) {
  __atomic_compare_exchange(p, &expected, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

}  // namespace kw::emu::cuda
using namespace kw::emu::cuda;
