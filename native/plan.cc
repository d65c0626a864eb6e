// Creating, rebinding and queueing plans.
#include "plan.h"

#include <sstream>
#include <utility>

#include "export.h"
#include "exports.h"
#include "format.h"
#include "handle.h"

namespace kw {

Kernel::Kernel(const kw_op& entry, std::shared_ptr<Stream> stream, const Arguments& arguments,
               const std::string& configuration)
    : entry_(entry), stream_(std::move(stream)), argument_(stream_->argument()) {
  const Device& device = *stream_->device;
  check_backend(device, entry_.supports(&device.info(), arguments.data()));
  if (configuration.empty()) {
    check_backend(device, entry_.plan_create(&device.info(), arguments.data(), &plan_));
  } else if (entry_.plan_create_as == nullptr) {
    throw Error(Code::UNSUPPORTED, std::string(entry_.name) + ": configuration is " + configuration +
                                       ", expected none: the backend has one way alone");
  } else {
    check_backend(device, entry_.plan_create_as(&device.info(), arguments.data(), configuration.c_str(), &plan_));
  }
  try {
    workspace_ = stream_->workspace(entry_.plan_workspace(plan_));
    bind(arguments);
  } catch (...) {
    entry_.plan_destroy(plan_);
    throw;
  }
}

Kernel::~Kernel() { entry_.plan_destroy(plan_); }

void Kernel::bind(const Arguments& arguments) {
  void* workspace = workspace_ ? workspace_->data() : nullptr;
  check_backend(*stream_->device, entry_.plan_rebind(plan_, arguments.data(), workspace));
  external_ = arguments.external();
}

void Kernel::run() noexcept {
  stream_->attempt([this] { stream_->with_memory(external_, [this] { launch(); }); });
}

std::string Kernel::explain() const { return entry_.plan_explain(plan_); }

Plan::Plan(const Operator& op, const kw_op& entry, std::shared_ptr<Stream> stream, Arguments arguments,
           std::string configuration)
    : op_(op),
      entry_(entry),
      stream_(std::move(stream)),
      kernel_(std::make_shared<Kernel>(entry, stream_, arguments, configuration)),
      buffers_(std::move(arguments.buffers)),
      created_with_{std::move(arguments.bytes), {}},
      configuration_(std::move(configuration)) {
  stream_->device->add(this);
}

Plan::~Plan() { dispose(); }

void Plan::rebind(Arguments arguments) {
  check_formats(op_, entry_, *stream_->device, arguments);
  check_backend(*stream_->device, entry_.supports(&stream_->device->info(), arguments.data()));
  if (stream_->launched(number_)) {
    kernel_->bind(arguments);
  } else {
    auto kernel = std::make_shared<Kernel>(entry_, stream_, created_with_, configuration_);
    kernel->bind(arguments);
    retire(std::exchange(kernel_, std::move(kernel)));
    number_ = 0;
  }
  buffers_ = std::move(arguments.buffers);
}

void Plan::dispose() {
  if (!kernel_) return;
  stream_->device->remove(this);
  retire(std::exchange(kernel_, nullptr));
  buffers_.clear();
  counted_.reset();
}

void Plan::retire(std::shared_ptr<Kernel> kernel) {
  if (!stream_->done(number_)) stream_->after(once([kernel = std::move(kernel)] {}));
}

void Plan::check_buffers() const {
  for (const std::shared_ptr<Buffer>& buffer : buffers_) {
    if (buffer->freed() || buffer->detached()) refuse_freed();
  }
}

std::vector<std::string> Plan::configurations() const {
  if (entry_.configurations == nullptr) return {};
  const char* lines = nullptr;
  check_backend(*stream_->device, entry_.configurations(&stream_->device->info(), created_with_.data(), &lines));
  std::vector<std::string> names;
  std::istringstream text(lines);
  for (std::string name; std::getline(text, name);) names.push_back(name);
  return names;
}

void Plan::used(uint64_t number) {
  number_ = number;
  for (const std::shared_ptr<Buffer>& buffer : buffers_) buffer->used(stream_, number);
}

void Plan::refuse_disposed(const char* where) const {
  refuse(Code::DISPOSED, where, op_.name + " plan", "disposed", "a live one");
}

void Plan::refuse_freed() const {
  refuse(Code::DISPOSED, "enqueue", "a tensor bound to the " + op_.name + " plan", "disposed or detached",
         "a live one; rebind it");
}

namespace {

Napi::Value create_plan(const Napi::CallbackInfo& info) {
  const Operator& op = get_operator(info[0].ToString());
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[2], "createPlan");
  stream->check_usable("createPlan");
  const kw_op& entry = get_backend(op, info[1].ToString(), *stream->device);
  Arguments arguments = read_arguments(op.schema, info[3], *stream->device, op.name.c_str(), stream.get());
  check_formats(op, entry, *stream->device, arguments);
  std::string configuration = info[4].IsString() ? info[4].As<Napi::String>().Utf8Value() : "";
  return make_handle(info.Env(),
                     std::make_shared<Plan>(op, entry, stream, std::move(arguments), std::move(configuration)));
}

Napi::Value declines(const Napi::CallbackInfo& info) {
  const Operator& op = get_operator(info[0].ToString());
  const std::shared_ptr<Device>& device = get_handle<Device>(info[2], "declines");
  device->check_usable("declines");
  const Arguments arguments = read_arguments(op.schema, info[3], *device, op.name.c_str());
  try {
    const kw_op& entry = get_backend(op, info[1].ToString(), *device);
    check_formats(op, entry, *device, arguments);
    check_backend(*device, entry.supports(&device->info(), arguments.data()));
  } catch (const Error& error) {
    if (error.code != Code::UNSUPPORTED) throw;
    return Napi::String::New(info.Env(), error.what());
  }
  return Napi::String::New(info.Env(), "");
}

Napi::Value rebind_plan(const Napi::CallbackInfo& info) {
  Plan& plan = *get_handle<Plan>(info[0], "rebindPlan");
  plan.kernel("rebindPlan");
  plan.stream()->check_usable("rebindPlan");
  const Stream& stream = *plan.stream();
  plan.rebind(read_arguments(plan.op().schema, info[1], *stream.device, plan.op().name.c_str(), &stream));
  return info.Env().Undefined();
}

Napi::Value enqueue_once(const Napi::CallbackInfo& info) {
  get_handle<Plan>(info[0], "enqueue")->enqueue();
  return info.Env().Undefined();
}

Napi::Value enqueue_often(const Napi::CallbackInfo& info) {
  Plan& plan = *get_handle<Plan>(info[0], "enqueueOften");
  for (int64_t i = integer(info[1], "enqueueOften", "times", 0, 4096); i > 0; --i) plan.enqueue();
  return info.Env().Undefined();
}

// The hot path: the plan comes as the function's own data, so a call reads no argument.
napi_value enqueue(napi_env env, napi_callback_info info) {
  return guard_javascript(env, [&]() -> napi_value {
    void* plan = nullptr;
    napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &plan);
    (*static_cast<std::shared_ptr<Plan>*>(plan))->enqueue();
    return nullptr;
  });
}

