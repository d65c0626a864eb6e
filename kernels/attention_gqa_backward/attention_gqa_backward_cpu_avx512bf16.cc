// attention_gqa_backward with vdpbf16ps, of bf16: two products per cell, summed in f32 (to nearest even, denormals as 0).
#include "../core/cpu/simd_pairs.h"
#include "attention_gqa_backward_cpu_kernels.h"

namespace kw::cpu {

const BackwardKernels kBackwardAvx512Bf16 = backward_kernels<Bf16Pairs, DotBf16, 8, 8>("avx512_bf16");

}  // namespace kw::cpu
