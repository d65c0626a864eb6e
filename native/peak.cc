// Measured ceilings of the CPU device.
#include "../kernels/core/cpu/peak.h"

#include <algorithm>
#include <iterator>

#include "export.h"
#include "exports.h"
#include "handle.h"
#include "stream.h"

namespace kw {
namespace {

Napi::Value peak(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[0], "peak");
  stream->check_usable("peak");
  if (!stream->device->is_cpu()) refuse(Code::UNSUPPORTED, "peak", "device", stream->device->name(), "the CPU");
  const std::string name = info[1].ToString();
  const auto* known = std::find(std::begin(cpu::kPeakNames), std::end(cpu::kPeakNames), name);
  if (known == std::end(cpu::kPeakNames)) {
    refuse(Code::ARGUMENT, "peak", "kind", name, "fma_f32, dot_bf16, read or copy");
  }
  const auto kind = static_cast<cpu::PeakKind>(known - std::begin(cpu::kPeakNames));
  const double seconds = info[2].IsNumber() ? info[2].As<Napi::Number>().DoubleValue() : 0;
  if (!(seconds > 0 && seconds <= 60)) {
    refuse(Code::ARGUMENT, "peak", "seconds", info[2].ToString(), "above 0 and at most 60");
  }
  napi_value result;
  auto promise = std::make_unique<Promise>(stream->channel, info.Env(), &result);
  stream->step(once([stream, kind, seconds, promise = std::move(promise)] {
    stream->settle(*promise, [&]() -> Promise::Value {
      double best = 0;
      stream->with_memory(false, [&] { best = cpu::peak(stream->device->threads(), kind, seconds); });
      return [best](Napi::Env env) { return Napi::Number::New(env, best); };
    });
  }));
  return Napi::Value(info.Env(), result);
}

}  // namespace

void export_peak(Napi::Object exports) { exported<peak>(exports, "peak"); }

}  // namespace kw
