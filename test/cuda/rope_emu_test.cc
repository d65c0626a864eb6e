// rope through the table of a kernel library: both kinds of pairs, whole and odd pieces, strides, positions of tensors and of a start, in
// place and apart, against the definition, with guard bands around what is written. Arguments: program.h.
#include <cmath>

#include "../../kernels/rope/rope.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;

constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};

void check(const Device& d, unsigned seed) {
  std::mt19937 random(seed);
  constexpr int64_t kDims[] = {2, 16, 30, 32, 64, 72, 128}, kHeads[] = {1, 2, 8, 9, 17};
  constexpr int32_t kFar[] = {0, 1, -3, 4095, 1000000, 2147483647, -2147483647};
  const int64_t dim = pick(random, kDims), heads = pick(random, kHeads), batch = random() % 3, len = 1 + random() % 4;
  const int64_t pad = random() % 3 == 0 ? random() % 9 : 0, offset = random() % 2 ? 0 : random() % 9;
  const DType in = pick(random, kFloats), out = pick(random, kFloats);
  const bool in_place = in == out && random() % 2;
  RopeArgs here, there;
  here.interleaved = random() % 2;
  here.dim_rotary = random() % 3 == 0 ? std::max<int64_t>(2, dim / 4 * 2) : 0;
  here.scaling = static_cast<RopeScaling>(random() % 4);
  here.factor = 8, here.theta = 50000;
  Operand x, y, positions;
  const int64_t pitch = dim + pad;
  const std::vector<int64_t> rows = {len * heads * pitch, heads * pitch, pitch, 1};
  const std::vector<int64_t> crossed = {len * heads * pitch, pitch, len * pitch, 1};
  x.place(d, in, {batch, len, heads, dim}, random() % 2 ? rows : crossed, offset, !in_place);
  x.fill(random, false);
  if (!in_place) y.place(d, out, {batch, len, heads, dim}, random() % 2 ? rows : crossed, random() % 2 ? 0 : 8);
  const auto bind = [&](auto& host, auto& device, Operand& o) {
    static_cast<TensorView&>(host) = o.host, static_cast<TensorView&>(device) = o.device;
    o.upload();
  };
  if (random() % 2) {
    positions.place(d, DType::i32, {batch, len}, {len + 1, 1}, 1, true);
    positions.each([&](int64_t at) { static_cast<int32_t*>(positions.host.data)[at] = pick(random, kFar); });
  } else {
    here.position = pick(random, kFar);
  }
  there = here;
  if (positions.owner) bind(here.positions, there.positions, positions);
  bind(here.x, there.x, x);
  const std::vector<uint8_t> before = x.bytes;
  if (in_place)
    static_cast<TensorView&>(here.y) = x.host, static_cast<TensorView&>(there.y) = x.device;
  else
    bind(here.y, there.y, y);
  ReferenceOutputs reference;
  ref::rope(here, {}, reference);
  const kw_op& op = operator_of(*d.table, "rope");
  kw_plan* plan = nullptr;
  d.must(op.supports(&d.info, &there), "supports");
  d.must(op.plan_create(&d.info, &there, &plan), "plan_create");
  const std::string explained = op.plan_explain(plan);
  for (const char* width : {"\"width\":8", "\"width\":1"}) seen[width] += explained.find(width) != std::string::npos;
  d.must(op.plan_rebind(plan, &there, nullptr), "plan_rebind");
  d.must(op.plan_enqueue(plan, d.stream), "plan_enqueue");
  op.plan_destroy(plan);
  Operand& result = in_place ? x : y;
  result.download();
  d.must(d.sync(), "sync");
  const std::string wrong = compare(result, reference[0], "y");
  expect(wrong.empty(), "seed " + std::to_string(seed) + ", dim " + std::to_string(dim) + ", heads " +
                            std::to_string(heads) + ", " + name(in) + " to " + name(out) + ": " + wrong);
}

void refusals(const Device& d) {
  const kw_op& op = operator_of(*d.table, "rope");
  Operand x, y;
  x.place(d, DType::f32, {1, 1, 1, 1024}, {1024, 1024, 1024, 1}, 0);
  y.place(d, DType::f32, {1, 1, 1, 1024}, {1024, 1024, 1024, 1}, 0);
  RopeArgs args;
  args.dim_rotary = 512;
  static_cast<TensorView&>(args.x) = x.device, static_cast<TensorView&>(args.y) = y.device;
  expect(op.supports(&d.info, &args) == 0, "512 columns turn");
  const auto declines = [&](RopeArgs a, const char* words) {
    expect(op.supports(&d.info, &a) == static_cast<int32_t>(Code::UNSUPPORTED) &&
               std::strstr(d.table->last_error(), words),
           std::string("supports refuses with '") + words + "': " + d.table->last_error());
  };
  RopeArgs bad = args;
  bad.dim_rotary = 0;
  declines(bad, "dim_rotary is 1024, expected at most 512");
  bad = args, bad.y.dtype = DType::f8e4m3;
  declines(bad, "dtype of y is f8e4m3, expected f32, f16 or bf16");
  bad = args, bad.x.stride[3] = 2;
  declines(bad, "the last stride of x is 2, expected 1");
}

}  // namespace

int main(int argc, char** argv) {
  Program program;
  program.turn = [](const Device& d, const Turn& turn) {
    constexpr unsigned kCases = 16;
    for (unsigned i = 0; i < kCases; ++i) check(d, static_cast<unsigned>(turn.of_all) * kCases + i);
    refusals(d);
  };
  program.closing = [](bool) {
    for (const char* width : {"\"width\":8", "\"width\":1"}) expect(seen[width] > 0, std::string("pieces of ") + width);
  };
  return run_program(argc, argv, program);
}
