// The addon's operator table, made from the list in kernels/operators.h.
#include "ops.h"

#include "../kernels/operators.h"
#include "args.h"
#include "export.h"
#include "exports.h"
#include "reference_plan.h"

namespace kw {
namespace {

template <class Args, void (*define)(const Args&, const RowList&, ReferenceOutputs&)>
Operator make(const char* name, const kw_op& cpu) {
  static const kw_op ref = make_op<Args, ReferencePlan<Args, define>>(name);
  return {*find_definition(name), &ref, &cpu};
}

}  // namespace

const std::vector<Operator>& operators() {
#define KW_OPERATOR(op, Args) make<Args, ref::op>(#op, cpu::op()),
  static const auto* all = new std::vector<Operator>{KW_OPERATORS(KW_OPERATOR)};
#undef KW_OPERATOR
  return *all;
}

const Operator& get_operator(const std::string& name) {
  for (const Operator& op : operators()) {
    if (op.name == name) return op;
  }
  refuse(Code::ARGUMENT, "operator", "name", name, "one of the addon's operators");
}

const kw_op& get_backend(const Operator& op, const std::string& backend, const Device& device) {
  if (device.is_cpu()) {
    if (backend == "ref") return *op.ref;
    if (backend == "cpu") return *op.cpu;
    refuse(Code::ARGUMENT, op.name, "backend", backend, "ref or cpu on the CPU");
  }
  if (backend != "library") refuse(Code::ARGUMENT, op.name, "backend", backend, "library on " + device.name());
  const kw_op* found = device.library().find(op.name);
  if (found == nullptr)
    throw Error(Code::UNSUPPORTED, op.name + ": the library of " + device.name() + " has no kernel for it");
  return *found;
}

void check_backend(const Device& device, int32_t status) {
  if (status == 0) return;
  if (!device.is_cpu()) device.check(status);
  throw Error(code_of(status), last_error());
}

void export_ops(Napi::Object exports) {
  const Napi::Env env = exports.Env();
  auto ops = Napi::Object::New(env);
  for (const Operator& op : operators()) {
    auto backends = Napi::Array::New(env);
    backends.Set(0u, "ref");
    backends.Set(1u, "cpu");
    auto entry = Napi::Object::New(env);
    entry.Set("fields", describe_fields(env, op.schema));
    entry.Set("backends", backends);
    ops.Set(op.name, entry);
  }
  exports.Set("ops", ops);
}

}  // namespace kw
