// General matrix multiply with a fused epilogue: y = act(alpha * x Wᵀ + beta * c + bias) + residual.
//
//   s[b,i,r] = alpha * sum_k x[b,i,k] * w[b,r,k] + beta * c[b,i,r] + bias[r]          r < rows_w
//   y[b,i,j] = act(s[b,i,j])                    + residual[b,i,j]   rows_w = n         (none, relu, gelu_*, silu)
//   y[b,i,j] = gate(s[b,i,j]) * s[b,i,n + j]    + residual[b,i,j]   rows_w = 2 n       (swiglu, geglu_*)
//
// Shapes, any strides with the last dimension contiguous; every batch dimension is optional and broadcasts when absent or 1:
//   x [batch, m, k] ([batch, k, m] with trans_x)      w [batch, rows_w, k] ([batch, k, rows_w] with trans_w)
//   c [batch, m, rows_w]      bias [rows_w]      residual, y [batch, m, n]
// Dtypes: x and w alike, one of f32, bf16, f16; y, c, bias, residual each one of f32, bf16, f16.
//
// Rounding points: products and sums in f32 (bf16 and f16 products are exact in f32), the epilogue in f32, one rounding to
// y's dtype at the end. gelu_erf is x Φ(x); gelu_tanh is 0.5 x (1 + tanh(√(2/π)(x + 0.044715 x³))); silu is x σ(x).
// relu and the gates keep NaN. With k = 0 the sum is 0 and the epilogue still runs.
// Tolerance (core/reference.h): K = k, c = 16; chains of 256 f32 additions over 4096 uniform products have a standard
// error of a tenth of that, while one product too few is a thousand times more. The slack follows the formula:
//   s:            |alpha| 16 √k 2^-24 max|x||w|, and for the epilogue 4·2^-24 (|alpha Σ| + |beta c| + |bias|) more;
//   act(s):       1.13 times that (the steepest slope there is) + 4·2^-24 |s|; unchanged for none and relu;
//   gate(s) · s': the slack of each factor times the other;
//   y:            + 2·2^-24 (|act| + |residual|).
// The textbook result counts as it is before or after its last rounding, whichever is farther from the exact one.
// bf16 denormals may count as 0 (vdpbf16ps, tdpbf16ps): with bf16 inputs the sum has k 2^-126 (1 + max|x| + max|w|) more.
// As in BLAS, alpha = 0 means that x and w are not read and beta = 0 that c is not: their NaN and infinity do not
// spread.
// In place: y may be exactly the same view as c (not with a gated activation) or as residual; any other overlap is refused.
//
// Source: BLAS level 3 (Dongarra et al. 1990); gated units: Shazeer 2020 (arXiv 2002.05202); GELU: arXiv 1606.08415.
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"

namespace kw {

enum class Activation : int32_t { none, relu, gelu_erf, gelu_tanh, silu, swiglu, geglu_erf, geglu_tanh };
KW_CHOICES(Activation, none, relu, gelu_erf, gelu_tanh, silu, swiglu, geglu_erf, geglu_tanh)

constexpr bool is_gated(Activation a) { return a >= Activation::swiglu; }

struct GemmArgs {
  uint64_t size = sizeof(GemmArgs);
  ConstTensor x;
  ConstTensor w;
  OptionalConstTensor c;
  OptionalConstTensor bias;
  OptionalConstTensor residual;
  Tensor y;
  float alpha = 1;
  float beta = 0;
  Activation activation = Activation::none;
  bool trans_x = false;
  bool trans_w = false;
  bool batch_invariant = false;  // a row of y has the same bits whatever m and batch are and however many threads work
};
KW_FIELDS(GemmArgs, x, w, c, bias, residual, y, alpha, beta, activation, trans_x, trans_w, batch_invariant)

namespace ref {
void gemm(const GemmArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& gemm();  // plain C++ and AVX2, AVX-512, AVX-512 BF16, AMX micro-kernels, chosen at run time
}

}  // namespace kw
