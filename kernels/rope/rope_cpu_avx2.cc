// rope with AVX2, FMA and F16C.
#include "../core/cpu/simd_avx2.h"
#include "rope_cpu_kernels.h"

namespace kw::cpu {

const RopeKernels kRopeAvx2 = kRopeHere;

}  // namespace kw::cpu
