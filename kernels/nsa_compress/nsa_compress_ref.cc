// nsa_compress, the definition: plain loops in double precision beside the textbook f32 algorithm. Correct by reading.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../core/numeric.h"
#include "nsa_compress.h"

namespace kw::ref {
namespace {

float element(const TensorView& t, int64_t a, int64_t b, int64_t c) {
  return load_f32(t.data, t.dtype, a * t.stride[t.rank - 3] + b * t.stride[t.rank - 2] + c * t.stride[t.rank - 1]);
}

}  // namespace

void nsa_compress(const NsaCompressArgs& a, const RowList& rows, ReferenceOutputs& out) {
  const int64_t blocks = a.y.shape[1], heads = a.x.shape[2], dim = a.x.shape[3];
  out.resize(1);
  ReferenceOutput& y = out[0];
  y.resize(rows.count(a.x.shape[0] * blocks * heads), dim);
  for (int64_t n = 0; n < y.rows; ++n) {
    const int64_t h = rows.row(n) % heads, window = rows.row(n) / heads % blocks, b = rows.row(n) / heads / blocks;
    int64_t len = a.x.shape[1];
    if (a.lens.present())
      len = std::clamp<int64_t>(static_cast<const int32_t*>(a.lens.data)[b * a.lens.stride[0]], 0, len);
    if (window * a.stride + a.block > len) continue;  // zeros
    for (int64_t c = 0; c < dim; ++c) {
      double sum = 0, largest = 0;
      float plain = 0;
      for (int64_t j = 0; j < a.block; ++j) {
        const int64_t t = window * a.stride + j;
        const float x = load_f32(a.x.data, a.x.dtype,
                                 b * a.x.stride[0] + t * a.x.stride[1] + h * a.x.stride[2] + c * a.x.stride[3]);
        const float p = a.position.present() ? element(a.position, j, a.position.shape[1] > 1 ? h : 0, c) : 0;
        sum += double{x} + double{p}, plain += x + p;
        largest = std::max(largest, std::abs(double{x}) + std::abs(double{p}));
      }
      y.value[n * dim + c] = sum / double(a.block);
      y.plain[n * dim + c] = double{rounded(a.y.dtype, plain * (1 / static_cast<float>(a.block)))};
      y.slack[n * dim + c] = 4 * std::sqrt(double(a.block)) * 0x1p-24 * largest;
    }
  }
}

}  // namespace kw::ref
