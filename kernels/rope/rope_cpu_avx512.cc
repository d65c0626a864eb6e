// rope with AVX-512.
#include "../core/cpu/simd_avx512.h"
#include "rope_cpu_kernels.h"

namespace kw::cpu {

const RopeKernels kRopeAvx512 = kRopeHere;

}  // namespace kw::cpu
