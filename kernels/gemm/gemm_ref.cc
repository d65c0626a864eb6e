// gemm, the definition: plain loops in double precision beside the textbook f32 algorithm. Correct by reading.
#include <cstdint>
#include <vector>

#include "gemm.h"
#include "gemm_definition.h"

namespace kw::ref {
namespace {

// Row r of w; a packed one where its format says.
void load_row(const GemmArgs& args, const GemmShape& shape, int64_t b, int64_t r, float* to) {
  const GemmOperand& w = shape.w;
  for (int64_t p = 0; p < shape.k; ++p) {
    const int64_t at = w.format ? PackedExtent(args.w).at(r, p) : r * w.row + p * w.column;
    to[p] = load_f32(w.data, w.dtype, b * w.batch + at);
  }
}

}  // namespace

void gemm(const GemmArgs& args, const RowList& rows, ReferenceOutputs& out) {
  const GemmShape shape = resolve(args);
  const int64_t count = rows.count(shape.batch * shape.m);
  out.resize(1);
  out[0].resize(count, shape.n);
  if (count == 0 || shape.n == 0) return;

  std::vector<float> x(count * shape.k), w(shape.k);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t b = rows.row(i) / shape.m, row = rows.row(i) % shape.m;
    for (int64_t p = 0; p < shape.k; ++p) x[i * shape.k + p] = element(shape.x, b, row, p);
  }

  std::vector<Sum> sums(count * shape.rows_w);
  for (int64_t r = 0; r < shape.rows_w; ++r) {
    int64_t loaded = -1;  // the batch whose row r is in w
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = rows.row(i) / shape.m, row = rows.row(i) % shape.m;
      if (b != loaded) {
        load_row(args, shape, b, r, w.data());
        loaded = b;
      }
      const float* row_x = x.data() + i * shape.k;
      const Sum s = dot(row_x, w.data(), row_x, w.data(), shape.k, shape.x.dtype);
      sums[i * shape.rows_w + r] =
          scale_and_shift(args.alpha, args.beta, s, element(shape.c, b, row, r), element(shape.bias, 0, 0, r));
    }
  }

  for (int64_t i = 0; i < count; ++i) {
    const int64_t b = rows.row(i) / shape.m, row = rows.row(i) % shape.m;
    finish_row(shape, args.activation, &sums[i * shape.rows_w], i, b, row, out[0]);
  }
}

}  // namespace kw::ref
