// NsaAttendArgs on the host: the lengths that count, and the rows of blocks as far as they hold.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "nsa_attend.h"

namespace kw {

// A row of blocks: the entries that count, and the value that ended them where it should not have.
struct SelectedRow {
  int64_t count = 0;
  bool wrong = false;
  int64_t value = 0, low = 0, high = 0;  // of entry `count`, where wrong
};

inline SelectedRow selected_row(const TensorView& blocks, int64_t b, int64_t i, int64_t g, int64_t reach) {
  const int32_t* row =
      static_cast<const int32_t*>(blocks.data) + b * blocks.stride[0] + i * blocks.stride[1] + g * blocks.stride[2];
  SelectedRow r;
  for (int64_t low = 0; r.count < blocks.shape[3]; ++r.count) {
    const int64_t value = row[r.count * blocks.stride[3]];
    if (value == -1) break;
    if (value < low || value >= reach) {
      r.wrong = true, r.value = value;
      r.low = low < reach ? low : -1, r.high = low < reach ? reach - 1 : -1;
      break;
    }
    low = value + 1;
  }
  return r;
}

inline std::string selected_wrong(const TensorView& blocks, int64_t b, int64_t i, int64_t g, const SelectedRow& r) {
  const int64_t row = (b * blocks.shape[1] + i) * blocks.shape[2] + g;
  return "nsa_attend: blocks[" + std::to_string(row) + ", " + std::to_string(r.count) + "] is " +
         std::to_string(r.value) + ", expected " + std::to_string(r.low) + " to " + std::to_string(r.high);
}

// The lengths as they count; wrong: the contract's INDEX of the first that is out of range, empty when none is.
struct NsaAttendLengths {
  std::vector<int64_t> q, kv;
  std::string wrong;

  explicit NsaAttendLengths(const NsaAttendArgs& a) {
    const auto read = [&](const TensorView& t, const char* name, int64_t b, int64_t most) {
      if (!t.present()) return most;
      const int64_t given = static_cast<const int32_t*>(t.data)[b * t.stride[0]];
      if (wrong.empty() && (given < 0 || given > most)) {
        wrong = std::string("nsa_attend: ") + name + "[" + std::to_string(b) + "] is " + std::to_string(given) +
                ", expected 0 to " + std::to_string(most);
      }
      return std::clamp<int64_t>(given, 0, most);
    };
    for (int64_t b = 0; b < a.q.shape[0]; ++b) {
      q.push_back(read(a.lens_q, "lens_q", b, a.q.shape[1]));
      kv.push_back(read(a.lens_kv, "lens_kv", b, a.k.shape[1]));
    }
  }
  // Keys that query i of a batch sees where it names all blocks: the first so many.
  int64_t visible(const NsaAttendArgs& a, int64_t b, int64_t i) const {
    if (i >= q[b]) return 0;
    return a.causal ? std::clamp<int64_t>(i + kv[b] - q[b] + 1, 0, kv[b]) : kv[b];
  }
};

inline int64_t selected_reach(const NsaAttendArgs& a) { return (a.k.shape[1] + a.block - 1) / a.block; }

}  // namespace kw
