// check(op, stream, args, rows, before): the outputs in args against the definition (kernels/core/host/compare.h) of the arguments
// as they were before the call, which are the same unless the operator updates tensors in place.
#include <cmath>
#include <utility>
#include <vector>

#include "../kernels/core/host/compare.h"
#include "args.h"
#include "array.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "host_view.h"
#include "ops.h"

namespace kw {
namespace {

Napi::Value describe(Napi::Env env, const std::vector<Verdict>& verdicts) {
  auto list = Napi::Array::New(env);
  for (const Verdict& v : verdicts) {
    auto entry = Napi::Object::New(env);
    entry.Set("field", v.field);
    entry.Set("elements", static_cast<double>(v.elements));
    entry.Set("failed", static_cast<double>(v.failed));
    entry.Set("worst", v.worst);
    entry.Set("row", static_cast<double>(v.row));
    entry.Set("column", static_cast<double>(v.column));
    entry.Set("actual", v.actual);
    entry.Set("expected", v.expected);
    entry.Set("allowed", v.allowed);
    entry.Set("maxAbs", v.max_abs);
    entry.Set("maxRel", v.max_rel);
    entry.Set("cosine", v.cosine);
    list.Set(list.Length(), entry);
  }
  return list;
}

int64_t rows_of(const TensorView& view) {
  int64_t rows = 1;
  for (int i = 0; i + 1 < view.rank; ++i) rows *= view.shape[i];
  return rows;
}

// The rows asked for, each within the first output; `every` is true for null.
std::vector<int64_t> read_rows(Napi::Value value, const Operator& op, const Arguments& arguments, bool* every) {
  *every = value.IsNull();
  std::vector<int64_t> rows;
  if (*every) return rows;
  const HostArray array = read_array(value, "check", "rows");
  if (array.element != Element::f64) refuse(Code::ARGUMENT, "check", "rows", "of another type", "a Float64Array");
  const Field first = op.outputs().front();
  const int64_t total = rows_of(tensor_at(arguments.data(), first));
  for (int64_t i = 0; i < array.length; ++i) {
    const double row = static_cast<const double*>(array.data)[i];
    if (!(row >= 0 && row < static_cast<double>(total)) || row != std::floor(row)) {
      refuse(Code::INDEX, "check", "rows[" + std::to_string(i) + "]", std::to_string(row),
             "a row of " + std::string(first.name) + ", which has " + std::to_string(total));
    }
    rows.push_back(static_cast<int64_t>(row));
  }
  return rows;
}

Napi::Value check(const Napi::CallbackInfo& info) {
  const Operator& op = get_operator(info[0].ToString());
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[1], "check");
  stream->check_usable("check");
  const Device& device = *stream->device;
  if (!device.is_cpu()) refuse(Code::UNSUPPORTED, "check", "device", device.name(), "the CPU; copy the tensors there");
  Arguments arguments = read_arguments(op.schema, info[2], device, op.name.c_str(), stream.get());
  const bool updated = info[4].IsObject();
  Arguments before = updated ? read_arguments(op.schema, info[4], device, op.name.c_str(), stream.get())
                             : Arguments{arguments.bytes, {}};
  bool every = false;
  std::vector<int64_t> rows = read_rows(info[3], op, arguments, &every);
  napi_value result;
  auto promise = std::make_unique<Promise>(stream->channel, info.Env(), &result);
  const bool external = arguments.external() || before.external();
  // They belong to the JavaScript thread.
  std::vector<std::shared_ptr<Buffer>> buffers = std::exchange(arguments.buffers, {});
  for (std::shared_ptr<Buffer>& buffer : std::exchange(before.buffers, {})) buffers.push_back(std::move(buffer));
  std::vector<std::shared_ptr<Memory>> memory;
  for (const std::shared_ptr<Buffer>& buffer : buffers) memory.push_back(buffer->memory());
  const uint64_t number = stream->step(
      once([&op, stream, promise = std::move(promise), arguments = std::move(arguments), before = std::move(before),
            rows = std::move(rows), every, external, memory = std::move(memory)] {
        stream->settle(*promise, [&]() -> Promise::Value {
          std::vector<Verdict> found;
          const RowList list{rows.data(), static_cast<int64_t>(rows.size()), every};
          stream->with_memory(external, [&] {
            ReferenceOutputs references;
            op.define(before.data(), list, references);
            found = compare_outputs(op.schema, arguments.data(), list, references);
          });
          return [found = std::move(found)](Napi::Env env) { return describe(env, found); };
        });
      }));
  for (const std::shared_ptr<Buffer>& buffer : buffers) buffer->used(stream, number);
  return Napi::Value(info.Env(), result);
}

}  // namespace

void export_check(Napi::Object exports) { exported<check>(exports, "check"); }

}  // namespace kw
