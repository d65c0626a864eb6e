// What a reference (<op>_ref.cc) produces: for chosen rows of each output, in double precision,
//   value  the definition, plain loops, no rounding;
//   plain  the textbook algorithm with the contract's rounding points, rounded to the output's dtype;
//   slack  c * sqrt(K) * 2^-24 * max|x||w| for that element, with c and K as the contract header states.
// A backend's y is right when |y - value| <= 2 |plain - value| + 1 ulp(output dtype, value) + slack.
#pragma once
#include <cstdint>
#include <vector>

#include "tensor.h"

namespace kw {

// Rows of the first output: the flat index over all its dimensions but the last. Of other outputs, what belongs to these rows.
struct RowList {
  const int64_t* index = nullptr;
  int64_t size = 0;
  bool every = true;
  int64_t count(int64_t total) const { return every ? total : size; }
  int64_t row(int64_t i) const { return every ? i : index[i]; }
};

struct ReferenceOutput {
  std::vector<double> value, plain, slack;  // [rows][last dimension]
  int64_t rows = 0, columns = 0;
  // Outputs after the first, for a list of rows: the flat index of each value. Their rows have one column then.
  std::vector<int64_t> element;
  void resize(int64_t r, int64_t c) {
    rows = r, columns = c;
    value.assign(r * c, 0), plain.assign(r * c, 0), slack.assign(r * c, 0);
  }
};

// One entry per output field, in KW_FIELDS order.
using ReferenceOutputs = std::vector<ReferenceOutput>;

}  // namespace kw
