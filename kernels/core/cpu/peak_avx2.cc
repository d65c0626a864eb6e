// The loops behind peak() in AVX2.
#include "simd_avx2.h"
#include "simd_peak.h"

namespace kw::cpu {

const PeakKernels kPeakAvx2 = {fma_f32<12>, nullptr, read, copy};

}  // namespace kw::cpu
