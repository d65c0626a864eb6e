// One product through the table of a kernel library, compared with the definition: what tests of gemm share.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../../kernels/gemm/gemm.h"
#include "plan.h"

namespace kw::test {

inline const kw_op& gemm_of(const kw_table& table) { return operator_of(table, "gemm"); }

struct GemmCase {
  int64_t m = 1, n = 1, k = 1, batch = 1;
  DType in = DType::bf16, out = DType::f32;
  bool trans_x = false, trans_w = false;
  Activation activation = Activation::none;
  float alpha = 1, beta = 0;
  bool c = false, bias = false, residual = false, in_place_c = false, in_place_residual = false;
  DType c_type = DType::f32, bias_type = DType::f32, residual_type = DType::f32;
  Layout x_layout, w_layout, c_layout, residual_layout, y_layout;
  int64_t bias_offset = 0;
  bool integers = false;
  bool poison_x = false, poison_c = false;  // NaN where alpha = 0 or beta = 0 says that nothing reads
  unsigned seed = 1;
  std::string wish;  // KERNWATT_GEMM

  std::string text() const {
    char line[512];
    const auto layout = [](const Layout& l) {
      return std::to_string(l.offset) + "+" + std::to_string(l.pad) + (l.broadcast ? "b" : "") + (l.flat ? "f" : "");
    };
    std::snprintf(line, sizeof(line),
                  "m %ld n %ld k %ld batch %ld %s->%s %s%s %s alpha %g beta %g c %d(%s,%d) bias %d(%s,%ld) residual "
                  "%d(%s,%d) layouts x %s w %s c %s r %s y %s%s",
                  m, n, k, batch, name(in), name(out), trans_x ? "T" : "N", trans_w ? "T" : "N",
                  choice_names(activation).names[static_cast<int>(activation)], alpha, beta, c, name(c_type),
                  in_place_c, bias, name(bias_type), bias_offset, residual, name(residual_type), in_place_residual,
                  layout(x_layout).c_str(), layout(w_layout).c_str(), layout(c_layout).c_str(),
                  layout(residual_layout).c_str(), layout(y_layout).c_str(), integers ? " integers" : "");
    return line + (wish.empty() ? "" : " " + wish);
  }
};

// wish: KERNWATT_GEMM while it is chosen; configuration: one of configurations(), or empty.
class GemmPlan : public BoundPlan {
 public:
  GemmPlan(const Device& d, const GemmArgs& args, const std::string& wish = "", const std::string& configuration = "")
      : BoundPlan(d, gemm_of(*d.table), &args, "KERNWATT_GEMM", wish, configuration) {}
  void rebind(const GemmArgs& args) { BoundPlan::rebind(&args); }
};

// Empty when y is right, else what is wrong.
inline std::string run(const Device& d, const GemmCase& t) {
  std::mt19937 random(t.seed);
  const int64_t rows_w = is_gated(t.activation) ? 2 * t.n : t.n;
  Operand x, w, c, bias, residual, y;
  x.make(d, t.in, t.batch, t.trans_x ? t.k : t.m, t.trans_x ? t.m : t.k, t.x_layout);
  w.make(d, t.in, t.batch, t.trans_w ? t.k : rows_w, t.trans_w ? rows_w : t.k, t.w_layout);
  y.make(d, t.out, t.batch, t.m, t.n, t.y_layout);
  if (!t.poison_x) x.fill(random, t.integers), w.fill(random, t.integers);
  GemmArgs args;
  static_cast<TensorView&>(args.x) = x.host;
  static_cast<TensorView&>(args.w) = w.host;
  static_cast<TensorView&>(args.y) = y.host;
  GemmArgs there = args;
  std::vector<uint8_t> in_place;  // what y holds before, where it is also c or residual
  const auto optional = [&](bool present, bool shared, Operand& o, DType dtype, int64_t rows, int64_t columns,
                            Layout layout, OptionalConstTensor& host, OptionalConstTensor& device, bool poison) {
    if (!present) return;
    if (shared) {
      y.fill(random, t.integers);
      in_place = y.bytes;
      static_cast<TensorView&>(host) = y.host;
      host.data = in_place.data() + t.y_layout.offset * y.size();
      static_cast<TensorView&>(device) = y.device;
      return;
    }
    o.make(d, dtype, t.batch, rows, columns, layout);
    if (!poison) o.fill(random, t.integers);
    static_cast<TensorView&>(host) = o.host;
    static_cast<TensorView&>(device) = o.device;
    o.upload();
  };
  optional(t.c, t.in_place_c, c, t.c_type, t.m, rows_w, t.c_layout, args.c, there.c, t.poison_c);
  optional(t.bias, false, bias, t.bias_type, -1, rows_w, {.offset = t.bias_offset}, args.bias, there.bias, false);
  optional(t.residual, t.in_place_residual, residual, t.residual_type, t.m, t.n, t.residual_layout, args.residual,
           there.residual, false);
  static_cast<TensorView&>(there.x) = x.device;
  static_cast<TensorView&>(there.w) = w.device;
  static_cast<TensorView&>(there.y) = y.device;
  for (GemmArgs* a : {&args, &there}) {
    a->alpha = t.alpha, a->beta = t.beta, a->activation = t.activation;
    a->trans_x = t.trans_x, a->trans_w = t.trans_w;
  }
  x.upload(), w.upload(), y.upload();

  GemmPlan plan(d, there, t.wish);
  int32_t status = plan.enqueue();
  plan.destroy();
  if (!status) y.download();
  if (!status) status = d.sync();
  if (status) return std::string(kCodeNames[status]) + ": " + d.table->last_error();
  const bool parts = plan.splits() > 1 || t.wish.find('/') != std::string::npos;
  const std::string took = plan.variant() + (parts ? "/" + std::to_string(plan.splits()) : "");
  if (!t.wish.empty() && took != t.wish) return "it ran " + took;

  ReferenceOutputs reference;
  ref::gemm(args, {}, reference);
  return compare(y, reference[0], "y", t.integers);
}

}  // namespace kw::test
