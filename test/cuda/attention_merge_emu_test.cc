// attention_merge through the table of a kernel library: counts of parts around a warp, odd widths and strides, parts that saw
// nothing and hold NaN, against the definition, with guard bands around what is written.
// Arguments: program.h.
#include <cmath>
#include <limits>

#include "../../kernels/attention_merge/attention_merge.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;

constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};

void check(const Device& d, unsigned seed) {
  std::mt19937 random(seed);
  constexpr int64_t kParts[] = {1, 2, 3, 31, 32, 33, 70}, kColumns[] = {1, 7, 32, 64, 100, 255, 256, 300};
  const int64_t parts = kParts[seed % 7], columns = kColumns[random() % 8];
  const int64_t batch = random() % 4, rows = 1 + random() % 5, heads = 1 + random() % 4, pad = random() % 3;
  const DType in = kFloats[random() % 3], out = kFloats[random() % 3];
  Operand y_parts, lse_parts, y, lse;
  const int64_t pitch = columns + pad;
  const bool heads_first = random() % 2;
  const auto strides = [&](bool with_parts) {
    std::vector<int64_t> s = {rows * heads * pitch, heads_first ? pitch : heads * pitch,
                              heads_first ? rows * pitch : pitch, 1};
    if (with_parts) s.insert(s.begin(), batch * rows * heads * pitch);
    return s;
  };
  y_parts.place(d, in, {parts, batch, rows, heads, columns}, strides(true), pad, true);
  lse_parts.place(d, DType::f32, {parts, batch, heads, rows},
                  {batch * heads * (rows + pad), heads * (rows + pad), rows + pad, 1}, 1, true);
  y.place(d, out, {batch, rows, heads, columns}, strides(false), 1);
  lse.place(d, DType::f32, {batch, heads, rows}, {heads * (rows + 2), rows + 2, 1}, pad);
  y_parts.fill(random, false);
  lse_parts.each([&](int64_t at) {
    const double value = random() % 4 ? std::uniform_real_distribution<double>(-30, 30)(random)
                                      : -std::numeric_limits<double>::infinity();
    store_f32(lse_parts.host.data, DType::f32, at, static_cast<float>(value));
  });
  const TensorView &p = y_parts.host, &l = lse_parts.host;
  for (int64_t n = 0; n < parts; ++n)  // one row saw nothing at all; where a part saw nothing, its y is NaN
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < rows; ++i) {
          float* value = static_cast<float*>(l.data) + n * l.stride[0] + b * l.stride[1] + h * l.stride[2] + i;
          if (b + h + i == 0) *value = -std::numeric_limits<float>::infinity();
          if (*value == -std::numeric_limits<float>::infinity())
            for (int64_t e = 0; e < columns; ++e)
              store_f32(p.data, in, n * p.stride[0] + b * p.stride[1] + i * p.stride[2] + h * p.stride[3] + e, NAN);
        }
  AttentionMergeArgs here, there;
  const auto bind = [&](auto& host, auto& device, Operand& o) {
    static_cast<TensorView&>(host) = o.host, static_cast<TensorView&>(device) = o.device;
    o.upload();
  };
  bind(here.y_parts, there.y_parts, y_parts), bind(here.lse_parts, there.lse_parts, lse_parts);
  bind(here.y, there.y, y), bind(here.lse, there.lse, lse);
  const kw_op& op = operator_of(*d.table, "attention_merge");
  kw_plan* plan = nullptr;
  d.must(op.supports(&d.info, &there), "supports");
  d.must(op.plan_create(&d.info, &there, &plan), "plan_create");
  expect(op.plan_workspace(plan) == 0 && std::strstr(op.plan_explain(plan), "merge_rows"), "explained");
  d.must(op.plan_rebind(plan, &there, nullptr), "plan_rebind");
  d.must(op.plan_enqueue(plan, d.stream), "plan_enqueue");
  op.plan_destroy(plan);
  y.download(), lse.download();
  d.must(d.sync(), "sync");
  ReferenceOutputs reference;
  ref::attention_merge(here, {}, reference);
  std::string wrong = compare(y, reference[0], "y");
  if (wrong.empty()) wrong = compare(lse, reference[1], "lse");
  expect(wrong.empty(), "seed " + std::to_string(seed) + ", parts " + std::to_string(parts) + ", columns " +
                            std::to_string(columns) + ", " + name(in) + " to " + name(out) + ": " + wrong);
}

void refusals(const Device& d) {
  const kw_op& op = operator_of(*d.table, "attention_merge");
  Operand y_parts, lse_parts, y, lse;
  y_parts.place(d, DType::f32, {2, 1, 1, 1, 8}, {8, 8, 8, 8, 1}, 0);
  lse_parts.place(d, DType::f32, {2, 1, 1, 1}, {1, 1, 1, 1}, 0);
  y.place(d, DType::f32, {1, 1, 1, 8}, {8, 8, 8, 1}, 0);
  lse.place(d, DType::f32, {1, 1, 1}, {1, 1, 1}, 0);
  AttentionMergeArgs args;
  static_cast<TensorView&>(args.y_parts) = y_parts.device;
  static_cast<TensorView&>(args.lse_parts) = lse_parts.device;
  static_cast<TensorView&>(args.y) = y.device;
  static_cast<TensorView&>(args.lse) = lse.device;
  expect(op.supports(&d.info, &args) == 0, "the plain case is supported");
  const auto declines = [&](AttentionMergeArgs a, const char* words) {
    expect(op.supports(&d.info, &a) == static_cast<int32_t>(Code::UNSUPPORTED) &&
               std::strstr(d.table->last_error(), words),
           std::string("supports refuses with '") + words + "': " + d.table->last_error());
  };
  AttentionMergeArgs bad = args;
  bad.lse_parts.dtype = DType::bf16;
  declines(bad, "dtype of lse_parts is bf16, expected f32");
  bad = args, bad.y.dtype = DType::i32;
  declines(bad, "dtype of y is i32, expected f32, f16 or bf16");
  bad = args, bad.y_parts.stride[4] = 2;
  declines(bad, "the last stride of y_parts is 2, expected 1");
}

}  // namespace

int main(int argc, char** argv) {
  Program program;
  program.turn = [](const Device& d, const Turn& turn) {
    constexpr unsigned kCases = 14;
    for (unsigned i = 0; i < kCases; ++i) check(d, static_cast<unsigned>(turn.of_all) * kCases + i);
    refusals(d);
  };
  return run_program(argc, argv, program);
}
