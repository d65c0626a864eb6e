// The demonstration kernels: small versions of what real operators do, each run against a float64 reference. They prove
// the emulator on correct kernels, and carry the deliberate faults of faults.cc.
#pragma once
#include <cmath>
#include <cstddef>

namespace kw::test {

struct Outcome {
  size_t wrong = 0;  // elements outside their tolerance
  double worst = 0;  // largest error; NaN if there is one
  void compare(double got, double want, double tolerance) {
    const double error = std::fabs(got - want);
    if (!(error <= tolerance)) ++wrong;
    if (!(error <= worst)) worst = error;
  }
};

// sm_80
Outcome gemm_mma(int m, int n, int k);  // c f32 = a bf16 [m,k] b bf16 [k,n]; k and n multiples of 8
Outcome block_sum();
Outcome transpose();
Outcome histogram();
Outcome named_barriers();
Outcome last_block();
// sm_90a
Outcome gemm_wgmma(int m, int n, int k, bool n_major);  // d bf16; b is [n,k], or [k,n] if n_major
Outcome attention_wgmma(int heads, int length, bool causal);
Outcome cluster_pair();

}  // namespace kw::test
