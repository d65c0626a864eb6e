// Devices, what they say about themselves, and their part of the addon's exports.
#include "device.h"

#include <algorithm>
#include <cstdio>
#include <thread>

#include "channel.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "stream.h"

namespace kw {

namespace {

std::string lost_means(const Loss& loss) {
  return "one that works, in a new process; its first error was: " + loss.cause();
}

// Unused blocks that a CPU device keeps: enough for the outputs that eager calls make and drop, little beside the machine.
uint64_t kept_on_cpu() { return cpu::memory_bytes() / 16; }

// What work on a CPU does cannot end the device.
Loss& never() {
  static auto* loss = new Loss;
  return *loss;
}

kw_device_info device_info_of(const Library& library, int index) {
  const kw_table& table = library.table();
  int32_t count = 0;
  library.check(table.device_count(&count));
  if (index < 0 || index >= count) {
    refuse(Code::ARGUMENT, "openDevice", "index", std::to_string(index),
           "a device number below " + std::to_string(count));
  }
  if (library.loss(index).happened()) {
    refuse(Code::DEVICE_LOST, "openDevice", "device", "lost", lost_means(library.loss(index)));
  }
  kw_device_info info = {};
  info.size = sizeof(info);
  library.check(table.device_info(index, &info));
  return info;
}

}  // namespace

Device::Device(std::shared_ptr<ThreadPool> threads, uint64_t memory_limit)
    : loss_(never()), threads_(std::move(threads)), pool_(*this, kept_on_cpu(), memory_limit, false) {
  const cpu::Features& features = cpu::features();
  info_.size = sizeof(info_);
  std::snprintf(info_.name, sizeof(info_.name), "%s", features.model.c_str());
  info_.sm_count = threads_->threads();
  info_.total_bytes = cpu::memory_bytes();
  info_.llc_bytes = features.llc_bytes;
  info_.isa = static_cast<int32_t>(threads_->isa());
}

Device::Device(const Library& library, int index, uint64_t memory_limit)
    : library_(&library),
      index_(index),
      loss_(library.loss(index)),
      info_(device_info_of(library, index)),
      pool_(*this, UINT64_MAX, memory_limit, info_.emulated != 0) {}

void* Device::allocate(uint64_t bytes) {
  if (is_cpu()) return host_allocate(bytes);
  const kw_table& table = library_->table();
  void* data = nullptr;
  const int32_t status = table.alloc(index_, bytes, &data);
  if (code_of(status) == Code::OUT_OF_MEMORY) {
    const std::string reason = table.last_error();
    uint64_t free_bytes = 0, total_bytes = 0;
    const bool known = table.memory_info(index_, &free_bytes, &total_bytes) == 0;
    const std::string left = known ? std::to_string(free_bytes) + ", the bytes free" : std::string("less");
    throw Error(Code::OUT_OF_MEMORY, "alloc: bytes is " + std::to_string(bytes) + ", expected at most " + left +
                                         " on " + name() + " (" + reason + ")");
  }
  check(status);
  return data;
}

// A device that fails to take memory back is lost, and says so at the next call.
void Device::release(void* data, uint64_t bytes) noexcept {
  if (is_cpu()) {
    host_free(data, bytes);
  } else {
    library_->table().free(index_, data);
  }
}

void Device::memory_info(uint64_t* free_bytes, uint64_t* total_bytes) const {
  if (is_cpu()) {
    *free_bytes = cpu::available_bytes();
    *total_bytes = info_.total_bytes;
  } else {
    check(library_->table().memory_info(index_, free_bytes, total_bytes));
  }
}

void Device::check_usable(const char* where) const {
  if (usable()) return;
  if (closing_) refuse(Code::DISPOSED, where, "device", "closed", "an open one");
  refuse(Code::DEVICE_LOST, where, "device", "lost", lost_means(loss_));
}

void Device::fail(int32_t status) const {
  try {
    library_->fail(status);
  } catch (const Error& error) {
    if (error.code == Code::DEVICE_LOST) lose(error.what());
    throw;
  }
}

void Device::add(const std::shared_ptr<Stream>& stream) {
  const std::lock_guard lock(mutex_);
  std::erase_if(streams_, [](const std::weak_ptr<Stream>& held) { return held.expired(); });
  streams_.push_back(stream);
}

void Device::add(Resource* resource) {
  const std::lock_guard lock(mutex_);
  resources_.insert(resource);
}

void Device::remove(Resource* resource) {
  const std::lock_guard lock(mutex_);
  resources_.erase(resource);
}

bool Device::begin_closing(std::vector<std::shared_ptr<Stream>>* streams) {
  const std::lock_guard lock(mutex_);
  if (closing_.exchange(true)) return false;
  for (const std::weak_ptr<Stream>& held : streams_) {
    if (std::shared_ptr<Stream> stream = held.lock()) streams->push_back(std::move(stream));
  }
  return true;
}

void Device::end_closing() {
  // One at a time: disposing of a plan may destroy buffers, which then leave the set by themselves.
  const auto take = [this]() -> Resource* {
    const std::lock_guard lock(mutex_);
    if (resources_.empty()) return nullptr;
    return resources_.extract(resources_.begin()).value();
  };
  while (Resource* resource = take()) resource->dispose();
  pool_.close();
  threads_.reset();
  counted_.reset();
}

namespace {

Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const cpu::Features& features = cpu::features();
  auto isa = Napi::Array::New(env);
  for (int i = 0; i <= static_cast<int>(cpu::best()); ++i) isa.Set(i, cpu::kIsaNames[i]);
  auto flags = Napi::Array::New(env);
  for (const std::string& flag : features.flags) flags.Set(flags.Length(), flag);
  auto result = Napi::Object::New(env);
  result.Set("model", features.model);
  result.Set("cores", cpu::cores());
  result.Set("isa", isa);
  result.Set("flags", flags);
  result.Set("amxWithheld", cpu::amx_withheld());
  result.Set("l2Bytes", static_cast<double>(features.l2_bytes));
  result.Set("llcBytes", static_cast<double>(features.llc_bytes));
  result.Set("memoryBytes", static_cast<double>(cpu::memory_bytes()));
  result.Set("availableBytes", static_cast<double>(cpu::available_bytes()));
  return result;
}

uint64_t memory_limit(const Napi::Object& options) {
  const Napi::Value limit = options.Get("memoryLimit");
  return limit.IsUndefined() ? UINT64_MAX : integer(limit, "openDevice", "memoryLimit", 1, 9007199254740991.0);
}

std::shared_ptr<Device> open_cpu(const Napi::Object& options) {
  const Napi::Value threads = options.Get("threads"), isa = options.Get("isa"), affinity = options.Get("affinity");
  std::vector<int> cpus;
  if (!affinity.IsUndefined()) {
    if (!affinity.IsArray()) refuse(Code::ARGUMENT, "openDevice", "affinity", "not an array", "CPU numbers");
    const auto list = affinity.As<Napi::Array>();
    for (uint32_t i = 0; i < std::min<uint32_t>(list.Length(), 1024); ++i) {
      cpus.push_back(static_cast<int>(integer(list.Get(i), "openDevice", "affinity", 0, 65535)));
    }
  }
  const int usual = cpus.empty() ? cpu::cores() : static_cast<int>(cpus.size());
  const int count =
      threads.IsUndefined() ? usual : static_cast<int>(integer(threads, "openDevice", "threads", 1, 1024));
  if (!isa.IsUndefined() && !isa.IsString()) refuse(Code::ARGUMENT, "openDevice", "isa", "not a string", "a name");
  const cpu::Isa strongest = isa.IsUndefined() ? cpu::best() : cpu::parse(isa.As<Napi::String>());
  return std::make_shared<Device>(ThreadPool::shared(count, strongest, cpus), memory_limit(options));
}

Napi::Value open_device(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject()) refuse(Code::ARGUMENT, "openDevice", "options", "not an object", "one");
  const auto options = info[0].As<Napi::Object>();
  const std::string kind = options.Get("kind").ToString();
  napi_value result;
  if (kind == "cpu") {
    const std::shared_ptr<Device> device = open_cpu(options);
    Promise(Environment::of(env).channel, env, &result).resolve([device](Napi::Env e) {
      return make_handle(e, device);
    });
    return Napi::Value(env, result);
  }
  if (kind != "library") refuse(Code::ARGUMENT, "openDevice", "kind", kind, "cpu or library");
  const Napi::Value path = options.Get("library"), index = options.Get("index");
  if (!path.IsString()) refuse(Code::ARGUMENT, "openDevice", "library", "not a string", "a file name");
  const int number = index.IsUndefined() ? 0 : static_cast<int>(integer(index, "openDevice", "index", 0, 4096));
  const uint64_t limit = memory_limit(options);
  auto promise = std::make_unique<Promise>(Environment::of(env).channel, env, &result);
  std::thread([promise = std::move(promise), file = std::string(path.As<Napi::String>()), number, limit] {
    promise->settle_with([&] {
      const auto device = std::make_shared<Device>(Library::open(file), number, limit);
      return [device](Napi::Env e) { return make_handle(e, device); };
    });
  }).detach();
  return Napi::Value(env, result);
}

