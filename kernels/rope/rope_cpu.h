// What rope_cpu.cc, and kv_append beside it, ask of an instruction set: plain data and plain functions, so that nothing compiled
// for one processor is ever linked into code for another. rope_cpu_kernels.h has them, once for every rope_cpu_<isa>.cc.
#pragma once
#include "../core/cpu/features.h"
#include "rope.h"

namespace kw::cpu {

// Cosines and sines for one position, times a factor; for interleaved pairs each twice, sines of even columns negative.
struct RopeAngles {
  const uint64_t* turns;  // rope_turns.h
  int64_t pairs, position;
  float factor;
  bool interleaved;
  float *cos, *sin;  // room for a vector beyond 2 * pairs
  uint32_t* space;   // likewise, pairs
};

// y = x turned by them in the first 2 * pairs columns and copied in the others, all divided by `divisor`. x may be y.
struct RopeRow {
  void* y;
  const void* x;
  DType y_dtype, dtype;
  int64_t pairs, columns;
  bool interleaved;
  const float *cos, *sin;
  float divisor;
};

struct RopeKernels {
  void (*angles)(const RopeAngles&);
  void (*row)(const RopeRow&);
};

extern const RopeKernels kRopeGeneric, kRopeAvx2, kRopeAvx512;

inline const RopeKernels& rope_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return kRopeAvx512;
  if (isa == Isa::avx2) return kRopeAvx2;
#endif
  (void)isa;
  return kRopeGeneric;
}

// Floats for the angles of a position: cos, sin and space, each a number of whole cache lines.
inline int64_t rope_line(int64_t pairs) { return (2 * pairs + 16 + 15) / 16 * 16; }

}  // namespace kw::cpu
