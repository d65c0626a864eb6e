// gemm_int4, the definition: plain loops in double precision beside the textbook algorithm. Correct by reading.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../gemm/gemm_definition.h"
#include "gemm_int4.h"
#include "gemm_int4_shape.h"

namespace kw::ref {
namespace {

// x rounded to int8 in blocks, as the contract says.
void round_blocks(const float* x, float* to, int64_t k, int64_t block) {
  for (int64_t start = 0; start < k; start += block) {
    float largest = 0;
    bool finite = true;
    for (int64_t p = start; p < start + block; ++p) {
      largest = std::max(largest, std::abs(x[p]));
      finite = finite && std::isfinite(x[p]);
    }
    const float d = largest / 127, c = d > 0 ? 1 / d : 0;
    for (int64_t p = start; p < start + block; ++p)
      to[p] = finite ? std::clamp(std::nearbyint(x[p] * c), -127.0f, 127.0f) * d : NAN;
  }
}

}  // namespace

void gemm_int4(const GemmInt4Args& args, const RowList& rows, ReferenceOutputs& out) {
  const GemmInt4Shape shape = resolve(args);
  check_perm(shape);
  const GemmShape& g = shape.gemm;
  const int64_t count = rows.count(g.batch * g.m), k = g.k;
  out.resize(1);
  out[0].resize(count, g.n);
  if (count == 0 || g.n == 0) return;

  const auto* perm = static_cast<const int32_t*>(shape.perm);
  std::vector<float> x(count * k), x_plain(count * k), w_plain(k);
  std::vector<double> w(k);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t b = rows.row(i) / g.m, row = rows.row(i) % g.m;
    for (int64_t p = 0; p < k; ++p) x[i * k + p] = element(g.x, b, row, perm ? perm[p] : p);
  }
  if (args.accuracy == Int4Accuracy::int8) {
    for (int64_t i = 0; i < count; ++i) round_blocks(x.data() + i * k, x_plain.data() + i * k, k, shape.block);
  } else {
    x_plain = x;
  }

  const bool whole = args.accuracy == Int4Accuracy::int8 && args.mode == Int4Mode::fused;  // ŵ is never rounded
  std::vector<Sum> sums(count * g.rows_w);
  for (int64_t r = 0; r < g.rows_w; ++r) {
    for (int64_t p = 0; p < k; ++p) {
      w[p] = double{shape.code(r, p)} * double{shape.scale(r, p)};
      const float product = shape.code(r, p) * shape.scale(r, p);
      w_plain[p] = whole ? product : rounded(g.x.dtype, product);
    }
    for (int64_t i = 0; i < count; ++i) {
      const Sum s = dot(&x[i * k], w.data(), &x_plain[i * k], w_plain.data(), k, g.x.dtype, 48);
      sums[i * g.rows_w + r] = scale_and_shift(1, 0, s, 0, element(g.bias, 0, 0, r));
    }
  }
  for (int64_t i = 0; i < count; ++i)
    finish_row(g, args.activation, &sums[i * g.rows_w], i, rows.row(i) / g.m, rows.row(i) % g.m, out[0]);
}

}  // namespace kw::ref
