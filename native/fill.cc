// fill(stream, view, distribution, seed, a, b): seeded contents (kernels/core/host/distribution.h).
#include <cmath>
#include <cstdint>

#include "../kernels/core/host/distribution.h"
#include "buffer.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "host_view.h"

namespace kw {
namespace {

double finite(Napi::Value value, const char* name) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!std::isfinite(number)) refuse(Code::ARGUMENT, "fill", name, "not finite", "a finite number");
  return number;
}

Distribution read_distribution(const Napi::CallbackInfo& info) {
  const std::string name = info[2].ToString();
  const auto seed = static_cast<uint64_t>(integer(info[3], "fill", "seed", 0, 9007199254740991.0));
  if (name == "integers") {
    const auto a = static_cast<double>(integer(info[4], "fill", "a", -9007199254740991.0, 9007199254740991.0));
    const auto b = static_cast<double>(integer(info[5], "fill", "b", a, 9007199254740991.0));
    return {Distribution::kIntegers, seed, a, b};
  }
  // NaN and infinities too.
  if (name == "constant") return {Distribution::kConstant, seed, info[4].ToNumber().DoubleValue(), 0};
  const double a = finite(info[4], "a"), b = finite(info[5], "b");
  if (name == "uniform") return {Distribution::kUniform, seed, a, b};
  if (name == "normal") return {Distribution::kNormal, seed, a, b};
  refuse(Code::ARGUMENT, "fill", "distribution", name, "constant, uniform, normal or integers");
}

void fill_view(Stream& stream, const TensorView& view, const Distribution& values) {
  for_elements(stream, view.count(), [&](int64_t begin, int64_t end) { values.fill(view, begin, end); });
}

Napi::Value fill(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[0], "fill");
  stream->check_usable("fill");
  const View to = read_view(info[1], *stream, "fill", "view");
  const Distribution values = read_distribution(info);
  const int64_t bytes = bytes_of(to.tensor.dtype, to.tensor.count());
  if (bytes == 0) return info.Env().Undefined();
  // A normal value costs some ten times a copied one.
  if (at_once(*stream, values.kind == Distribution::kConstant ? bytes : 10 * bytes)) {
    fill_view(*stream, to.tensor, values);
    return info.Env().Undefined();
  }
  const uint64_t number = stream->step(once([stream, values, view = to.tensor, memory = to.buffer->memory()] {
    stream->attempt([&] {
      stream->with_memory(memory->external(), [&] {
        HostView host(*stream, as_bytes(view), HostView::kWrite);
        TensorView there = view;
        there.data = host.view().data;
        fill_view(*stream, there, values);
        host.commit();
      });
    });
  }));
  to.buffer->used(stream, number);
  return info.Env().Undefined();
}

}  // namespace

void export_fill(Napi::Object exports) { exported<fill>(exports, "fill"); }

}  // namespace kw
