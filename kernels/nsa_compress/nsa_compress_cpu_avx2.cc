// nsa_compress with AVX2, FMA and F16C.
#include "../core/cpu/simd_avx2.h"
#include "nsa_compress_cpu_kernels.h"

namespace kw::cpu {

const CompressKernel kCompressAvx2 = compress_window;

}  // namespace kw::cpu
