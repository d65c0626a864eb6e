// rope, the definition: plain loops in double precision beside the textbook f32 algorithm. Correct by reading.
#include "rope_ref.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace kw::ref {
namespace {

float element(const TensorView& t, int64_t b, int64_t i, int64_t h, int64_t c) {
  return load_f32(t.data, t.dtype, b * t.stride[0] + i * t.stride[1] + h * t.stride[2] + c * t.stride[3]);
}

}  // namespace

void rope(const RopeArgs& a, const RowList& rows, ReferenceOutputs& out) {
  const int64_t len = a.x.shape[1], heads = a.x.shape[2], dim = a.x.shape[3];
  const RopeDefinition definition(a, dim);
  out.resize(1);
  ReferenceOutput& y = out[0];
  y.resize(rows.count(a.x.shape[0] * len * heads), dim);
  for (int64_t n = 0; n < y.rows; ++n) {
    const int64_t h = rows.row(n) % heads, i = rows.row(n) / heads % len, b = rows.row(n) / heads / len;
    const int64_t p =
        a.positions.present()
            ? static_cast<const int32_t*>(a.positions.data)[b * a.positions.stride[0] + i * a.positions.stride[1]]
            : a.position + i;
    definition.row(
        p, [&](int64_t c) { return element(a.x, b, i, h, c); }, a.y.dtype, 1, n * dim, y);
  }
}

}  // namespace kw::ref
