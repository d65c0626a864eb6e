// attention_gqa with AVX2, FMA and F16C: micro-tiles of 6 keys, or 4 rows, by 16.
#include "../core/cpu/simd_avx2.h"
#include "attention_gqa_cpu_kernels.h"

namespace kw::cpu {

const AttentionKernels kAttentionAvx2[3] = {attention_kernels<F32Cells, Fma, 6, 4>("avx2"),
                                            attention_kernels<F16Cells, Fma, 6, 4>("avx2"),
                                            attention_kernels<Bf16Cells, Fma, 6, 4>("avx2")};

}  // namespace kw::cpu
