// The operator table: one line per operator, and the only place in native/ that names one.
#include "ops.h"

#include <algorithm>

#include "../kernels/attention_gqa/attention_gqa.h"
#include "../kernels/attention_merge/attention_merge.h"
#include "../kernels/gemm/gemm.h"
#include "export.h"
#include "exports.h"
#include "reference_plan.h"

namespace kw {
namespace {

template <class Args, void (*define)(const Args&, const RowList&, ReferenceOutputs&)>
Operator add(const char* name, const kw_op& cpu) {
  static const kw_op ref = make_op<Args, ReferencePlan<Args, define>>(name);
  return {.name = name,
          .schema = describe<Args>(),
          .define = [](const void* args, const RowList& rows,
                       ReferenceOutputs& outputs) { define(*static_cast<const Args*>(args), rows, outputs); },
          .ref = &ref,
          .cpu = &cpu};
}

std::vector<Operator> table() {
  return {
      add<AttentionGqaArgs, ref::attention_gqa>("attention_gqa", cpu::attention_gqa()),
      add<AttentionMergeArgs, ref::attention_merge>("attention_merge", cpu::attention_merge()),
      add<GemmArgs, ref::gemm>("gemm", cpu::gemm()),
  };
}

}  // namespace

const std::vector<Operator>& operators() {
  static const auto* all = new std::vector<Operator>(table());
  return *all;
}

std::vector<Field> Operator::outputs() const {
  std::vector<Field> found;
  std::copy_if(schema.fields.begin(), schema.fields.end(), std::back_inserter(found),
               [](const Field& field) { return field.kind == FieldKind::out; });
  return found;
}

const Operator* find_operator(const std::string& name) {
  for (const Operator& op : operators()) {
    if (op.name == name) return &op;
  }
  return nullptr;
}

const Operator& get_operator(const std::string& name) {
  const Operator* op = find_operator(name);
  if (op == nullptr) refuse(Code::ARGUMENT, "operator", "name", name, "one of the addon's operators");
  return *op;
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
  if (!device.is_cpu()) device.library().check(status);
  throw Error(code_of(status), last_error());
}

void store_rounded(const std::vector<double>& values, const TensorView& view) {
  const Walk<1> elements = walk(view);
  const Element element = element_of(view.dtype, "ref");
  const int64_t size = size_of(element);
  elements(0, elements.count(), [&](int64_t first, int64_t length, const int64_t* offset) {
    convert(values.data() + first, Element::f64, 1, static_cast<char*>(view.data) + offset[0] * size, element,
            elements.step(0), length);
  });
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
