// gemm_int4 with AVX-512: a table is one register.
#include "../core/cpu/nibbles_avx512.h"
#include "gemm_int4_cpu_kernels.h"
#include "gemm_int4_cpu_vector_tiles.h"

namespace kw::cpu {

const Int4Kernels kInt4Avx512 = int4_kernels<4, 4, 12, 12, 24, 64>("avx512", &kVectorTiles);

}  // namespace kw::cpu