Napi::Value enqueue_function(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto held = std::make_unique<std::shared_ptr<Plan>>(get_handle<Plan>(info[0], "enqueueFunction"));
  (*held)->kernel("enqueueFunction");
  napi_value function;
  napi_status status = napi_create_function(env, "enqueue", NAPI_AUTO_LENGTH, enqueue, held.get(), &function);
  NAPI_THROW_IF_FAILED(env, status, Napi::Value());
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<Plan>*>(data); };
  status = napi_add_finalizer(env, function, held.get(), finalize, nullptr, nullptr);
  NAPI_THROW_IF_FAILED(env, status, Napi::Value());
  held.release();
  return Napi::Value(env, function);
}

Napi::Value explain(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), get_handle<Plan>(info[0], "explain")->kernel("explain")->explain());
}

Napi::Value configurations(const Napi::CallbackInfo& info) {
  const Plan& plan = *get_handle<Plan>(info[0], "configurations");
  plan.kernel("configurations");
  auto names = Napi::Array::New(info.Env());
  for (const std::string& name : plan.configurations()) names.Set(names.Length(), name);
  return names;
}

Napi::Value workspace_bytes(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Plan>& plan = get_handle<Plan>(info[0], "workspaceBytes");
  return Napi::Number::New(info.Env(), static_cast<double>(plan->kernel("workspaceBytes")->workspace_bytes()));
}

Napi::Value destroy_plan(const Napi::CallbackInfo& info) {
  get_handle<Plan>(info[0], "destroyPlan")->dispose();
  return info.Env().Undefined();
}

}  // namespace

void export_plan(Napi::Object exports) {
  exported<create_plan>(exports, "createPlan");
  exported<declines>(exports, "declines");
  exported<rebind_plan>(exports, "rebindPlan");
  exported<enqueue_once>(exports, "enqueue");
  exported<enqueue_function>(exports, "enqueueFunction");
  exported<enqueue_often>(exports, "enqueueOften");
  exported<explain>(exports, "explain");
  exported<configurations>(exports, "configurations");
  exported<workspace_bytes>(exports, "workspaceBytes");
  exported<destroy_plan>(exports, "destroyPlan");
}

}  // namespace kw
