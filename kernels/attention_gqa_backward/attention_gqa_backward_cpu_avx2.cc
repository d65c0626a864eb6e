// attention_gqa_backward with AVX2, FMA and F16C: micro-tiles of 6 or 4 by 16.
#include "../core/cpu/simd_avx2.h"
#include "attention_gqa_backward_cpu_kernels.h"

namespace kw::cpu {

const BackwardKernels kBackwardAvx2[3] = {backward_kernels<F32Cells, Fma, 6, 4>("avx2"),
                                          backward_kernels<F16Cells, Fma, 6, 4>("avx2"),
                                          backward_kernels<Bf16Cells, Fma, 6, 4>("avx2")};

}  // namespace kw::cpu
