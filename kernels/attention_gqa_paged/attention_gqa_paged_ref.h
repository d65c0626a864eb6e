// The definition of attention over a paged cache, for operators that are attention_gqa_paged of something else.
#pragma once
#include "attention_gqa_paged.h"

namespace kw::ref {

// where: the operator that asks, for errors.
void attention_paged(const char* where, const AttentionGqaPagedArgs&, const RowList& rows, ReferenceOutputs& out);

}  // namespace kw::ref
