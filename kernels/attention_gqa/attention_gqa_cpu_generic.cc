// attention_gqa with plain C++ vectors: micro-tiles of 4 by 8.
#include "../core/cpu/simd_generic.h"
#include "attention_gqa_cpu_kernels.h"

namespace kw::cpu {

const AttentionKernels kAttentionGeneric[3] = {attention_kernels<F32Cells, Fma, 4, 4>("generic"),
                                               attention_kernels<F16Cells, Fma, 4, 4>("generic"),
                                               attention_kernels<Bf16Cells, Fma, 4, 4>("generic")};

}  // namespace kw::cpu
