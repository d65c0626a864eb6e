// One product with 4-bit weights through the table of a kernel library, compared with the definition.
#pragma once
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>

#include "../../kernels/gemm_int4/gemm_int4.h"
#include "plan.h"

namespace kw::test::int4 {

inline constexpr const char* kVariable = "KERNWATT_GEMM_INT4";
inline constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16}, kHalves[] = {DType::bf16, DType::f16};

inline const kw_op& op_of(const Device& d) { return operator_of(*d.table, "gemm_int4"); }

struct Case {
  int64_t m = 1, n = 1, k = 32, batch = 1, groups = 1;
  DType in = DType::bf16, out = DType::f32, scale_type = DType::bf16;
  DType bias_type = DType::f32, residual_type = DType::f32;
  bool zeros = false, perm = false, normal_float = false, bias = false, residual = false, integers = false;
  bool invariant = false;
  Int4Mode mode = Int4Mode::fused;
  Activation activation = Activation::none;
  Layout x_layout, y_layout, residual_layout;
  int64_t scale_offset = 0, scale_pad = 0, zeros_offset = 0, bias_offset = 0;  // zeros: bytes
  unsigned seed = 1;
  std::string wish;

  int64_t rows_w() const { return is_gated(activation) ? 2 * n : n; }
  std::string text() const {
    char line[400];
    std::snprintf(
        line, sizeof(line),
        "m %ld n %ld k %ld batch %ld groups %ld %s->%s scales %s+%ld+%ld zeros %d+%ld perm %d nf4 %d bias %d(%s) "
        "residual %d(%s) %s x %ld+%ld y %ld+%ld%s%s seed %u ",
        m, n, k, batch, groups, name(in), name(out), name(scale_type), scale_offset, scale_pad, zeros, zeros_offset,
        perm, normal_float, bias, name(bias_type), residual, name(residual_type),
        choice_names(activation).names[static_cast<int>(activation)], x_layout.offset, x_layout.pad, y_layout.offset,
        y_layout.pad, integers ? " integers" : "", mode == Int4Mode::dequant ? " dequant" : "", seed);
    return line + wish;
  }
};

// The operands of a case on both sides.
struct Problem {
  Operand x, w, scales, zeros, perm, bias, residual, y;
  GemmInt4Args host, there;

  Problem(const Device& d, const Case& t) {
    std::mt19937 random(t.seed);
    const int64_t rows = t.rows_w();
    x.make(d, t.in, t.batch, t.m, t.k, t.x_layout);
    x.fill(random, t.integers);
    y.make(d, t.out, t.batch, t.m, t.n, t.y_layout);
    // What is only read ends where its buffer does, so that the emulator reports a read past it.
    scales.place(d, t.scale_type, {t.groups, rows}, {rows + t.scale_pad, 1}, t.scale_offset, true);
    std::uniform_real_distribution<float> real(0.01f, 0.2f);
    scales.each([&](int64_t at) {
      const float power = static_cast<float>(1 << random() % 4) / 4;
      store_f32(scales.host.data, t.scale_type, at, t.integers ? power : real(random));
    });
    const auto bytes = [&](Operand& o, int64_t count, int64_t offset) {
      o.place(d, DType::u8, {(count + 1) / 2}, {1}, offset, true);
      o.each([&](int64_t at) { static_cast<uint8_t*>(o.host.data)[at] = static_cast<uint8_t>(random()); });
    };
    bytes(w, rows * t.k, 0);
    take(host.w, there.w, w);
    four_bits(host.w, t.normal_float ? DType::nf4 : DType::u4, rows, t.k);
    four_bits(there.w, t.normal_float ? DType::nf4 : DType::u4, rows, t.k);
    if (t.zeros) {
      bytes(zeros, t.groups * rows, t.zeros_offset);
      take(host.zeros, there.zeros, zeros);
      four_bits(host.zeros, DType::u4, t.groups, rows), four_bits(there.zeros, DType::u4, t.groups, rows);
    }
    if (t.perm) {
      perm.place(d, DType::i32, {t.k}, {1}, 0, true);
      std::iota(order(), order() + t.k, 0);
      std::shuffle(order(), order() + t.k, random);
      take(host.perm, there.perm, perm);
    }
    if (t.bias) {
      bias.make(d, t.bias_type, 1, -1, rows, {.offset = t.bias_offset});
      bias.fill(random, t.integers);
      take(host.bias, there.bias, bias);
    }
    if (t.residual) {
      residual.make(d, t.residual_type, t.batch, t.m, t.n, t.residual_layout);
      residual.fill(random, t.integers);
      take(host.residual, there.residual, residual);
    }
    take(host.x, there.x, x), take(host.scales, there.scales, scales), take(host.y, there.y, y);
    for (GemmInt4Args* a : {&host, &there})
      a->activation = t.activation, a->mode = t.mode, a->batch_invariant = t.invariant;
  }
  int32_t* order() { return static_cast<int32_t*>(perm.host.data); }

  std::string wrong(bool exact) {
    ReferenceOutputs reference;
    ref::gemm_int4(host, {}, reference);
    return compare(y, reference[0], "y", exact);
  }

 private:
  static void take(TensorView& host, TensorView& device, Operand& o) {
    host = o.host, device = o.device;
    o.upload();
  }
  static void four_bits(TensorView& v, DType dtype, int64_t rows, int64_t columns) {
    v.dtype = dtype, v.rank = 2;
    v.shape[0] = rows, v.shape[1] = columns, v.stride[0] = columns, v.stride[1] = 1;
  }
};

class Plan : public BoundPlan {
 public:
  Plan(const Device& d, const GemmInt4Args& args, const std::string& wish = "", const std::string& configuration = "")
      : BoundPlan(d, op_of(d), &args, kVariable, wish, configuration) {}
};

inline std::string finish(const Device& d, Operand& y, int32_t enqueued) {
  int32_t status = enqueued;
  if (!status) y.download();
  if (!status) status = d.sync();
  return status ? std::string(kCodeNames[status]) + ": " + d.table->last_error() : "";
}

// Empty when y is right, else what is wrong.
inline std::string run(const Device& d, const Case& t) {
  Problem problem(d, t);
  Plan plan(d, problem.there, t.wish);
  const int32_t status = plan.enqueue();
  plan.destroy();  // queued work must not need it
  const std::string failed = finish(d, problem.y, status);
  if (!failed.empty()) return failed;
  const bool parts = plan.splits() > 1 || t.wish.find('/') != std::string::npos;
  const std::string took = plan.variant() + (parts ? "/" + std::to_string(plan.splits()) : "");
  if (!t.wish.empty() && took != t.wish) return "it ran " + took;
  return problem.wrong(t.integers);
}

inline void check(const Device& d, const Case& t) {
  const std::string wrong = run(d, t);
  expect(wrong.empty(), t.text() + ": " + wrong);
}

}  // namespace kw::test::int4
