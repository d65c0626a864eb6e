// attention_gqa of bf16 with vdpbf16ps: two products per cell, summed in f32 (to nearest even, denormals as 0).
#include "../core/cpu/simd_pairs.h"
#include "attention_gqa_cpu_kernels.h"

namespace kw::cpu {

const AttentionKernels kAttentionAvx512Bf16 = attention_kernels<Bf16Pairs, DotBf16, 8, 8>("avx512_bf16");

}  // namespace kw::cpu
