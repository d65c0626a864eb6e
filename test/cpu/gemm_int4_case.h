// Problems of gemm_int4 for the tests of its CPU backend: random ones, with w, scales and zeros packed as well.
#pragma once
#include <array>
#include <memory>
#include <numeric>

#include "../../kernels/core/packed.h"
#include "../../kernels/gemm_int4/gemm_int4.h"
#include "../../kernels/gemm_int4/gemm_int4_shape.h"
#include "support.h"

namespace kw::test {

// A tensor of 4-bit elements, its rows without gaps, in memory of its own with guard bytes at the end.
struct Packed {
  std::vector<uint8_t> bytes;
  TensorView view;

  void shape(DType dtype, int64_t rows, int64_t columns) {
    view = {};
    view.dtype = dtype, view.rank = 2;
    view.shape[0] = rows, view.shape[1] = columns, view.stride[0] = columns, view.stride[1] = 1;
    bytes.assign(static_cast<size_t>((rows * columns + 1) / 2 + 3), kGuard);
    view.data = bytes.data();
  }
  void set(int64_t i, int value) {
    uint8_t& b = bytes[static_cast<size_t>(i / 2)];
    b = static_cast<uint8_t>(i % 2 ? (b & 0x0f) | value << 4 : (b & 0xf0) | value);
  }
  void fill(const std::function<int()>& value) {
    for (int64_t i = 0; i < view.count(); ++i) set(i, value());
  }
};

struct Case {
  Holder x, scales, perm, bias, residual, y;
  Packed w, zeros;
  GemmInt4Args args;
  std::string text, packed;  // which operands PackedOperands has packed

  void attach() {
    static_cast<TensorView&>(args.x) = x.view;
    static_cast<TensorView&>(args.w) = w.view;
    static_cast<TensorView&>(args.scales) = scales.view;
    static_cast<TensorView&>(args.zeros) = zeros.view;
    static_cast<TensorView&>(args.perm) = perm.view;
    static_cast<TensorView&>(args.bias) = bias.view;
    static_cast<TensorView&>(args.residual) = residual.view;
    static_cast<TensorView&>(args.y) = y.view;
  }
  void permute(int64_t k) {
    perm.shape(DType::i32, {k});
    auto* p = static_cast<int32_t*>(perm.view.data);
    std::iota(p, p + k, 0);
    std::shuffle(p, p + k, rng);
  }
};

inline void describe(Case& t, const char* isa, int threads) {
  const GemmInt4Args& a = t.args;
  t.text = std::string(isa) + " threads " + std::to_string(threads) + test::describe("x", a.x) +
           test::describe("w", a.w) + test::describe("scales", a.scales) + test::describe("zeros", a.zeros) +
           test::describe("perm", a.perm) + test::describe("bias", a.bias) + test::describe("residual", a.residual) +
           test::describe("y", a.y) + " " + choice_names(a.activation).names[static_cast<int>(a.activation)] +
           (a.mode == Int4Mode::dequant ? " dequant" : "") + (a.accuracy == Int4Accuracy::int8 ? " int8" : "") +
           (a.batch_invariant ? " batch_invariant" : "") + t.packed;
}

inline std::string run(const GemmInt4Args& args, cpu::Isa isa, ThreadPool& pool) {
  return test::run(cpu::gemm_int4(), args, isa, pool);
}

inline ReferenceOutput reference(const GemmInt4Args& args) {
  ReferenceOutputs out;
  ref::gemm_int4(args, RowList{}, out);
  return std::move(out[0]);
}

// For as long as this lives the case has w, scales, zeros, those that are asked for, packed as the backend wants them.
class PackedOperands {
 public:
  PackedOperands(Case& t, cpu::Isa isa, const ThreadPool& pool, std::array<bool, 3> which) : case_(t) {
    const kw_device_info device = test::device_of(isa, pool);
    TensorView* const views[] = {&t.args.w, &t.args.scales, &t.args.zeros};
    constexpr const char* kNames[] = {"w", "scales", "zeros"};
    for (int i = 0; i < 3; ++i) {
      TensorView& view = *views[i];
      plain_[i] = view;
      if (!which[i] || !view.present()) continue;
      view.format = cpu::gemm_int4().format(&device, kNames[i], &plain_[i]);
      if (view.format == 0) continue;
      bytes_[i].assign(packed_bytes(view) + 3, kGuard);
      view.data = bytes_[i].data();
      const int64_t panels = PackedExtent(view).panels();
      pack_panels(plain_[i], view, 0, panels);
      expect(bytes_[i].back() == kGuard, std::string(kNames[i]) + " is packed within its bytes");
      t.packed += std::string(" packed ") + kNames[i];
    }
  }
  ~PackedOperands() {
    static_cast<TensorView&>(case_.args.w) = plain_[0];
    static_cast<TensorView&>(case_.args.scales) = plain_[1];
    static_cast<TensorView&>(case_.args.zeros) = plain_[2];
    case_.packed.clear();
  }
  PackedOperands(const PackedOperands&) = delete;
  PackedOperands& operator=(const PackedOperands&) = delete;

