// peak on the CPU. read and copy: a task is a row. multiply: a task is a tile of y, packed once and then multiplied for all
// rounds out of registers and the first-level cache. spin: a task is a row, one scalar chain.
//
// Which instructions multiply: f32 fused multiply-adds; bf16 tdpbf16ps or vdpbf16ps where the instruction set has it,
// else, like f16, multiply-adds on values widened before.
//
// Sources, one object each, with what they are compiled for (all but the first two on x86-64 only):
//   peak_cpu.cc, peak_cpu_generic.cc   -O3
//   peak_cpu_avx2.cc                   -O3 -mavx2 -mfma -mf16c
//   peak_cpu_avx512.cc                 -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
//   peak_cpu_avx512bf16.cc             the same and -mavx512bf16
//   peak_cpu_amxbf16.cc                that and -mamx-tile -mamx-bf16
#include "peak_cpu.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/plan.h"
#include "../core/threads.h"

namespace kw::cpu {
namespace {

const PeakKernels& kernels_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::amx_bf16) return kPeakAmxBf16;
  if (isa == Isa::avx512_bf16) return kPeakAvx512Bf16;
  if (isa == Isa::avx512) return kPeakAvx512;
  if (isa == Isa::avx2) return kPeakAvx2;
#endif
  (void)isa;
  return kPeakGeneric;
}

const char* start_of(const TensorView& t, int64_t row) {
  return static_cast<const char*>(t.data) + row * t.stride[0] * bits(t.dtype) / 8;
}

class PeakCpuPlan {
 public:
  static std::string declines(const PeakArgs&, const kw_device_info&);
  PeakCpuPlan(const PeakArgs& args, const kw_device_info& device)
      : kernels_(kernels_for(static_cast<Isa>(device.isa))), args_(args) {}
  uint64_t workspace() const { return 0; }
  void rebind(const PeakArgs& args, void*) { args_ = args; }
  void enqueue(void* stream) const;
  std::string explain() const;

 private:
  bool pairs() const { return args_.x.dtype == DType::bf16 && kernels_.pairs; }
  float* y(int64_t row) const { return static_cast<float*>(args_.y.data) + row * args_.y.stride[0]; }
  void multiply(int64_t tile) const;
  void spin(int64_t row) const;

  const PeakKernels& kernels_;
  PeakArgs args_;
};

std::string PeakCpuPlan::declines(const PeakArgs& args, const kw_device_info&) {
  const auto expected = [](const std::string& what, const std::string& received, const std::string& wanted) {
    return "peak: " + what + " is " + received + ", expected " + wanted;
  };
  if (!is_float(args.x.dtype)) return expected("dtype of x", name(args.x.dtype), "f32, f16 or bf16");
  if (args.w.present() && args.w.dtype != args.x.dtype)
    return expected("dtype of w", name(args.w.dtype), std::string(name(args.x.dtype)) + " as of x");
  if (args.y.dtype != DType::f32) return expected("dtype of y", name(args.y.dtype), "f32");
  if (args.load >= PeakLoad::multiply && args.x.shape[1] > kPeakDepth)
    return expected("columns", std::to_string(args.x.shape[1]), "at most " + std::to_string(kPeakDepth));
  const std::pair<const char*, const TensorView&> tensors[] = {{"x", args.x}, {"w", args.w}, {"y", args.y}};
  for (const auto& [name, t] : tensors) {
    if (t.present() && t.dim(-1) > 1 && t.step(-1) != 1)
      return expected(std::string("last stride of ") + name, std::to_string(t.step(-1)), "1");
  }
  return "";
}

