// The loops behind peak() in plain C++.
#include "simd_generic.h"
#include "simd_peak.h"

namespace kw::cpu {

const PeakKernels kPeakGeneric = {fma_f32<14>, nullptr, read, copy};

}  // namespace kw::cpu
