// What src/meter/ sees of sources and their sampler.
#include <algorithm>
#include <cmath>

#include "../exports.h"
#include "../handle.h"
#include "nvml.h"
#include "sampler.h"

namespace kw {
namespace meter {

// What a handle holds until it is closed or collected.
struct Held {
  std::shared_ptr<Source> source;
  bool manual;

  Source& get(const char* where) const {
    if (!source) refuse(Code::DISPOSED, where, "source", "closed", "an open one");
    return *source;
  }
};

}  // namespace meter

template <>
struct HandleKind<meter::Held> {
  static constexpr const char* name = "source of a meter";
  static constexpr napi_type_tag tag = {0x6b77617474000008, 0x7d51f0be36a9482c};
};

namespace meter {
namespace {

std::string text(Napi::Object object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsString()) refuse(Code::ARGUMENT, "openSource", name, "not a string", "a string");
  return value.As<Napi::String>();
}

double number(Napi::Object object, const char* name, double low, double high) {
  const Napi::Value value = object.Get(name);
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number >= low && number <= high)) {
    refuse(Code::ARGUMENT, "openSource", name, value.ToString(),
           "from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return number;
}

// openSource(spec, manual): NativeSource of src/native.ts.
Napi::Value open_source(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) refuse(Code::ARGUMENT, "openSource", "spec", "no object", "an object");
  const auto spec = info[0].As<Napi::Object>();
  const std::string kind = text(spec, "kind");
  Counter::Kind counter{text(spec, "name"), number(spec, "joulesPerCount", 1e-15, 1e3),
                        static_cast<uint64_t>(number(spec, "range", 0, 1.8e19)),
                        number(spec, "intervalSeconds", 1e-5, 3600)};
  std::function<std::unique_ptr<Source>()> make;
  std::string key = kind;
  if (kind == "file") {
    const std::string path = text(spec, "path");
    key += ' ' + path;
    make = [=] { return file_source(path, counter); };
  } else if (kind == "perf") {
    const auto type = static_cast<uint32_t>(number(spec, "type", 0, UINT32_MAX));
    const auto config = static_cast<uint64_t>(number(spec, "config", 0, 9e15));
    const auto cpu = static_cast<int>(number(spec, "cpu", 0, 1e6));
    key += ' ' + std::to_string(type) + ' ' + std::to_string(config) + ' ' + std::to_string(cpu);
    make = [=] { return perf_source(type, config, cpu, counter); };
  } else if (kind == "nvml") {
    const std::string gpu = text(spec, "gpu");
    key += ' ' + Nvml::named() + ' ' + gpu;
    make = [=] { return nvml_source(gpu, counter); };
  } else {
    refuse(Code::ARGUMENT, "openSource", "kind", kind, "file, perf or nvml");
  }
  // Who wants another interval has a source of its own.
  key += ' ' + std::to_string(counter.interval);
  auto held = std::make_shared<Held>();
  held->manual = info[1].ToBoolean();
  held->source = held->manual ? std::shared_ptr<Source>(make()) : Sampler::shared().add(key, make);
  return make_handle(info.Env(), held);
}

Napi::Value close_source(const Napi::CallbackInfo& info) {
  get_handle<Held>(info[0], "closeSource")->source.reset();
  return info.Env().Undefined();
}

// pollSource(source, now): what the sampler's thread does, by the clock of the caller. Returns when it is due again.
Napi::Value poll_source(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Held>& held = get_handle<Held>(info[0], "pollSource");
  Source& source = held->get("pollSource");
  if (!held->manual) refuse(Code::ARGUMENT, "pollSource", "source", "polled by the sampler", "a manual one");
  const double now = info[1].IsNumber() ? info[1].As<Napi::Number>().DoubleValue() : NAN;
  if (!(now >= source.status().last)) {
    refuse(Code::ARGUMENT, "pollSource", "now", info[1].ToString(), "seconds that never go back");
  }
  // A nanosecond more or less is the caller's rounding.
  if (source.due() <= now + 1e-9) source.poll({std::max(now, source.due())});
  return Napi::Number::New(info.Env(), source.due());
}

Napi::Object object(Napi::Env env, const Trouble& trouble) {
  auto result = Napi::Object::New(env);
  result.Set("state", trouble.state);
  result.Set("reason", trouble.reason);
  return result;
}

Napi::Value source_status(const Napi::CallbackInfo& info) {
  const Status status = get_handle<Held>(info[0], "sourceStatus")->get("sourceStatus").status();
  const Napi::Env env = info.Env();
  auto result = Napi::Object::New(env);
  result.Set("polls", static_cast<double>(status.polls));
  result.Set("failures", static_cast<double>(status.failures));
  result.Set("ticks", static_cast<double>(status.ticks));
  result.Set("answering", status.answering);
  result.Set("first", status.first);
  result.Set("last", status.last);
  result.Set("lastTickAfter", status.last_tick_after);
  result.Set("joules", status.value);
  result.Set("gpu", env.Null());
  if (status.facts.gpus != 0) {
    auto gpu = Napi::Object::New(env);
    gpu.Set("label", status.facts.label);
    gpu.Set("index", status.facts.index);
    gpu.Set("gpus", status.facts.gpus);
    gpu.Set("mig", status.facts.mig);
    result.Set("gpu", gpu);
  }
  result.Set("trouble", env.Null());
  if (status.trouble.state != nullptr) result.Set("trouble", object(env, status.trouble));
  return result;
}

Napi::Object arrays(Napi::Env env, const std::vector<Reading>& readings) {
  auto seconds = Napi::Float64Array::New(env, readings.size());
  auto values = Napi::Float64Array::New(env, readings.size());
  for (size_t i = 0; i < readings.size(); ++i) {
    seconds.Data()[i] = readings[i].seconds;
    values.Data()[i] = readings[i].value;
  }
  auto result = Napi::Object::New(env);
  result.Set("seconds", seconds);
  result.Set("values", values);
  return result;
}

// readSource(source, from, to)
Napi::Value read_source(const Napi::CallbackInfo& info) {
  Source& source = get_handle<Held>(info[0], "readSource")->get("readSource");
  const double from = info[1].ToNumber().DoubleValue(), to = info[2].ToNumber().DoubleValue();
  const Columns columns = source.columns(from, to);
  const Napi::Env env = info.Env();
  auto series = Napi::Object::New(env);
  for (const auto& [name, readings] : columns.series) series.Set(name, arrays(env, readings));
  auto refused = Napi::Object::New(env);
  for (const auto& [name, trouble] : columns.refused) refused.Set(name, object(env, trouble));
  auto breaks = Napi::Array::New(env);
  for (const Break& one : columns.breaks) {
    auto entry = Napi::Object::New(env);
    entry.Set("from", one.from);
    entry.Set("to", one.to);
    entry.Set("reason", one.reason);
    breaks.Set(breaks.Length(), entry);
  }
  auto result = Napi::Object::New(env);
  result.Set("series", series);
  result.Set("refused", refused);
  result.Set("breaks", breaks);
  result.Set("thinnedBefore", columns.thinned_before);
  return result;
}

Napi::Value sampler_cost(const Napi::CallbackInfo& info) {
  const Sampler::Cost cost = Sampler::shared().cost();
  auto result = Napi::Object::New(info.Env());
  result.Set("cpuSeconds", cost.cpu_seconds);
  result.Set("seconds", cost.seconds);
  result.Set("polls", static_cast<double>(cost.polls));
  result.Set("sources", static_cast<double>(cost.sources));
  return result;
}

}  // namespace
}  // namespace meter

void export_meter(Napi::Object exports) {
  exported<meter::open_source>(exports, "openSource");
  exported<meter::close_source>(exports, "closeSource");
  exported<meter::poll_source>(exports, "pollSource");
  exported<meter::source_status>(exports, "sourceStatus");
  exported<meter::read_source>(exports, "readSource");
  exported<meter::sampler_cost>(exports, "samplerCost");
}

}  // namespace kw
