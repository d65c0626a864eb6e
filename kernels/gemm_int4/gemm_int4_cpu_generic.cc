// gemm_int4 in plain C++: every architecture, four lanes at a time.
#include "../core/cpu/nibbles_generic.h"
#include "gemm_int4_cpu_kernels.h"

namespace kw::cpu {

const Int4Kernels kInt4Generic = int4_kernels<2, 2, 4, 4, 8, 4>("generic");

}  // namespace kw::cpu
