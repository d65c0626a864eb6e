// attention_gqa with AVX-512: micro-tiles of 8 by 32.
#include "../core/cpu/simd_avx512.h"
#include "attention_gqa_cpu_kernels.h"

namespace kw::cpu {

const AttentionKernels kAttentionAvx512[3] = {attention_kernels<F32Cells, Fma, 8, 8>("avx512"),
                                              attention_kernels<F16Cells, Fma, 8, 8>("avx512"),
                                              attention_kernels<Bf16Cells, Fma, 8, 8>("avx512")};

}  // namespace kw::cpu
