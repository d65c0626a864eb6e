// peak with AVX-512.
#include "../core/cpu/simd_avx512.h"
#include "peak_cpu_kernels.h"

namespace kw::cpu {

const PeakKernels kPeakAvx512 = {"avx512", sum_row, copy_row, multiply_tile<6, 3>, nullptr};

}  // namespace kw::cpu
