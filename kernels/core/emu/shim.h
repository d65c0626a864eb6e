// The part of the CUDA C++ language that host g++/clang++ lacks.  Included instead of <cuda_runtime.h>.
#pragma once
#include <cuda_bf16.h>  // host halves of the toolkit headers: types, conversions, most arithmetic
#include <cuda_fp16.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <vector>

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
#undef __cluster_dims__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __shared__ error_use_KW_SHARED

#define threadIdx (::kw::emu::cur->tid)
#define blockIdx (::kw::emu::cur->bid)
#define blockDim (::kw::emu::cur->bdim)
#define gridDim (::kw::emu::cur->gdim)
constexpr int warpSize = 32;

namespace kw::emu::cuda_names {}
using namespace kw::emu::cuda_names;
namespace kw::emu::cuda_names {
inline void __syncthreads(KW_LOC) { syncthreads(loc); }
inline void __syncwarp(uint32_t mask = 0xffffffffu, KW_LOC) { syncwarp(mask, loc); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { yield_point(); }
[[noreturn]] inline void __trap(KW_LOC) { fail("trap", "__trap() reached", loc); }

template <class T>
inline T shfl_any(uint32_t mask, T v, int a, int width, int mode, Loc loc) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8));
  uint32_t w[2] = {0, 0};
  std::memcpy(w, &v, sizeof(T));
  w[0] = shfl(mask, w[0], a, width, mode, loc);
  if constexpr (sizeof(T) == 8) w[1] = shfl(mask, w[1], a, width, mode, loc);
  std::memcpy(&v, w, sizeof(T));
  return v;
}
template <class T>
inline T __shfl_sync(uint32_t m, T v, int src, int width = 32, KW_LOC) {
  return shfl_any(m, v, src, width, 0, loc);
}
template <class T>
inline T __shfl_up_sync(uint32_t m, T v, unsigned d, int width = 32, KW_LOC) {
  return shfl_any(m, v, (int)d, width, 1, loc);
}
template <class T>
inline T __shfl_down_sync(uint32_t m, T v, unsigned d, int width = 32, KW_LOC) {
  return shfl_any(m, v, (int)d, width, 2, loc);
}
template <class T>
inline T __shfl_xor_sync(uint32_t m, T v, int x, int width = 32, KW_LOC) {
  return shfl_any(m, v, x, width, 3, loc);
}
inline uint32_t __ballot_sync(uint32_t m, int p, KW_LOC) { return vote(m, p != 0, loc); }
inline int __any_sync(uint32_t m, int p, KW_LOC) { return vote(m, p != 0, loc) != 0; }
inline int __all_sync(uint32_t m, int p, KW_LOC) { return vote(m, p != 0, loc) == m; }
inline uint32_t __match_any_sync(uint32_t m, uint32_t v, KW_LOC) { return match_any(m, v, loc); }
inline uint32_t __reduce_add_sync(uint32_t m, uint32_t v, KW_LOC) { return (uint32_t)reduce(m, v, 0, loc); }
inline uint32_t __reduce_min_sync(uint32_t m, uint32_t v, KW_LOC) { return (uint32_t)reduce(m, v, 1, loc); }
inline uint32_t __reduce_max_sync(uint32_t m, uint32_t v, KW_LOC) { return (uint32_t)reduce(m, v, 2, loc); }

inline int __popc(uint32_t v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
inline uint32_t __float_as_uint(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline float __uint_as_float(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
template <class T>
inline T __ldg(const T* p) {
  return *p;
}

template <class T>
inline T atomicAdd(T* p, T v) {
  if constexpr (std::is_integral_v<T>)
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
  else {
    T o, n;
    __atomic_load(p, &o, __ATOMIC_RELAXED);
    do {
      n = o + v;
    } while (!__atomic_compare_exchange(p, &o, &n, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return o;
  }
}
template <class T>
inline T atomicMax(T* p, T v) {
  T o = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (o < v && !__atomic_compare_exchange_n(p, &o, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return o;
}
template <class T>
inline T atomicExch(T* p, T v) {
  return __atomic_exchange_n(p, v, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicCAS(T* p, T e, T v) {
  __atomic_compare_exchange_n(p, &e, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return e;
}
}  // namespace kw::emu::cuda_names
