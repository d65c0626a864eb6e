// nsa_compress on the CPU: a task is a run of windows. Heads that follow each other without a gap are one row of columns. A window's
// later tokens are in the cache when the next one reads them again, so that memory is read once.
//
// Sources, one object each, with what they are compiled for (all but the first two on x86-64 only):
//   nsa_compress_cpu.cc, nsa_compress_cpu_generic.cc   -O3
//   nsa_compress_cpu_avx2.cc                           -O3 -mavx2 -mfma -mf16c
//   nsa_compress_cpu_avx512.cc                         -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
#include "nsa_compress_cpu.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/plan.h"
#include "../core/threads.h"

namespace kw::cpu {
namespace {

constexpr int64_t kTaskBytes = 128 << 10;   // of x, about
constexpr int64_t kSerialBytes = 64 << 10;  // below which waking a thread costs more than it brings

CompressKernel kernel_for(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return kCompressAvx512;
  if (isa == Isa::avx2) return kCompressAvx2;
#endif
  (void)isa;
  return kCompressGeneric;
}

class NsaCompressCpuPlan {
 public:
  static std::string declines(const NsaCompressArgs&, const kw_device_info&);
  NsaCompressCpuPlan(const NsaCompressArgs& args, const kw_device_info& device)
      : isa_(static_cast<Isa>(device.isa)), kernel_(kernel_for(isa_)), args_(args) {}
  uint64_t workspace() const { return 0; }
  void rebind(const NsaCompressArgs& args, void*) { args_ = args; }
  void enqueue(void* stream) const;
  std::string explain() const;

 private:
  std::vector<int64_t> lengths(std::string& wrong) const;
  bool together() const;
  void window(int64_t b, int64_t c, int64_t len, bool together) const;

  Isa isa_;
  CompressKernel kernel_;
  NsaCompressArgs args_;
};

std::string NsaCompressCpuPlan::declines(const NsaCompressArgs& args, const kw_device_info&) {
  const std::pair<const char*, const TensorView&> tensors[] = {
      {"x", args.x}, {"position", args.position}, {"y", args.y}};
  for (const auto& [name, t] : tensors) {
    if (!t.present()) continue;
    if (!is_float(t.dtype))
      return std::string("nsa_compress: ") + name + " is " + kw::name(t.dtype) + ", expected f32, f16 or bf16";
    if (t.dim(-1) > 1 && t.step(-1) != 1) {
      return std::string("nsa_compress: last dimension of ") + name + " has stride " + std::to_string(t.step(-1)) +
             ", expected 1";
    }
  }
  return "";
}

// Of each sequence, as they count; wrong: the first that is out of range.
std::vector<int64_t> NsaCompressCpuPlan::lengths(std::string& wrong) const {
  const int64_t most = args_.x.shape[1];
  std::vector<int64_t> lens(args_.x.shape[0], most);
  for (int64_t b = 0; args_.lens.present() && b < args_.x.shape[0]; ++b) {
    const int64_t given = static_cast<const int32_t*>(args_.lens.data)[b * args_.lens.stride[0]];
    lens[b] = std::clamp<int64_t>(given, 0, most);
    if (wrong.empty() && given != lens[b]) {
      wrong = "nsa_compress: lens[" + std::to_string(b) + "] is " + std::to_string(given) + ", expected 0 to " +
              std::to_string(most);
    }
  }
  return lens;
}

// Whether all heads of a token are one row.
bool NsaCompressCpuPlan::together() const {
  const int64_t heads = args_.x.shape[2], dim = args_.x.shape[3];
  if (heads <= 1) return true;
  const TensorView& position = args_.position;
  return args_.x.stride[2] == dim && args_.y.stride[2] == dim &&
         (!position.present() || (position.shape[1] == heads && position.stride[1] == dim));
}

void NsaCompressCpuPlan::enqueue(void* stream) const {
  auto& pool = *static_cast<ThreadPool*>(stream);
  std::string wrong;
  const std::vector<int64_t> lens = lengths(wrong);
  const int64_t blocks = args_.y.shape[1], windows = args_.x.shape[0] * blocks;
  const int64_t bytes =
      std::max<int64_t>(1, args_.stride * args_.x.shape[2] * args_.x.shape[3] * bits(args_.x.dtype) / 8);
  const bool one = together();
  const auto run = [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) window(n / blocks, n % blocks, lens[n / blocks], one);
  };
  if (windows * bytes < kSerialBytes)
    run(0, windows, 0);
  else
    pool.parallel_for(windows, run, std::max<int64_t>(1, kTaskBytes / bytes));
  if (!wrong.empty()) throw Error(Code::INDEX, wrong);
}

void NsaCompressCpuPlan::window(int64_t b, int64_t c, int64_t len, bool together) const {
  const auto& [size, x, position, lens, y, block, stride] = args_;
  const int64_t rows = together ? 1 : x.shape[2], columns = together ? x.shape[2] * x.shape[3] : x.shape[3];
  const auto bytes = [](const TensorView& t, int64_t elements) { return elements * bits(t.dtype) / 8; };
  for (int64_t h = 0; h < rows; ++h) {
    char* to =
        static_cast<char*>(y.data) + bytes(y, b * y.stride[0] + c * y.stride[1] + (rows > 1 ? h * y.stride[2] : 0));
    if (c * stride + block > len) {
      std::memset(to, 0, bytes(y, columns));
      continue;
    }
    const int64_t from = b * x.stride[0] + c * stride * x.stride[1] + (rows > 1 ? h * x.stride[2] : 0);
    const int64_t of_head = position.present() && position.shape[1] > 1 && rows > 1 ? h * position.stride[1] : 0;
    kernel_(
        {.y = to,
         .x = static_cast<const char*>(x.data) + bytes(x, from),
         .position = position.present() ? static_cast<const char*>(position.data) + bytes(position, of_head) : nullptr,
         .y_dtype = y.dtype,
         .dtype = x.dtype,
         .position_dtype = position.dtype,
         .step = bytes(x, x.stride[1]),
         .position_step = position.present() ? bytes(position, position.stride[0]) : 0,
         .rows = block,
         .columns = columns,
         .factor = 1 / static_cast<float>(block)});
  }
}

std::string NsaCompressCpuPlan::explain() const {
  std::ostringstream json;
  json << R"({"variant":"nsa_compress_cpu_)" << name(std::min(isa_, Isa::avx512)) << R"(","reason":")"
       << (together() ? "the heads of a token are one row" : "a row for each head") << "\"}";
  return json.str();
}

}  // namespace

const kw_op& nsa_compress() {
  static constexpr kw_op op = make_op<NsaCompressArgs, NsaCompressCpuPlan>("nsa_compress");
  return op;
}

}  // namespace kw::cpu