void PeakCpuPlan::enqueue(void* stream) const {
  auto& pool = *static_cast<ThreadPool*>(stream);
  const int64_t rows = args_.y.shape[0], columns = args_.x.shape[1], width = args_.y.shape[1];
  const auto each = [&pool](int64_t count, auto&& body) {
    pool.parallel_for(count, [&body](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) body(i);
    });
  };
  switch (args_.load) {
    case PeakLoad::read:
      return each(rows, [&](int64_t i) { *y(i) = kernels_.sum(args_.x.dtype, start_of(args_.x, i), columns); });
    case PeakLoad::copy:
      return each(rows, [&](int64_t i) { kernels_.copy(args_.x.dtype, y(i), start_of(args_.x, i), columns); });
    case PeakLoad::multiply:
      return each((rows + kPeakRows - 1) / kPeakRows * ((width + kPeakWidth - 1) / kPeakWidth),
                  [&](int64_t tile) { multiply(tile); });
    case PeakLoad::spin:
      return each(rows, [&](int64_t i) { spin(i); });
  }
}

// Tiles go along the rows first.
void PeakCpuPlan::multiply(int64_t tile) const {
  alignas(64) float x[2 * kPeakDepth * kPeakRows] = {}, w[kPeakDepth * kPeakWidth] = {}, s[kPeakRows * kPeakWidth];
  const int64_t rows = args_.y.shape[0], width = args_.y.shape[1], tiles = (rows + kPeakRows - 1) / kPeakRows;
  const int64_t row0 = tile % tiles * kPeakRows, column0 = tile / tiles * kPeakWidth;
  const int high = static_cast<int>(std::min<int64_t>(kPeakRows, rows - row0));
  const int wide = static_cast<int>(std::min<int64_t>(kPeakWidth, width - column0));
  const int columns = static_cast<int>(args_.x.shape[1]), depth = pairs() ? (columns + 1) / 2 : columns;
  // Cell k of a line: a number, or two bf16, the second 0 where the columns are odd.
  const auto cell = [&](const TensorView& t, int64_t line, int k, uint32_t sign) {
    if (!pairs()) return load_f32(start_of(t, line), t.dtype, k);
    const auto* halves = reinterpret_cast<const uint16_t*>(start_of(t, line)) + 2 * k;
    const uint32_t upper = 2 * k + 1 < columns ? halves[1] : 0;
    return std::bit_cast<float>((uint32_t{halves[0]} | upper << 16) ^ sign);
  };
  for (int k = 0; k < depth; ++k) {
    for (int i = 0; i < high; ++i) {
      x[k * kPeakRows + i] = cell(args_.x, row0 + i, k, 0);
      if (pairs()) x[(depth + k) * kPeakRows + i] = cell(args_.x, row0 + i, k, 0x80008000u);
    }
    for (int r = 0; r < wide; ++r) w[k * kPeakWidth + r] = cell(args_.w, column0 + r, k, 0);
  }
  (pairs() ? kernels_.pairs : kernels_.multiply)({x, w, s, depth, args_.rounds});
  for (int i = 0; i < high; ++i) std::copy_n(s + i * kPeakWidth, wide, y(row0 + i) + column0);
}

void PeakCpuPlan::spin(int64_t row) const {
  const int columns = static_cast<int>(args_.x.shape[1]);
  float x[kPeakDepth], w[kPeakDepth];
  for (int j = 0; j < columns; ++j) x[j] = load_f32(start_of(args_.x, row), args_.x.dtype, j);
  for (int64_t r = 0; r < args_.y.shape[1]; ++r) {
    for (int j = 0; j < columns; ++j) w[j] = load_f32(start_of(args_.w, r), args_.w.dtype, j);
    float s = 0;
    for (int64_t t = 0; t < args_.rounds; ++t)
      for (int j = 0; j < columns; ++j) s += t % 2 ? -x[j] * w[j] : x[j] * w[j];
    y(row)[r] = s;
  }
}

std::string PeakCpuPlan::explain() const {
  const char* unit = args_.load == PeakLoad::read || args_.load == PeakLoad::copy ? "memory"
                     : args_.load == PeakLoad::spin                               ? "none"
                     : pairs()                                                    ? "dot_bf16"
                                                                                  : "fma_f32";
  return std::string(R"({"variant":"peak_cpu_)") + kernels_.name + R"(","unit":")" + unit + R"("})";
}

}  // namespace

const kw_op& peak() {
  static constexpr kw_op op = make_op<PeakArgs, PeakCpuPlan>("peak");
  return op;
}

}  // namespace kw::cpu
