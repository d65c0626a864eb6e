// Every operator's arguments and its definition in double precision (<op>_ref.cc), whatever it computes.
#pragma once
#include <string>
#include <vector>

#include "../reference.h"
#include "schema.h"

namespace kw {

struct Definition {
  std::string name;
  Schema schema;
  void (*define)(const void* args, const RowList& rows, ReferenceOutputs& outputs);

  // Its output fields, those updated in place among them, in order.
  std::vector<Field> outputs() const;
};

// In the order of kernels/operators.h.
const std::vector<Definition>& definitions();
// Null when there is none of that name.
const Definition* find_definition(const std::string& name);

}  // namespace kw
