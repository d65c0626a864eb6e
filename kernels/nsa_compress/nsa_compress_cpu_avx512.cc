// nsa_compress with AVX-512.
#include "../core/cpu/simd_avx512.h"
#include "nsa_compress_cpu_kernels.h"

namespace kw::cpu {

const CompressKernel kCompressAvx512 = compress_window;

}  // namespace kw::cpu
