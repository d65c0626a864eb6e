// How native threads reach one JavaScript environment: results of promises, settled on its thread in the order in which
// they were posted, through one thread-safe function.
//
// The environment can go away at any time (worker.terminate()) while native threads run on. Its cleanup hook closes the
// channel under the same mutex that posting takes, so the thread-safe function is never called after that. Memory that
// belongs to JavaScript is touched by native threads only under a JsLease, which the hook waits for.
#pragma once
#include <napi.h>

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_set>
#include <vector>

#include "../kernels/core/error.h"

namespace kw {

class Channel {
 public:
  using Task = std::function<void(napi_env)>;

  explicit Channel(napi_env env);

  // Any thread: runs task on the JavaScript thread soon, or never if the environment is closing.
  void post(Task task);
  // JavaScript thread: runs everything posted so far.
  void drain();

  // JavaScript thread: a promise is open or settled; while any is open the event loop stays alive.
  void opened();
  void settled();

  // JavaScript thread: keeps a value of the environment alive until the last holder, on whichever thread, lets go, or the
  // environment ends.
  static std::shared_ptr<void> keep_alive(const std::shared_ptr<Channel>& channel, Napi::Value value);

  // The environment is going away: work of its that has not begun is not worth beginning.
  bool closing() const { return closing_.load(std::memory_order_relaxed); }

  // Environment cleanup: nothing is posted and no JavaScript memory touched from here on.
  void close();

 private:
  friend class JsLease;
  static void on_call(napi_env env, napi_value, void* context, void*);

  const napi_env env_;
  std::mutex mutex_;  // guards the next three
  bool open_ = true;
  std::vector<Task> posted_;
  napi_threadsafe_function function_ = nullptr;
  int64_t pending_ = 0;                // JavaScript thread only, as the next
  std::unordered_set<napi_ref> kept_;  // by keep_alive: the environment does not free them when it ends
  std::atomic<bool> closing_{false};
  std::shared_mutex memory_;
};

// Permission to touch memory of the environment. held() is false once it is closing; then leave the memory alone.
class JsLease {
 public:
  explicit JsLease(Channel& channel);
  bool held() const { return lock_.owns_lock(); }

 private:
  std::shared_lock<std::shared_mutex> lock_;
};

// An open JavaScript promise. Settle it once, from any thread. Destroyed unsettled it rejects with INTERNAL, unless that
// is by an exception on the JavaScript thread, which reaches the caller in the promise's place.
class Promise {
 public:
  using Value = std::function<Napi::Value(Napi::Env)>;

  // JavaScript thread. `promise` receives what the caller returns to JavaScript.
  Promise(std::shared_ptr<Channel> channel, Napi::Env env, napi_value* promise);
  ~Promise();
  Promise(const Promise&) = delete;
  Promise& operator=(const Promise&) = delete;

  void resolve(Value value = {});
  void reject(Code code, const std::string& message);
  // Resolves with what body returns, or rejects with what it throws.
  template <class Body>
  void settle_with(Body&& body) {
    try {
      resolve(body());
    } catch (const Error& error) {
      reject(error.code, error.what());
    } catch (const std::bad_alloc&) {
      reject(Code::OUT_OF_MEMORY, "host memory is exhausted");
    } catch (const std::exception& error) {
      reject(Code::INTERNAL, error.what());
    }
  }

 private:
  std::shared_ptr<Channel> channel_;
  napi_deferred deferred_ = nullptr;
  const int exceptions_ = std::uncaught_exceptions();
};

// What one environment owns. Instance data of the addon.
class Environment {
 public:
  explicit Environment(Napi::Env env);

  static Environment& of(napi_env env);

  const std::shared_ptr<Channel> channel;
  Napi::FunctionReference error_class;
};

}  // namespace kw
