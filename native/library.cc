// Opening a library and checking that it speaks this abi, and loadLibrary for JavaScript.
#include "library.h"

#include <dlfcn.h>
#include <napi.h>

#include <algorithm>
#include <bit>

#include "export.h"
#include "exports.h"
#include "ops.h"

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
    const Operator* known = find_operator(op.name);
    if (known != nullptr && known->schema.size != op.args_size) {
      refuse_library(path, std::string("its arguments of ") + op.name + " have " + std::to_string(op.args_size) +
                               " bytes, expected " + std::to_string(known->schema.size) +
                               "; it was built from other sources");
    }
  }
}

const kw_table* load(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    refuse_library(path, reason != nullptr ? reason : "cannot be opened");
  }
  const auto table_of = reinterpret_cast<kw_table_fn>(dlsym(handle, KW_CUDA_TABLE));
  if (table_of == nullptr) refuse_library(path, "has no function " KW_CUDA_TABLE ", so it is no library of kernels");
  const kw_table* table = table_of(KW_ABI);
  if (table == nullptr) refuse_library(path, "does not speak abi " + std::to_string(KW_ABI));
  check_table(path, *table);
  return table;
}

Napi::Value load_library(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) throw Error(Code::ARGUMENT, "loadLibrary: path is not a string, expected a file name");
  const kw_table& table = Library::open(info[0].As<Napi::String>()).table();
  int32_t devices = 0;
  std::string reason;
  if (table.device_count(&devices) != 0) {
    devices = 0;
    reason = table.last_error();
  } else if (devices == 0) {
    reason = "no device found";
  }
  auto ops = Napi::Array::New(env, table.op_count);
  for (uint64_t i = 0; i < table.op_count; ++i) ops.Set(static_cast<uint32_t>(i), table.ops[i]->name);
  auto result = Napi::Object::New(env);
  result.Set("abi", table.abi);
  result.Set("build", table.build);
  result.Set("ops", ops);
  result.Set("deviceCount", devices);
  result.Set("reason", reason);
  return result;
}

}  // namespace

const Library& Library::open(const std::string& path) {
  static auto* mutex = new std::mutex;
  static auto* opened = new std::map<std::string, std::unique_ptr<Library>>;
  const std::lock_guard lock(*mutex);
  std::unique_ptr<Library>& library = (*opened)[path];
  if (!library) library.reset(new Library(load(path)));
  return *library;
}

const kw_op* Library::find(const std::string& op) const {
  for (uint64_t i = 0; i < table_->op_count; ++i) {
    if (op == table_->ops[i]->name) return table_->ops[i];
  }
  return nullptr;
}

std::shared_ptr<void> Library::staging(uint64_t bytes) const {
  const uint64_t size = std::bit_ceil(std::max<uint64_t>(bytes, 64 << 10));
  const auto give_back = [this, size](void* block) {
    const std::lock_guard lock(mutex_);
    free_staging_[size].push_back(block);
  };
  {
    const std::lock_guard lock(mutex_);
    std::vector<void*>& blocks = free_staging_[size];
    if (!blocks.empty()) {
      void* block = blocks.back();
      blocks.pop_back();
      return {block, give_back};
    }
  }
  void* block = nullptr;
  check(table_->host_alloc(size, &block));
  return {block, give_back};
}

void Library::fail(int32_t status) const { throw Error(code_of(status), table_->last_error()); }

Code code_of(int32_t status) { return status > 0 && status < kCodeCount ? static_cast<Code>(status) : Code::INTERNAL; }

void export_library(Napi::Object exports) { exported<load_library>(exports, "loadLibrary"); }

}  // namespace kw
