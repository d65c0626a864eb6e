// nsa_compress with plain C++ vectors.
#include "../core/cpu/simd_generic.h"
#include "nsa_compress_cpu_kernels.h"

namespace kw::cpu {

const CompressKernel kCompressGeneric = compress_window;

}  // namespace kw::cpu