 private:
  Case& case_;
  TensorView plain_[3];
  std::vector<uint8_t> bytes_[3];
};

// A random problem. exact: small whole numbers and an epilogue that keeps every intermediate exact, x rounded to int8
// included: its blocks hold their largest magnitude, 127.
inline std::unique_ptr<Case> random_case(bool exact) {
  auto t = std::make_unique<Case>();
  GemmInt4Args& a = t->args;
  const auto extent = [](std::initializer_list<int64_t> edges, int64_t most) {
    return chance(0.6) ? one_of(edges) : pick(1, most);
  };
  const int64_t m = extent({1, 1, 2, 3, 4, 5, 8, 11, 12, 13, 15, 16, 17, 24, 31, 32, 33, 47, 64, 65, 0}, 90);
  const int64_t n = extent({1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 65, 97, 0}, 150);
  const int64_t group = 32 * (chance(0.7) ? one_of<int64_t>({1, 2, 4}) : pick(1, 40));
  const int64_t groups = chance(0.25) ? 1 : pick(1, std::max<int64_t>(1, 1300 / group)), k = group * groups;
  a.activation = exact ? one_of({Activation::none, Activation::relu}) : static_cast<Activation>(pick(0, 7));
  a.mode = chance(0.25) ? Int4Mode::dequant : Int4Mode::fused;
  a.accuracy = chance(0.4) ? Int4Accuracy::int8 : Int4Accuracy::exact;
  a.batch_invariant = chance(0.2);
  const int64_t rows_w = is_gated(a.activation) ? 2 * n : n;
  const auto any = [] { return one_of({DType::f32, DType::f16, DType::bf16}); };
  const int64_t batch = chance(0.6) ? 0 : pick(1, 4);  // 0: no such dimension
  const auto operand = [&](Holder& h, DType dtype, int64_t columns, bool broadcasts) {
    const int64_t b = batch && broadcasts && chance(0.4) ? one_of<int64_t>({0, 1}) : batch;
    const bool repeats = b > 1 && broadcasts && chance(0.2);
    h.shape(dtype, b ? std::vector<int64_t>{b, m, columns} : std::vector<int64_t>{m, columns}, chance(0.5), {},
            {repeats});
  };
  operand(t->x, any(), k, true);
  operand(t->y, exact ? DType::f32 : any(), n, false);
  const DType type = !exact && chance(0.25) ? DType::nf4 : DType::u4;
  t->w.shape(type, rows_w, k);
  t->scales.shape(any(), {groups, rows_w}, chance(0.5));
  if (type == DType::u4 && chance(0.5)) t->zeros.shape(DType::u4, groups, rows_w);
  if (chance(0.3)) t->permute(k);
  if (chance(0.4)) t->bias.shape(any(), {rows_w}, chance(0.5));
  const bool with_residual = chance(0.4), in_place = chance(0.5);
  if (with_residual && !in_place) operand(t->residual, any(), n, true);

  const bool spread = chance(0.5);
  const auto value = [&, spread] {
    if (exact) return static_cast<float>(pick(-3, 3));
    return spread ? normal() : std::uniform_real_distribution<float>(-1, 1)(rng);
  };
  for (Holder* h : {&t->x, &t->bias, &t->residual}) h->fill(value);
  if (exact && a.accuracy == Int4Accuracy::int8) t->x.fill([&] { return chance(0.5) ? 127.0f : -127.0f; });
  t->scales.fill([&] {
    if (exact) return one_of({1.0f, 2.0f, -1.0f});
    return 0.02f + 0.1f * std::abs(normal());
  });
  t->w.fill([] { return static_cast<int>(pick(0, 15)); });
  t->zeros.fill([] { return static_cast<int>(pick(0, 15)); });
  if (in_place && with_residual) {
    t->y.fill(value);
    t->residual.view = t->y.view;
  }
  t->attach();
  return t;
}

}  // namespace kw::test
