// gemm_int4 with AVX-512 and what came with vdpbf16ps: vpdpbusd for x in int8, alone and in the layout of tiles, and panels of
// bf16 for the micro-kernels of bf16.
#include "../core/cpu/nibbles_avx512.h"
#include "gemm_int4_cpu_kernels.h"
#include "gemm_int4_cpu_vector_tiles.h"

namespace kw::cpu {

const Int4Kernels kInt4Avx512Bf16 = int4_kernels<4, 4, 12, 6, 24, 64>("avx512_bf16", &kVectorTiles);

}  // namespace kw::cpu
