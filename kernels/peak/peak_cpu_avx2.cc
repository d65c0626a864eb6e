// peak with AVX2.
#include "../core/cpu/simd_avx2.h"
#include "peak_cpu_kernels.h"

namespace kw::cpu {

const PeakKernels kPeakAvx2 = {"avx2", sum_row, copy_row, multiply_tile<3, 3>, nullptr};

}  // namespace kw::cpu
