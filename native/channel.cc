// Channel, Promise, Environment and the error objects they make.
#include "channel.h"

#include <new>
#include <utility>

#include "counters.h"
#include "export.h"

namespace kw {

Channel::Channel(napi_env env) : env_(env) {
  const Napi::Env napi(env);
  const Napi::String name = Napi::String::New(napi, "kernwatt");
  napi_status status = napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this,
                                                       &Channel::on_call, &function_);
  NAPI_THROW_IF_FAILED_VOID(napi, status);
  status = napi_unref_threadsafe_function(env, function_);
  NAPI_THROW_IF_FAILED_VOID(napi, status);
}

void Channel::post(Task task) {
  const std::lock_guard lock(mutex_);
  if (!open_) return;
  posted_.push_back(std::move(task));
  if (posted_.size() == 1) napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
}

void Channel::drain() {
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (Task& task : tasks) {
    try {
      task(env_);
    } catch (const std::exception&) {
      // Only where the environment is closing; nobody is left to tell.
    }
  }
}

void Channel::on_call(napi_env env, napi_value, void* context, void*) {
  if (env != nullptr) static_cast<Channel*>(context)->drain();
}

void Channel::opened() {
  counters.pending.fetch_add(1, std::memory_order_relaxed);
  if (++pending_ == 1) napi_ref_threadsafe_function(env_, function_);
}

void Channel::settled() {
  counters.pending.fetch_sub(1, std::memory_order_relaxed);
  if (--pending_ == 0) napi_unref_threadsafe_function(env_, function_);
}

std::shared_ptr<void> Channel::keep_alive(const std::shared_ptr<Channel>& channel, Napi::Value value) {
  napi_ref reference;
  const napi_status status = napi_create_reference(channel->env_, value, 1, &reference);
  NAPI_THROW_IF_FAILED(value.Env(), status, nullptr);
  channel->kept_.insert(reference);
  return std::shared_ptr<void>(reference, [channel](void* held) {
    channel->post([held, channel = channel.get()](napi_env env) {
      const auto kept = static_cast<napi_ref>(held);
      if (channel->kept_.erase(kept) != 0) napi_delete_reference(env, kept);
    });
  });
}

void Channel::close() {
  closing_.store(true);
  const std::unique_lock memory(memory_);  // waits for whoever holds a lease
  for (napi_ref kept : kept_) napi_delete_reference(env_, kept);
  kept_.clear();
  std::vector<Task> dropped;
  const std::lock_guard lock(mutex_);
  open_ = false;
  dropped.swap(posted_);
  // Since 24.14 Node keeps the function for whoever has not released it. This hook runs before Node's own for it, so it is
  // still there; afterwards releasing it would be an error.
  napi_release_threadsafe_function(function_, napi_tsfn_release);
  counters.pending.fetch_sub(pending_, std::memory_order_relaxed);
  pending_ = 0;
}

JsLease::JsLease(Channel& channel) {
  if (channel.closing_.load()) return;
  lock_ = std::shared_lock(channel.memory_);
  if (channel.closing_.load()) lock_.unlock();
}

Promise::Promise(std::shared_ptr<Channel> channel, Napi::Env env, napi_value* promise) : channel_(std::move(channel)) {
  const napi_status status = napi_create_promise(env, &deferred_, promise);
  NAPI_THROW_IF_FAILED_VOID(env, status);
  channel_->opened();
}

Promise::~Promise() {
  if (deferred_ == nullptr) return;
  if (std::uncaught_exceptions() > exceptions_) {
    resolve();
  } else {
    reject(Code::INTERNAL, "work was dropped before it ran");
  }
}

// Statuses are ignored: they fail only where the environment is going away, and then nobody waits for the promise.
void Promise::resolve(Value value) {
  channel_->post(
      [channel = channel_.get(), deferred = std::exchange(deferred_, nullptr), value = std::move(value)](napi_env env) {
        const Napi::HandleScope scope(env);
        channel->settled();
        try {
          const Napi::Value result = value ? value(env) : Napi::Env(env).Undefined();
          napi_resolve_deferred(env, deferred, result);
        } catch (const Napi::Error& error) {
          napi_reject_deferred(env, deferred, error.Value());
        } catch (const std::exception& error) {
          napi_reject_deferred(env, deferred, make_error(env, Code::INTERNAL, error.what()));
        }
      });
}

void Promise::reject(Code code, const std::string& message) {
  channel_->post([channel = channel_.get(), deferred = std::exchange(deferred_, nullptr), code, message](napi_env env) {
    const Napi::HandleScope scope(env);
    channel->settled();
    napi_value error = make_error(env, code, message);
    if (error != nullptr) napi_reject_deferred(env, deferred, error);
  });
}

Environment::Environment(Napi::Env env) : channel(std::make_shared<Channel>(env)) {
  const auto close = [](void* held) { static_cast<Channel*>(held)->close(); };
  const napi_status status = napi_add_env_cleanup_hook(env, close, channel.get());
  NAPI_THROW_IF_FAILED_VOID(env, status);
}

Environment& Environment::of(napi_env env) { return *Napi::Env(env).GetInstanceData<Environment>(); }

napi_value make_error(napi_env env, Code code, const std::string& message) noexcept {
  const std::string name = kCodeNames[static_cast<int>(code)];
  napi_value arguments[2], error = nullptr;
  if (napi_create_string_utf8(env, name.data(), name.size(), &arguments[0]) != napi_ok) return nullptr;
  if (napi_create_string_utf8(env, message.data(), message.size(), &arguments[1]) != napi_ok) return nullptr;
  try {
    const Napi::FunctionReference& error_class = Environment::of(env).error_class;
    if (!error_class.IsEmpty() && napi_new_instance(env, error_class.Value(), 2, arguments, &error) == napi_ok)
      return error;
  } catch (const std::exception&) {
    // The environment is closing: fall through to what needs no JavaScript to run.
  }
  const std::string full = "ERR_KERNWATT_" + name;
  napi_value full_code;
  if (napi_create_string_utf8(env, full.data(), full.size(), &full_code) != napi_ok) return nullptr;
  return napi_create_error(env, full_code, arguments[1], &error) == napi_ok ? error : nullptr;
}

void throw_to_javascript(napi_env env) noexcept {
  const auto throw_error = [env](Code code, const std::string& message) {
    napi_value error = make_error(env, code, message);
    if (error != nullptr) napi_throw(env, error);
  };
  try {
    throw;
  } catch (const Napi::Error& error) {
    try {
      error.ThrowAsJavaScriptException();
    } catch (const Napi::Error&) {
      // The environment is closing and takes no exception any more.
    }
  } catch (const Error& error) {
    throw_error(error.code, error.what());
  } catch (const std::bad_alloc&) {
    throw_error(Code::OUT_OF_MEMORY, "host memory is exhausted");
  } catch (const std::exception& error) {
    throw_error(Code::INTERNAL, error.what());
  }
}

}  // namespace kw
