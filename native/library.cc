// Libraries opened in this process, and loadLibrary for JavaScript.
#include "library.h"

#include <napi.h>

#include <algorithm>
#include <bit>
#include <thread>

#include "channel.h"
#include "export.h"
#include "exports.h"

namespace kw {
namespace {

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

Napi::Value prepare_library(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) throw Error(Code::ARGUMENT, "prepareLibrary: path is not a string, expected a file name");
  napi_value result;
  auto promise = std::make_unique<Promise>(Environment::of(env).channel, env, &result);
  std::thread([promise = std::move(promise), path = std::string(info[0].As<Napi::String>())] {
    try {
      int32_t devices = 0;
      Library::open(path).table().device_count(&devices);
    } catch (const Error&) {
      // loadLibrary meets it again and tells the caller.
    }
    promise->resolve();
  }).detach();
  return Napi::Value(env, result);
}

}  // namespace

const Library& Library::open(const std::string& path) {
  static auto* mutex = new std::mutex;
  static auto* opened = new std::map<std::string, std::unique_ptr<Library>>;
  const std::lock_guard lock(*mutex);
  std::unique_ptr<Library>& library = (*opened)[path];
  if (!library) library.reset(new Library(&open_table(path)));
  return *library;
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

std::string Loss::cause() const {
  const std::lock_guard lock(mutex_);
  return cause_;
}

void Loss::happen(const std::string& cause) {
  const std::lock_guard lock(mutex_);
  if (happened()) return;
  cause_ = cause;
  happened_.store(true);
}

Loss& Library::loss(int index) const {
  const std::lock_guard lock(mutex_);
  return losses_[index];
}

void Library::fail(int32_t status) const { throw Error(code_of(status), table_->last_error()); }

void export_library(Napi::Object exports) {
  exported<load_library>(exports, "loadLibrary");
  exported<prepare_library>(exports, "prepareLibrary");
}

}  // namespace kw
