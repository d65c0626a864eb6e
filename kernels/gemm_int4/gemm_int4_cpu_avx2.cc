// gemm_int4 with AVX2: tables in two registers.
#include "../core/cpu/nibbles_avx2.h"
#include "gemm_int4_cpu_kernels.h"
#include "gemm_int4_cpu_vector_tiles.h"

namespace kw::cpu {

const Int4Kernels kInt4Avx2 = int4_kernels<2, 2, 6, 12, 12, 64>("avx2", &kVectorTiles);

}  // namespace kw::cpu
