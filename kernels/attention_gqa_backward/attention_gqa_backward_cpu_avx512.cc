// attention_gqa_backward with AVX-512: micro-tiles of 8 by 32.
#include "../core/cpu/simd_avx512.h"
#include "attention_gqa_backward_cpu_kernels.h"

namespace kw::cpu {

const BackwardKernels kBackwardAvx512[3] = {backward_kernels<F32Cells, Fma, 8, 8>("avx512"),
                                            backward_kernels<F16Cells, Fma, 8, 8>("avx512"),
                                            backward_kernels<Bf16Cells, Fma, 8, 8>("avx512")};

}  // namespace kw::cpu
