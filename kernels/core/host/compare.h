// The one place that decides whether an output is right: the tolerance rule of kernels/core/reference.h.
#pragma once
#include <string>
#include <vector>

#include "../reference.h"
#include "schema.h"

namespace kw {

struct Verdict {
  const char* field = "";
  int64_t elements = 0, failed = 0;
  // |actual - expected| / allowed, where that is largest.
  double worst = 0;
  int64_t row = 0, column = 0;
  double actual = 0, expected = 0, allowed = 0;
  // Over all elements; the cosine of the angle between what came and what should have come, of the finite ones.
  double max_abs = 0, max_rel = 0, cosine = 1;
};

// The outputs in args, which lie in host memory, against the reference of those rows.
std::vector<Verdict> compare_outputs(const Schema& schema, const void* args, const RowList& rows,
                                     const ReferenceOutputs& references);

// Elements that are not the very value of the reference of all rows, rounded once; zeros of either sign are equal.
struct Differences {
  int64_t elements = 0, count = 0;
  int64_t first = 0;  // the first of them
  double actual = 0, expected = 0;
};
Differences differences(const TensorView& view, const ReferenceOutput& reference);

}  // namespace kw
