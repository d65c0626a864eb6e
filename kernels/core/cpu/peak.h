// Measured ceilings of this machine, for measurements to be set against: what the instruction set does at best when
// nothing else gets in the way. Empirical, so another load on the machine lowers them.
#pragma once
#include <cstdint>

#include "../threads.h"

namespace kw::cpu {

// fma_f32: FLOP/s of f32 multiply-adds (2 each). dot_bf16: FLOP/s of bf16 products summed in f32. read, copy: bytes/s
// of memory well beyond the caches; copy counts the bytes read and the bytes written.
enum class PeakKind : int32_t { fma_f32, dot_bf16, read, copy };
inline constexpr const char* kPeakNames[] = {"fma_f32", "dot_bf16", "read", "copy"};

// The best of many short windows within about `seconds`, on all threads of the pool with its instruction set. NaN where
// the instruction set has no such instruction. Throws OUT_OF_MEMORY when the buffers cannot be had.
double peak(ThreadPool& pool, PeakKind kind, double seconds);

// The loops, one set per instruction set.
struct PeakKernels {
  double (*fma_f32)(int64_t rounds,
                    float* out);  // both return the FLOPs done; out: 64 bytes, so that the work has a result
  double (*dot_bf16)(int64_t rounds, float* out);  // null: no such instruction
  void (*read)(const float* from, int64_t floats, float* out);
  void (*copy)(float* to, const float* from, int64_t floats);
};
extern const PeakKernels kPeakGeneric, kPeakAvx2, kPeakAvx512, kPeakAvx512Bf16;

}  // namespace kw::cpu