Napi::Value device_info(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device> device = get_handle<Device>(info[0], "deviceInfo");
  const kw_device_info& d = device->info();
  auto result = Napi::Object::New(info.Env());
  result.Set("name", d.name);
  result.Set("uuid", d.uuid);
  result.Set("pci", d.pci);
  result.Set("ccMajor", d.cc_major);
  result.Set("ccMinor", d.cc_minor);
  result.Set("smCount", d.sm_count);
  result.Set("emulated", d.emulated != 0);
  result.Set("totalBytes", static_cast<double>(d.total_bytes));
  result.Set("smemBytes", static_cast<double>(d.smem_bytes));
  result.Set("llcBytes", static_cast<double>(d.llc_bytes));
  result.Set("driverVersion", d.driver_version);
  result.Set("runtimeVersion", d.runtime_version);
  result.Set("clockKhz", d.clock_khz);
  result.Set("memoryClockKhz", d.memory_clock_khz);
  result.Set("memoryBusBits", d.memory_bus_bits);
  if (device->is_cpu()) {
    result.Set("isa", cpu::name(static_cast<cpu::Isa>(d.isa)));
    result.Set("threads", d.sm_count);
  }
  return result;
}

Napi::Value memory(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device> device = get_handle<Device>(info[0], "memory");
  device->check_usable("memory");
  const Meter::Reading reading = device->meter.read();
  uint64_t free_bytes = 0, total_bytes = 0;
  device->memory_info(&free_bytes, &total_bytes);
  const Pool::Reading pool = device->pool().read();
  auto result = Napi::Object::New(info.Env());
  result.Set("currentBytes", static_cast<double>(reading.current));
  result.Set("peakBytes", static_cast<double>(reading.peak));
  result.Set("byteSeconds", reading.byte_seconds);
  result.Set("seconds", reading.seconds);
  result.Set("allocations", static_cast<double>(reading.allocations));
  result.Set("reservedBytes", static_cast<double>(pool.reserved));
  result.Set("reservedPeakBytes", static_cast<double>(pool.peak));
  if (pool.limit != UINT64_MAX) result.Set("limitBytes", static_cast<double>(pool.limit));
  result.Set("freeBytes", static_cast<double>(free_bytes));
  result.Set("totalBytes", static_cast<double>(total_bytes));
  return result;
}

