// attention_merge with plain C++ vectors.
#include "../core/cpu/simd_generic.h"
#include "attention_merge_cpu_kernels.h"

namespace kw::cpu {

const MergeKernel kMergeGeneric = merge_row;

}  // namespace kw::cpu
