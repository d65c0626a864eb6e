// Where the rows of kv_append stand, from lengths and tables in host memory: for the definition and the CPU.
#pragma once
#include <cstdint>
#include <string>

#include "../core/error.h"
#include "kv_append.h"

namespace kw {

// Calls place(b, i, t, page * page_size + slot) for every row that has a place, in order. Returns what is out of range first, or
// nothing; such requests and rows are left out.
template <class Place>
std::string kv_append_places(const KvAppendArgs& a, Place&& place) {
  const int64_t batch = a.k.shape[0], len = a.k.shape[1], pages = a.k_cache.shape[0], page_size = a.k_cache.shape[1];
  const int64_t entries = a.page_table.shape[1];
  std::string wrong;
  // In range, or noted.
  const auto fits = [&](const char* name, const std::string& index, int64_t value, int64_t high) {
    if (value >= 0 && value <= high) return true;
    if (wrong.empty()) {
      wrong = std::string("kv_append: ") + name + "[" + index + "] is " + std::to_string(value) + ", expected 0 to " +
              std::to_string(high);
    }
    return false;
  };
  const auto at = [](const TensorView& t, int64_t index) { return static_cast<const int32_t*>(t.data)[index]; };
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t given = a.lens_q.present() ? at(a.lens_q, b * a.lens_q.stride[0]) : len;
    const int64_t tokens = at(a.lens_kv, b * a.lens_kv.stride[0]);
    const bool both =
        fits("lens_q", std::to_string(b), given, len) & fits("lens_kv", std::to_string(b), tokens, entries * page_size);
    if (!both) continue;
    for (int64_t i = given > tokens ? given - tokens : 0; i < given; ++i) {
      const int64_t t = i + tokens - given, entry = t / page_size;
      const int64_t page = at(a.page_table, b * a.page_table.stride[0] + entry * a.page_table.stride[1]);
      if (fits("page_table", std::to_string(b) + ", " + std::to_string(entry), page, pages - 1))
        place(b, i, t, page * page_size + t % page_size);
    }
  }
  return wrong;
}

}  // namespace kw
