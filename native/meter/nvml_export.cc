// NVML for JavaScript: nvmlOpen and nvmlAsk, each on a thread of ours as a promise, or at once on the caller's. That a driver has no
// answer is an answer too, `{ state, status, function, message }`; src/nvml/ makes an error of it.
#include <map>
#include <mutex>

#include "../channel.h"
#include "../exports.h"
#include "../handle.h"
#include "../queue.h"
#include "nvml_query.h"

namespace kw {

template <>
struct HandleKind<Nvml> {
  static constexpr const char* name = "library";
  static constexpr napi_type_tag tag = {0x6b77617474000005, 0x83d1f60a2bc97e45};
};
template <>
struct HandleKind<NvmlDevice> {
  static constexpr const char* name = "device";
  static constexpr napi_type_tag tag = {0x6b77617474000006, 0x5e20c9b7148fad36};
};
template <>
struct HandleKind<GpmSample> {
  static constexpr const char* name = "sample";
  static constexpr napi_type_tag tag = {0x6b77617474000007, 0xc46b3e98f0d7125a};
};

namespace {

// Of what lives as long as the process.
template <class T>
Napi::Value immortal(Napi::Env env, T& object) {
  return make_handle(env, std::shared_ptr<T>(std::shared_ptr<void>(), &object));
}

Napi::Value to_javascript(Napi::Env env, const NvmlValue& value);

struct ToJavascript {
  Napi::Env env;

  Napi::Value operator()(std::nullptr_t) const { return env.Null(); }
  Napi::Value operator()(bool value) const { return Napi::Boolean::New(env, value); }
  Napi::Value operator()(double value) const { return Napi::Number::New(env, value); }
  Napi::Value operator()(const std::string& value) const { return Napi::String::New(env, value); }
  Napi::Value operator()(NvmlDevice* device) const { return immortal(env, *device); }
  Napi::Value operator()(const std::shared_ptr<GpmSample>& sample) const { return make_handle(env, sample); }
  Napi::Value operator()(const NvmlValue::List& list) const {
    auto array = Napi::Array::New(env, list.size());
    for (uint32_t i = 0; i < list.size(); ++i) array.Set(i, to_javascript(env, list[i]));
    return array;
  }
  Napi::Value operator()(const NvmlValue::Record& record) const {
    auto object = Napi::Object::New(env);
    for (const auto& [name, value] : record) object.Set(name, to_javascript(env, value));
    return object;
  }
};

Napi::Value to_javascript(Napi::Env env, const NvmlValue& value) { return std::visit(ToJavascript{env}, value.held); }

// What asking came to.
using Outcome = std::function<Napi::Object(Napi::Env)>;

Outcome failed(const NvmlError& error) {
  return [error](Napi::Env env) {
    auto object = Napi::Object::New(env);
    object.Set("state", kNvmlStateNames[static_cast<int>(error.state)]);
    object.Set("status", error.status);
    object.Set("function", error.function);
    object.Set("message", error.what());
    return object;
  };
}

Outcome open(const std::string& path) {
  try {
    Nvml& nvml = Nvml::open(path);
    return [&nvml](Napi::Env env) {
      auto object = Napi::Object::New(env);
      object.Set("state", "ok");
      object.Set("library", immortal(env, nvml));
      object.Set("path", nvml.path);
      return object;
    };
  } catch (const NvmlError& error) {
    return failed(error);
  }
}

Outcome ask(const std::string& name, const NvmlQuestion& question) {
  try {
    return [answer = nvml_ask(name.c_str(), question)](Napi::Env env) {
      auto object = Napi::Object::New(env);
      object.Set("state", "ok");
      object.Set("function", answer.function);
      object.Set("value", to_javascript(env, answer.value));
      return object;
    };
  } catch (const NvmlError& error) {
    return failed(error);
  }
}

// One thread for each GPU that is asked, so that one that hangs keeps no other waiting, and one for the driver as a whole (null).
// They live as long as the process.
Queue& queue_of(const NvmlDevice* device) {
  static auto* mutex = new std::mutex;
  static auto* queues = new std::map<const NvmlDevice*, std::unique_ptr<Queue>>;
  const std::lock_guard lock(*mutex);
  std::unique_ptr<Queue>& queue = (*queues)[device];
  if (!queue) queue = std::make_unique<Queue>("kw-nvml");
  return *queue;
}

// body() at once, or by a promise on the device's thread.
template <class Body>
Napi::Value run(Napi::Env env, bool blocking, const NvmlDevice* device, Body body) {
  if (blocking) return body()(env);
  napi_value result;
  const std::shared_ptr<Channel> channel = Environment::of(env).channel;
  auto promise = std::make_unique<Promise>(channel, env, &result);
  queue_of(device).push(once([channel, promise = std::move(promise), body = std::move(body)] {
    if (channel->closing()) return promise->resolve();  // by nobody received
    promise->settle_with(body);
  }));
  return Napi::Value(env, result);
}

// nvmlOpen(path, blocking)
Napi::Value nvml_open(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) refuse(Code::ARGUMENT, "nvmlOpen", "path", "not a string", "a file name or an empty string");
  const bool blocking = info[1].ToBoolean();
  return run(info.Env(), blocking, nullptr, [path = std::string(info[0].As<Napi::String>())] { return open(path); });
}

std::vector<NvmlArgument> read_arguments(const Napi::Value& given) {
  if (!given.IsArray()) refuse(Code::ARGUMENT, "nvmlAsk", "arguments", "not an array", "one");
  const auto list = given.As<Napi::Array>();
  std::vector<NvmlArgument> arguments;
  for (uint32_t i = 0; i < std::min<uint32_t>(list.Length(), 1024); ++i) {
    const Napi::Value value = list.Get(i);
    if (value.IsNumber()) {
      arguments.emplace_back(value.As<Napi::Number>().DoubleValue());
    } else if (value.IsString()) {
      arguments.emplace_back(std::string(value.As<Napi::String>()));
    } else {
      arguments.emplace_back(get_handle<GpmSample>(value, "nvmlAsk"));
    }
  }
  return arguments;
}

// nvmlAsk(library, device or null, query, arguments, blocking)
Napi::Value nvml_ask_javascript(const Napi::CallbackInfo& info) {
  Nvml& nvml = *get_handle<Nvml>(info[0], "nvmlAsk");
  const NvmlDevice* device = info[1].IsNull() ? nullptr : get_handle<NvmlDevice>(info[1], "nvmlAsk").get();
  if (!info[2].IsString()) refuse(Code::ARGUMENT, "nvmlAsk", "query", "not a string", "a name");
  const bool blocking = info[4].ToBoolean();
  return run(info.Env(), blocking, device,
             [name = std::string(info[2].As<Napi::String>()),
              question = NvmlQuestion{nvml, device, read_arguments(info[3])}] { return ask(name, question); });
}

}  // namespace

void export_nvml(Napi::Object exports) {
  exported<nvml_open>(exports, "nvmlOpen");
  exported<nvml_ask_javascript>(exports, "nvmlAsk");
}

}  // namespace kw
