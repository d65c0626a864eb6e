// The loops behind peak() in AVX-512.
#include "simd_avx512.h"
#include "simd_peak.h"

namespace kw::cpu {

const PeakKernels kPeakAvx512 = {fma_f32<24>, nullptr, read, copy};

}  // namespace kw::cpu
