// Seeded contents of tensors. Element i depends on (seed, i) alone and is computed with additions, multiplications,
// divisions and square roots in double precision, each rounded once (distribution.cc is compiled without contraction): so
// every device, thread count and instruction set gives the same bits.
#pragma once
#include <cstdint>

#include "../tensor.h"

namespace kw {

struct Distribution {
  enum Kind {
    kConstant,  // a
    kUniform,   // a + (b - a) u, u in [0, 1)
    kNormal,    // mean a, standard deviation b
    kIntegers,  // a to b, both included
  };

  // a and b are finite but for a constant, and whole numbers with a <= b, below 2^53 in magnitude, for integers.
  Distribution(Kind kind, uint64_t seed, double a, double b);

  // Elements [begin, end) of a view in host memory, counted in row-major order. Of 4-bit elements, whose values are whole
  // numbers of their range, begin is even.
  void fill(const TensorView& view, int64_t begin, int64_t end) const;

  Kind kind;
  uint64_t start;  // what the seed scatters to
  double a, b;
};

}  // namespace kw
