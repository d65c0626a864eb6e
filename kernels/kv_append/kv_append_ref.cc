// kv_append, the definition: the caches as they were, and the rows that have a place in them. Correct by reading.
#include <cstdint>
#include <string>
#include <unordered_map>

#include "../core/error.h"
#include "../core/numeric.h"
#include "../rope/rope_ref.h"
#include "kv_append.h"
#include "kv_append_places.h"

namespace kw::ref {
namespace {

struct Source {
  int64_t b, i, t;
};

float element(const TensorView& t, int64_t i, int64_t j, int64_t h, int64_t c) {
  return load_f32(t.data, t.dtype, i * t.stride[0] + j * t.stride[1] + h * t.stride[2] + c * t.stride[3]);
}

// A row is a page, a slot and a head.
void put(const RowList& rows, const std::unordered_map<int64_t, Source>& sources, const TensorView& from,
         const TensorView& scale, const TensorView& cache, const RopeDefinition& turned, ReferenceOutput& out) {
  const int64_t heads = cache.shape[2], columns = cache.shape[3], slots = cache.shape[1];
  out.resize(rows.count(cache.shape[0] * slots * heads), columns);
  for (int64_t n = 0; n < out.rows; ++n) {
    const int64_t h = rows.row(n) % heads, place = rows.row(n) / heads;
    const auto source = sources.find(place);
    if (source == sources.end()) {
      for (int64_t c = 0; c < columns; ++c)
        out.value[n * columns + c] = out.plain[n * columns + c] =
            double{element(cache, place / slots, place % slots, h, c)};
    } else {
      const auto& [b, i, t] = source->second;
      const float divisor = scale.present() ? load_f32(scale.data, scale.dtype, h * scale.stride[0]) : 1;
      turned.row(
          t, [&, b = b, i = i](int64_t c) { return element(from, b, i, h, c); }, cache.dtype, divisor, n * columns,
          out);
    }
  }
}

}  // namespace

void kv_append(const KvAppendArgs& a, const RowList& rows, ReferenceOutputs& out) {
  std::unordered_map<int64_t, Source> sources;
  const std::string wrong = kv_append_places(a, [&](int64_t b, int64_t i, int64_t t, int64_t place) {
    sources[place] = {b, i, t};
  });
  if (!wrong.empty()) throw Error(Code::INDEX, wrong);
  out.resize(2);
  put(rows, sources, a.k, a.k_scale, a.k_cache, RopeDefinition(a, a.k.shape[3], a.rope), out[0]);
  put(rows, sources, a.v, a.v_scale, a.v_cache, RopeDefinition(a, a.v.shape[3], false), out[1]);
}

}  // namespace kw::ref
