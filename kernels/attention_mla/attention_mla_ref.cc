// attention_mla, the definition: attention_gqa_paged with one key head whose values are the first columns of its keys.
#include "../attention_gqa_paged/attention_gqa_paged_ref.h"
#include "attention_mla_shape.h"

namespace kw::ref {

void attention_mla(const AttentionMlaArgs& args, const RowList& rows, ReferenceOutputs& out) {
  attention_paged("attention_mla", paged_of(args), rows, out);
}

}  // namespace kw::ref
