// attention_merge with AVX-512.
#include "../core/cpu/simd_avx512.h"
#include "attention_merge_cpu_kernels.h"

namespace kw::cpu {

const MergeKernel kMergeAvx512 = merge_row;

}  // namespace kw::cpu
