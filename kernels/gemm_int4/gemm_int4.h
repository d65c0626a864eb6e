// Matrix multiply with 4-bit weights: y = act(x Ŵᵀ + bias) + residual, where Ŵ is never stored.
//
//   ŵ[r,i] = code(w[r,i]) * scales[i / group, r]                            group = k / groups
//   code(q) = q - 8, or q - zeros[i / group, r] with zeros                   w is u4
//   code(q) = kNormalFloat4[q], the sixteen quantiles of QLoRA               w is nf4, without zeros
//   s[b,i,r] = sum_p x[b,i,perm[p]] * ŵ[r,p] + bias[r]                       perm[p] = p when absent
//   y[b,i,j] = act(s[b,i,j]) + residual[b,i,j], gated activations as in gemm (rows n .. 2 n - 1 of w are the up rows)
//
// Shapes: x [batch?, m, k], residual and y [batch?, m, n], any strides with the last dimension contiguous;
//   w [rows_w, k], zeros [groups, rows_w], both without gaps; scales [groups, rows_w] with the last dimension contiguous;
//   perm [k] i32, bias [rows_w] contiguous. group is a multiple of 32.
// Dtypes: x one of f32, bf16, f16; scales, bias, residual, y each one of f32, bf16, f16; w u4 or nf4; zeros u4.
//
// Layout of 4-bit elements, version 1: element e of a tensor in row-major order lies in byte e / 2, the even one in the low
// half. A row of w is k / 2 bytes. An operand may also be packed for a backend (core/packed.h), with a version of its own.
//
// perm is activation order (GPTQ's desc_act): the columns of w are sorted so that every group is contiguous, and perm
// says which column of x each one meets. Values outside [0, k) in device memory raise INDEX; in host memory they are
// refused before launch.
//
// Rounding points. accuracy exact: q - zero is an exact small integer; its product with the scale may be rounded once to
// x's dtype, or kept in f32, or the scale applied to the f32 sum of a group. Sums and epilogue in f32, one rounding to y's
// dtype. mode dequant computes ŵ first, rounded once to x's dtype, and multiplies as gemm does.
// accuracy int8 rounds x, for each row and block of `block` neighbours along p (after perm), to eight bits:
//   block = the largest of 128, 64, 32 that divides group,  d = max|x| / 127,  c = d > 0 ? 1 / d : 0 in f32,
//   x̂ = clamp(round_half_even(x * c), -127, 127) * d,   sums of integers exact, everything after in f32.
// A block with NaN or an infinity gives NaN.
// Tolerance (core/reference.h): as gemm with K = k, |ŵ| for |w|, and c = 48: plain rounds ŵ to x's dtype, an error a hundred
// times that of its sum, and where it cancels by chance the order of additions shows, which has a standard error of 5 in
// these units. x is rounded in plain as accuracy says; with int8 and mode fused ŵ stays in f32, since two roundings might
// cancel by chance.
//
// In place: y may be exactly the same view as residual; any other overlap is refused.
//
// Source: Frantar et al. 2022 (GPTQ, arXiv 2210.17323); Lin et al. 2023 (AWQ, 2306.00978); Dettmers et al. 2023 (QLoRA
// and NF4, 2305.14314); Frantar et al. 2024 (Marlin, 2408.11743).
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"
#include "../gemm/gemm.h"

namespace kw {

enum class Int4Mode : int32_t { fused, dequant };
KW_CHOICES(Int4Mode, fused, dequant)

enum class Int4Accuracy : int32_t { exact, int8 };
KW_CHOICES(Int4Accuracy, exact, int8)

struct GemmInt4Args {
  uint64_t size = sizeof(GemmInt4Args);
  ConstTensor x;
  ConstTensor w;
  ConstTensor scales;
  OptionalConstTensor zeros;
  OptionalConstTensor perm;
  OptionalConstTensor bias;
  OptionalConstTensor residual;
  Tensor y;
  Activation activation = Activation::none;
  Int4Mode mode = Int4Mode::fused;
  Int4Accuracy accuracy = Int4Accuracy::exact;
  bool batch_invariant = false;  // a row of y has the same bits whatever m and batch are and however many threads work
};
KW_FIELDS(GemmInt4Args, x, w, scales, zeros, perm, bias, residual, y, activation, mode, accuracy, batch_invariant)

// The sixteen values of NF4: quantiles of the normal distribution, normalised to [-1, 1], zero among them. Not inline: an object
// for one instruction set defines no symbol that others share.
constexpr float kNormalFloat4[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

namespace ref {
void gemm_int4(const GemmInt4Args&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& gemm_int4();
}

}  // namespace kw
