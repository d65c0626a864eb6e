// The one place that decides whether an output is right: the tolerance rule of kernels/core/reference.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../kernels/core/numeric.h"
#include "../kernels/core/reference.h"
#include "args.h"
#include "array.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "host_view.h"
#include "ops.h"

namespace kw {
namespace {

struct Verdict {
  const char* field = "";
  int64_t elements = 0, failed = 0;
  double worst = 0;
  int64_t row = 0, column = 0;
  double actual = 0, expected = 0, allowed = 0;
  double max_abs = 0, max_rel = 0, cosine = 1;
};

// |actual - value| / tolerance: at most 1 is right. Where the value or its textbook form is no finite number of the dtype,
// only that form, or what the value rounds to, is right.
double excess(double actual, double value, double plain, double rounded, double allowed) {
  if (std::isfinite(value) && std::isfinite(plain) && std::isfinite(actual)) return std::fabs(actual - value) / allowed;
  const auto same = [actual](double other) { return actual == other || (std::isnan(actual) && std::isnan(other)); };
  return same(plain) || same(rounded) ? 0 : std::numeric_limits<double>::infinity();
}

double round_to(DType dtype, double value) {
  uint64_t storage = 0;
  double rounded;
  const Element element = element_of(dtype, "check");
  convert(&value, Element::f64, 1, &storage, element, 1, 1);
  convert(&storage, element, 1, &rounded, Element::f64, 1, 1);
  return rounded;
}

// Sums for the angle between what came and what should have come.
struct Angle {
  double both = 0, actual = 0, expected = 0;
  void add(double a, double e) { both += a * e, actual += a * a, expected += e * e; }
  double cosine() const {
    if (actual == 0 && expected == 0) return 1;
    return actual == 0 || expected == 0 ? 0 : both / std::sqrt(actual * expected);
  }
};

Verdict compare(const char* field, const TensorView& view, const RowList& rows, const ReferenceOutput& reference) {
  const Element element = element_of(view.dtype, field);
  const int64_t size = size_of(element), columns = reference.columns, width = view.shape[view.rank - 1];
  const Walk<1> elements = walk(view);
  Verdict verdict;
  verdict.field = field;
  verdict.elements = reference.rows * columns;
  std::vector<double> actual(columns);
  Angle angle;
  for (int64_t r = 0; r < reference.rows; ++r) {
    const int64_t begin = reference.element.empty() ? rows.row(r) * columns : reference.element[r];
    elements(begin, begin + columns, [&](int64_t first, int64_t length, const int64_t* offset) {
      convert(static_cast<const char*>(view.data) + offset[0] * size, element, elements.step(0),
              actual.data() + (first - begin), Element::f64, 1, length);
    });
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t at = r * columns + c;
      const double y = actual[c], value = reference.value[at], plain = reference.plain[at];
      const double allowed = 2 * std::fabs(plain - value) + ulp(view.dtype, value) + reference.slack[at];
      const double ratio = excess(y, value, plain, round_to(view.dtype, value), allowed);
      verdict.failed += !(ratio <= 1);
      if (at == 0 || ratio > verdict.worst) {
        verdict.worst = ratio;
        verdict.row = (begin + c) / width, verdict.column = (begin + c) % width;
        verdict.actual = y, verdict.expected = value, verdict.allowed = allowed;
      }
      const double off = std::fabs(y - value);
      if (off > verdict.max_abs) verdict.max_abs = off;
      if (value != 0 && off / std::fabs(value) > verdict.max_rel) verdict.max_rel = off / std::fabs(value);
      if (std::isfinite(y) && std::isfinite(value)) angle.add(y, value);
    }
  }
  verdict.cosine = angle.cosine();
  return verdict;
}

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

std::vector<Verdict> verdicts(const Operator& op, const Arguments& arguments, const RowList& rows) {
  ReferenceOutputs references;
  op.define(arguments.data(), rows, references);
  std::vector<Verdict> found;
  for (const Field& field : op.outputs()) {
    found.push_back(compare(field.name, tensor_at(arguments.data(), field), rows, references.at(found.size())));
  }
  return found;
}

Napi::Value check(const Napi::CallbackInfo& info) {
  const Operator& op = get_operator(info[0].ToString());
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[1], "check");
  stream->check_usable("check");
  const Device& device = *stream->device;
  if (!device.is_cpu()) refuse(Code::UNSUPPORTED, "check", "device", device.name(), "the CPU; copy the tensors there");
  Arguments arguments = read_arguments(op.schema, info[2], device, op.name.c_str());
  bool every = false;
  std::vector<int64_t> rows = read_rows(info[3], op, arguments, &every);
  napi_value result;
  auto promise = std::make_unique<Promise>(stream->channel, info.Env(), &result);
  const bool external = arguments.external();
  std::vector<std::shared_ptr<Memory>> memory;
  for (const std::shared_ptr<Buffer>& buffer : arguments.buffers) memory.push_back(buffer->memory());
  arguments.buffers.clear();  // they belong to the JavaScript thread
  stream->step(once([&op, stream, promise = std::move(promise), arguments = std::move(arguments),
                     rows = std::move(rows), every, external, memory = std::move(memory)] {
    stream->settle(*promise, [&]() -> Promise::Value {
      std::vector<Verdict> found;
      const RowList list{rows.data(), static_cast<int64_t>(rows.size()), every};
      stream->with_memory(external, [&] { found = verdicts(op, arguments, list); });
      return [found = std::move(found)](Napi::Env env) { return describe(env, found); };
    });
  }));
  return Napi::Value(info.Env(), result);
}

}  // namespace

void export_check(Napi::Object exports) { exported<check>(exports, "check"); }

}  // namespace kw
