// Native sparse attention, compression: every window of neighbouring tokens becomes one key, or one value, their mean.
//
//   u[b,t,j,h,:] = x[b,t,h,:] + position[j,h,:]     position: of a token within its window, where given
//   y[b,c,h,:]   = 1 / block * sum over j < block of u[b, c stride + j, j, h, :]      c < blocks = floor((len - block) / stride) + 1
//   lens[b], without lens the size of x, are the tokens of a sequence: windows that end past it are 0. blocks is 0 where len < block.
//
// Shapes, any strides with the last dimension contiguous:
//   x [batch, len, heads, dim]      position [block, heads, dim], heads may be 1      lens [batch], i32      y [batch, blocks, heads, dim]
// Dtypes: x, position and y each one of f32, bf16, f16. block from 1, stride 1 to block.
// A length beyond 0 to the size of x is taken as the nearest that is in it, and is INDEX once all has been computed. Tokens past a
// length are never read.
//
// Rounding points: sums in f32, one product with 1 / block in f32, one rounding to y's dtype.
// Tolerance (core/reference.h): c = 4, K = block, and max|u| in place of max|x||w|.
//
// Work: an addition for each element of a window, two with positions. Bytes are x and y once: neighbouring windows share tokens, so it runs
// at the speed of memory if each token is read once, and of a cache if every window reads its own: block / stride times as much.
//
// Source: Yuan et al. 2025 (arXiv 2502.11089), section 3.3.1, with a mean in the place of a learned map.
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"

namespace kw {

struct NsaCompressArgs {
  uint64_t size = sizeof(NsaCompressArgs);
  ConstTensor x;
  OptionalConstTensor position;
  OptionalConstTensor lens;
  Tensor y;
  int64_t block = 32;
  int64_t stride = 16;
};
KW_FIELDS(NsaCompressArgs, x, position, lens, y, block, stride)

namespace ref {
void nsa_compress(const NsaCompressArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& nsa_compress();
}

}  // namespace kw
