// attention_merge with AVX2, FMA and F16C.
#include "../core/cpu/simd_avx2.h"
#include "attention_merge_cpu_kernels.h"

namespace kw::cpu {

const MergeKernel kMergeAvx2 = merge_row;

}  // namespace kw::cpu
