// Native sparse attention, selection: every query attends to blocks of keys of its own choice, the same for the query heads of a
// group. Blocks that a query does not name are not touched.
//
//   block s of a sequence   keys s block to (s + 1) block - 1;   reach = ceil(len_kv / block) of them
//   p = i + lens_kv[b] - lens_q[b], the place of query i among the keys, so that the last query sees every key
//   visible  = j < lens_kv[b], causal: j <= p, and blocks[b,i,g,:] has j / block before its first -1,  g = h / (heads_q / heads_kv)
//   t[h,i,j] = scale * q[b,i,h,:] . k[b,j,g,:]
//   lse[b,h,i] = ln(sum over visible j of exp(t[h,i,j]))
//   y[b,i,h,:] = sum over visible j of exp(t[h,i,j] - lse[b,h,i]) * v[b,j,g,:]
//   A row that sees no key, and rows of q from lens_q[b] on, give y = 0 and lse = -inf.
// With every block named it is attention_gqa.
//
// Shapes, any strides with the last dimension contiguous:
//   q [batch, len_q, heads_q, dim]      k [batch, len_kv, heads_kv, dim]      v [batch, len_kv, heads_kv, dim_v]
//   blocks [batch, len_q, heads_kv, count], i32: ascending, -1 from some entry on
//   lens_q, lens_kv [batch], i32: without them the sizes of q and k
//   y [batch, len_q, heads_q, dim_v]      lse [batch, heads_q, len_q]
// Dtypes: q, k and v alike, one of f32, bf16, f16; y one of f32, bf16, f16; lse f32. dim and dim_v 1 to 256, block from 1.
//
// What the kernel finds in device memory: a length out of range is taken as the nearest that is in it. An entry of blocks, before the first
// -1, that is not above the one before it and below reach ends its row as -1 does. Either is INDEX, once everything has been computed:
// `nsa_attend: blocks[37, 3] is 9, expected 12 to 63`, where 37 counts rows over batch, query and key head; other rows are as they would be.
// Rows of blocks from lens_q[b] on are not read, nor keys and values past a length or of blocks that no row names.
//
// Rounding points and tolerance are those of attention_gqa.
//
// Work: 2 (dim + dim_v) FLOPs for each head and each pair of a row and a key it sees, at most count block keys a row. A query reads its keys
// once for its group: group FLOPs a byte of bf16 from whatever cache holds them, and k and v once from memory. 64 / 4 heads of 128, 16
// blocks of 64: 1024 keys a row, 33.6 MFLOP and 2.1 MB a token.
//
// Source: Yuan et al. 2025 (arXiv 2502.11089), section 3.3.2; the rest as attention_gqa.
#pragma once
#include "../core/abi.h"
#include "../core/fields.h"
#include "../core/reference.h"
#include "../core/tensor.h"

namespace kw {

struct NsaAttendArgs {
  uint64_t size = sizeof(NsaAttendArgs);
  ConstTensor q;
  ConstTensor k;
  ConstTensor v;
  ConstTensor blocks;
  OptionalConstTensor lens_q;
  OptionalConstTensor lens_kv;
  Tensor y;
  Tensor lse;
  float scale = 0;  // the declaration's default is 1 / sqrt(dim)
  int64_t block = 64;
  bool causal = true;
};
KW_FIELDS(NsaAttendArgs, q, k, v, blocks, lens_q, lens_kv, y, lse, scale, block, causal)

namespace ref {
void nsa_attend(const NsaAttendArgs&, const RowList& rows, ReferenceOutputs& out);
}
namespace cpu {
const kw_op& nsa_attend();
}

}  // namespace kw
