#include "table.h"

#include <dlfcn.h>

#include "definitions.h"

namespace kw {
namespace {

[[noreturn]] void refuse_library(const std::string& path, const std::string& reason) {
  throw Error(Code::LIBRARY, "library: " + path + ": " + reason);
}

// Function tables grow only at their end, so that a size is enough to know what is there.
void check_table(const std::string& path, const kw_table& table) {
  if (table.abi != KW_ABI) {
    refuse_library(path, "speaks abi " + std::to_string(table.abi) + ", expected " + std::to_string(KW_ABI));
  }
  if (table.size < sizeof(kw_table)) {
    refuse_library(path, "its table has " + std::to_string(table.size) + " bytes, expected at least " +
                             std::to_string(sizeof(kw_table)));
  }
  for (uint64_t i = 0; i < table.op_count; ++i) {
    const kw_op& op = *table.ops[i];
    if (op.size < sizeof(kw_op)) {
      refuse_library(path, std::string("its entry for ") + op.name + " has " + std::to_string(op.size) +
                               " bytes, expected at least " + std::to_string(sizeof(kw_op)));
    }
    const Definition* known = find_definition(op.name);
    if (known != nullptr && known->schema.size != op.args_size) {
      refuse_library(path, std::string("its arguments of ") + op.name + " have " + std::to_string(op.args_size) +
                               " bytes, expected " + std::to_string(known->schema.size) +
                               "; it was built from other sources");
    }
  }
}

}  // namespace

const kw_table& open_table(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    refuse_library(path, reason != nullptr ? reason : "cannot be opened");
  }
  const auto table_of = reinterpret_cast<kw_table_fn>(dlsym(handle, KW_CUDA_TABLE));
  if (table_of == nullptr) refuse_library(path, "has no function " KW_CUDA_TABLE ", so it is no library of kernels");
  const kw_table* table = table_of(KW_ABI);
  if (table == nullptr)
    refuse_library(path, "does not speak abi " + std::to_string(KW_ABI) + "; build it again: npm run build:cuda");
  check_table(path, *table);
  return *table;
}

const kw_op* find_op(const kw_table& table, const std::string& name) {
  for (uint64_t i = 0; i < table.op_count; ++i) {
    if (name == table.ops[i]->name) return table.ops[i];
  }
  return nullptr;
}

Code code_of(int32_t status) { return status > 0 && status < kCodeCount ? static_cast<Code>(status) : Code::INTERNAL; }

}  // namespace kw
