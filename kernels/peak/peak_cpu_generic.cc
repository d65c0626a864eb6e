// peak in plain C++. arm64 has twice the registers of x86-64's SSE2, and needs more sums to hide its latency.
#include "../core/cpu/simd_generic.h"
#include "peak_cpu_kernels.h"

namespace kw::cpu {

#if defined(__aarch64__)
const PeakKernels kPeakGeneric = {"generic", sum_row, copy_row, multiply_tile<4, 4>, nullptr};
#else
const PeakKernels kPeakGeneric = {"generic", sum_row, copy_row, multiply_tile<3, 3>, nullptr};
#endif

}  // namespace kw::cpu
