// The addon's entry: what it exports, and the data of the environment it was loaded in.
#include <napi.h>

#include "../kernels/core/abi.h"
#include "../kernels/core/error.h"
#include "../kernels/core/tensor.h"
#include "channel.h"
#include "counters.h"
#include "export.h"
#include "exports.h"

namespace kw {
namespace {

template <size_t n>
Napi::Array names(Napi::Env env, const char* const (&list)[n]) {
  auto result = Napi::Array::New(env, n);
  for (uint32_t i = 0; i < n; ++i) result.Set(i, list[i]);
  return result;
}

// setErrorClass(KernwattError): errors from here on are made with new KernwattError(code name, message).
Napi::Value set_error_class(const Napi::CallbackInfo& info) {
  if (!info[0].IsFunction()) refuse(Code::ARGUMENT, "setErrorClass", "class", "not a function", "a class");
  Environment::of(info.Env()).error_class = Napi::Persistent(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

Napi::Value read_counters(const Napi::CallbackInfo& info) {
  auto result = Napi::Object::New(info.Env());
  const auto set = [&](const char* name, const std::atomic<int64_t>& value) {
    result.Set(name, static_cast<double>(value.load()));
  };
  set("devices", counters.devices);
  set("streams", counters.streams);
  set("buffers", counters.buffers);
  set("bytes", counters.bytes);
  set("plans", counters.plans);
  set("pending", counters.pending);
  set("hostBuffers", counters.host_buffers);
  return result;
}

napi_value nothing(napi_env, napi_callback_info) { return nullptr; }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Environment(env));
  exports.Set("abi", KW_ABI);
  exports.Set("napi", NAPI_VERSION);
  exports.Set("dtypes", names(env, kDTypeNames));
  exports.Set("codes", names(env, kCodeNames));
  export_ops(exports);
  export_library(exports);
  export_device(exports);
  export_stream(exports);
  export_buffer(exports);
  export_host_memory(exports);
  export_transfer(exports);
  export_format(exports);
  export_fill(exports);
  export_quantize(exports);
  export_plan(exports);
  export_check(exports);
  export_sample(exports);
  export_meter(exports);
  export_nvml(exports);
  exported<set_error_class>(exports, "setErrorClass");
  exported<read_counters>(exports, "counters");
  napi_value function;
  const napi_status status = napi_create_function(env, "nothing", NAPI_AUTO_LENGTH, nothing, nullptr, &function);
  NAPI_THROW_IF_FAILED(env, status, exports);
  exports.Set("nothing", function);
  return exports;
}

}  // namespace
}  // namespace kw

static Napi::Object init(Napi::Env env, Napi::Object exports) { return kw::init(env, exports); }
NODE_API_MODULE(kernwatt, init)
