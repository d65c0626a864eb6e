// quantize(stream, w, codes, scales, zeros, clipped, begin, end) and dequantize, of rows, on the CPU's threads
// (kernels/core/host/quantize.h).
#include "../kernels/core/host/quantize.h"

#include <utility>
#include <vector>

#include "../kernels/core/numeric.h"
#include "buffer.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "stream.h"

namespace kw {
namespace {

void quantize_all(Stream& stream, const Quantized& job, int64_t begin, int64_t end) {
  const int64_t groups = job.scales.shape[0], rows = job.scales.shape[1];
  std::vector<uint8_t> zeros(job.zeros.present() ? (end - begin) * groups : 0);
  stream.device->threads().parallel_for(
      end - begin,
      [&](int64_t from, int64_t to, int) {
        quantize_rows(job, begin + from, begin + to, zeros.data() + from * groups);
      },
      1);
  for (int64_t i = 0; i < static_cast<int64_t>(zeros.size()); ++i) {
    store_nibble(job.zeros.data, i % groups * rows + begin + i / groups, zeros[i]);
  }
}

void dequantize_all(Stream& stream, const Quantized& job, int64_t begin, int64_t end) {
  stream.device->threads().parallel_for(
      end - begin, [&](int64_t from, int64_t to, int) { dequantize_rows(job, begin + from, begin + to); }, 1);
}

// Queues rows [begin, end) of a job; what is wrong with them fails the stream.
template <void (*Run)(Stream&, const Quantized&, int64_t, int64_t)>
Napi::Value queue(const Napi::CallbackInfo& info) {
  const char* where = "quantize";
  const std::shared_ptr<Stream>& stream = get_handle<Stream>(info[0], where);
  stream->check_usable(where);
  if (!stream->device->is_cpu()) refuse(Code::UNSUPPORTED, where, "device", stream->device->name(), "the CPU");
  std::vector<View> views;
  for (size_t i = 1; i <= 4; ++i) {
    static constexpr const char* kNames[] = {"w", "codes", "scales", "zeros"};
    if (!info[i].IsUndefined()) views.push_back(read_view(info[i], *stream, where, kNames[i - 1]));
  }
  Quantized job{.w = views.at(0).tensor, .codes = views.at(1).tensor, .scales = views.at(2).tensor, .zeros = {}};
  if (views.size() > 3) job.zeros = views[3].tensor;
  job.clipped = info[5].ToBoolean();
  const int64_t end = integer(info[7], where, "end", 0, static_cast<double>(job.w.shape[0]));
  const int64_t begin = integer(info[6], where, "begin", 0, static_cast<double>(end));
  std::vector<std::shared_ptr<Memory>> memory;
  bool external = false;
  for (const View& view : views) {
    memory.push_back(view.buffer->memory());
    external = external || memory.back()->external();
  }
  const uint64_t number = stream->step(once([stream, job, begin, end, external, memory = std::move(memory)] {
    stream->attempt([&] { stream->with_memory(external, [&] { Run(*stream, job, begin, end); }); });
  }));
  for (const View& view : views) view.buffer->used(stream, number);
  return info.Env().Undefined();
}

}  // namespace

void export_quantize(Napi::Object exports) {
  exported<queue<quantize_all>>(exports, "quantize");
  exported<queue<dequantize_all>>(exports, "dequantize");
}

}  // namespace kw
