#include "definitions.h"

#include <algorithm>
#include <iterator>

#include "../../operators.h"

namespace kw {
namespace {

template <class Args, void (*define)(const Args&, const RowList&, ReferenceOutputs&)>
Definition definition(const char* name) {
  return {.name = name,
          .schema = describe<Args>(),
          .define = [](const void* args, const RowList& rows, ReferenceOutputs& outputs) {
            define(*static_cast<const Args*>(args), rows, outputs);
          }};
}

}  // namespace

const std::vector<Definition>& definitions() {
#define KW_DEFINITION(op, Args) definition<Args, ref::op>(#op),
  static const auto* all = new std::vector<Definition>{KW_OPERATORS(KW_DEFINITION)};
#undef KW_DEFINITION
  return *all;
}

const Definition* find_definition(const std::string& name) {
  for (const Definition& definition : definitions()) {
    if (definition.name == name) return &definition;
  }
  return nullptr;
}

std::vector<Field> Definition::outputs() const {
  std::vector<Field> found;
  std::copy_if(schema.fields.begin(), schema.fields.end(), std::back_inserter(found), is_result);
  return found;
}

}  // namespace kw
