// Host buffers: hostBuffer and detach for JavaScript, and where transfers look whether an array lies in one.
#include "host_memory.h"

#include <napi.h>

#include <atomic>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "channel.h"
#include "device.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "memory.h"

namespace kw {
namespace {

// Every live block by its address.
struct Blocks {
  std::atomic<int> count{0};  // so that a process without any pays nothing
  std::mutex mutex;
  std::map<uintptr_t, std::weak_ptr<HostMemory>> by_address;

  static Blocks& all() {
    static auto* blocks = new Blocks;
    return *blocks;
  }
};

uintptr_t address(const void* data) { return reinterpret_cast<uintptr_t>(data); }

}  // namespace

HostMemory::HostMemory(const Library* library, uint64_t bytes) : library_(library), bytes_(bytes) {
  if (library == nullptr) {
    data_ = host_allocate(bytes);
  } else {
    check_host_memory(bytes);
    library->check(library->table().host_alloc(bytes, &data_));
  }
}

std::shared_ptr<HostMemory> HostMemory::create(const Library* library, uint64_t bytes) {
  const std::shared_ptr<HostMemory> memory(new HostMemory(library, bytes));
  Blocks& blocks = Blocks::all();
  const std::lock_guard lock(blocks.mutex);
  blocks.by_address[address(memory->data())] = memory;
  ++blocks.count;
  counters.host_buffers.fetch_add(1, std::memory_order_relaxed);
  return memory;
}

HostMemory::~HostMemory() {
  if (data_ == nullptr) return;  // the constructor threw
  {
    Blocks& blocks = Blocks::all();
    const std::lock_guard lock(blocks.mutex);
    if (blocks.by_address.erase(address(data_)) != 0) --blocks.count;
  }
  counters.host_buffers.fetch_sub(1, std::memory_order_relaxed);
  if (library_ == nullptr) {
    host_free(data_, bytes_);
    return;
  }
  // Unlocking may wait for the device, and this may be the JavaScript thread.
  const auto release = [library = library_, data = data_] { library->table().host_free(data); };
  try {
    std::thread(release).detach();
  } catch (const std::system_error&) {
    release();
  }
}

std::shared_ptr<HostMemory> HostMemory::find(const void* data, uint64_t bytes) {
  Blocks& blocks = Blocks::all();
  if (blocks.count.load(std::memory_order_relaxed) == 0) return nullptr;
  const std::lock_guard lock(blocks.mutex);
  auto after = blocks.by_address.upper_bound(address(data));
  if (after == blocks.by_address.begin()) return nullptr;
  std::shared_ptr<HostMemory> memory = (--after)->second.lock();
  if (!memory || address(data) + bytes > address(memory->data()) + memory->bytes()) return nullptr;
  return memory;
}

namespace {

Napi::Value array_buffer(Napi::Env env, const std::shared_ptr<HostMemory>& memory) {
  auto held = std::make_unique<std::shared_ptr<HostMemory>>(memory);
  const auto gone = [](napi_env, void*, void* hint) { delete static_cast<std::shared_ptr<HostMemory>*>(hint); };
  napi_value buffer;
  const napi_status status =
      napi_create_external_arraybuffer(env, memory->data(), memory->bytes(), gone, held.get(), &buffer);
  if (status == napi_no_external_buffers_allowed) {
    refuse(Code::UNSUPPORTED, "hostBuffer", "runtime", "one that forbids ArrayBuffers over memory of others",
           "Node; write and read with ordinary arrays here");
  }
  NAPI_THROW_IF_FAILED(env, status, Napi::Value());
  held.release();
  return Napi::Value(env, buffer);
}

Napi::Value host_buffer(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device> device = get_handle<Device>(info[0], "hostBuffer");
  device->check_usable("hostBuffer");
  const uint64_t bytes = integer(info[1], "hostBuffer", "bytes", 1, 9007199254740991.0);
  napi_value result;
  auto promise = std::make_unique<Promise>(Environment::of(info.Env()).channel, info.Env(), &result);
  std::thread([promise = std::move(promise), device, bytes] {
    promise->settle_with([&] {
      const auto memory = HostMemory::create(device->is_cpu() ? nullptr : &device->library(), bytes);
      return [memory](Napi::Env env) { return array_buffer(env, memory); };
    });
  }).detach();
  return Napi::Value(info.Env(), result);
}

Napi::Value detach(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) refuse(Code::ARGUMENT, "detach", "buffer", "no ArrayBuffer", "one");
  const napi_status status = napi_detach_arraybuffer(info.Env(), info[0]);
  NAPI_THROW_IF_FAILED(info.Env(), status, Napi::Value());
  return info.Env().Undefined();
}

}  // namespace

void export_host_memory(Napi::Object exports) {
  exported<host_buffer>(exports, "hostBuffer");
  exported<detach>(exports, "detach");
}

}  // namespace kw
