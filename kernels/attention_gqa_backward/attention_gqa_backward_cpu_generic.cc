// attention_gqa_backward with plain C++ vectors: micro-tiles of 4 by 8.
#include "../core/cpu/simd_generic.h"
#include "attention_gqa_backward_cpu_kernels.h"

namespace kw::cpu {

const BackwardKernels kBackwardGeneric[3] = {backward_kernels<F32Cells, Fma, 4, 4>("generic"),
                                             backward_kernels<F16Cells, Fma, 4, 4>("generic"),
                                             backward_kernels<Bf16Cells, Fma, 4, 4>("generic")};

}  // namespace kw::cpu
