// rope with plain C++ vectors.
#include "../core/cpu/simd_generic.h"
#include "rope_cpu_kernels.h"

namespace kw::cpu {

const RopeKernels kRopeGeneric = kRopeHere;

}  // namespace kw::cpu
