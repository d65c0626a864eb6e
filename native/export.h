// The one boundary: every function that JavaScript can call is made by `exported`, and no C++ exception passes it.
// A kw::Error reaches JavaScript as an instance of the class given to setErrorClass, made with (code name, message).
#pragma once
#include <napi.h>

#include <string>

#include "../kernels/core/error.h"

namespace kw {

// The error object for a failure. Never throws; null only where JavaScript can no longer run.
napi_value make_error(napi_env env, Code code, const std::string& message) noexcept;

// Call in a catch block: throws what is being handled as a JavaScript exception.
void throw_to_javascript(napi_env env) noexcept;

// Runs body and turns whatever it throws into a JavaScript exception; the result of a failed call is null.
template <class Body>
napi_value guard_javascript(napi_env env, Body&& body) noexcept {
  try {
    return body();
  } catch (...) {
    throw_to_javascript(env);
    return nullptr;
  }
}

using Exported = Napi::Value (*)(const Napi::CallbackInfo&);

template <Exported body>
void exported(Napi::Object exports, const char* name) {
  const napi_callback callback = [](napi_env env, napi_callback_info raw) -> napi_value {
    return guard_javascript(env, [&]() -> napi_value { return body(Napi::CallbackInfo(env, raw)); });
  };
  napi_value function;
  const napi_status status = napi_create_function(exports.Env(), name, NAPI_AUTO_LENGTH, callback, nullptr, &function);
  NAPI_THROW_IF_FAILED_VOID(exports.Env(), status);
  exports.Set(name, function);
}

// `<where>: <name> is <received>, expected <expected>`
[[noreturn]] inline void refuse(Code code, const std::string& where, const std::string& name,
                                const std::string& received, const std::string& expected) {
  throw Error(code, where + ": " + name + " is " + received + ", expected " + expected);
}

}  // namespace kw