// On a thread of its own, as giving memory back may wait for the device.
Napi::Value trim(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device> device = get_handle<Device>(info[0], "trim");
  device->check_usable("trim");
  napi_value result;
  auto promise = std::make_unique<Promise>(Environment::of(info.Env()).channel, info.Env(), &result);
  std::thread([promise = std::move(promise), device] {
    promise->settle_with([&] {
      const auto bytes = static_cast<double>(device->pool().trim());
      return [bytes](Napi::Env env) { return Napi::Number::New(env, bytes); };
    });
  }).detach();
  return Napi::Value(info.Env(), result);
}

// Settles when the last stream has drained; holds the device and the promise until then.
struct Closing {
  std::shared_ptr<Device> device;
  Promise promise;
  Closing(std::shared_ptr<Device> d, std::shared_ptr<Channel> channel, Napi::Env env, napi_value* result)
      : device(std::move(d)), promise(std::move(channel), env, result) {}
  ~Closing() {
    promise.resolve([device = device](Napi::Env env) {
      device->end_closing();
      return env.Undefined();
    });
  }
};

Napi::Value close_device(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Device> device = get_handle<Device>(info[0], "closeDevice");
  std::vector<std::shared_ptr<Stream>> streams;
  if (!device->begin_closing(&streams)) refuse(Code::DISPOSED, "closeDevice", "device", "closed", "an open one");
  napi_value result;
  const auto closing = std::make_shared<Closing>(device, Environment::of(info.Env()).channel, info.Env(), &result);
  for (const std::shared_ptr<Stream>& stream : streams) stream->close(once([closing] {}));
  return Napi::Value(info.Env(), result);
}

}  // namespace

void export_device(Napi::Object exports) {
  exported<cpu_info>(exports, "cpu");
  exported<open_device>(exports, "openDevice");
  exported<device_info>(exports, "deviceInfo");
  exported<memory>(exports, "memory");
  exported<trim>(exports, "trim");
  exported<close_device>(exports, "closeDevice");
}

}  // namespace kw
