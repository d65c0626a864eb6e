// gemm through the table of a kernel library, opened as a stranger would: every tile edge, dtype, layout, epilogue and kind of
// view against the definition, with NaN around every operand and guard bands around y; then streams, graphs and errors.
//
// Arguments: program.h. On an emulated device the cases are dealt out over its schedules. It runs on libkernwatt_cuda.so just as
// well.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gemm_problem.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;

// ---- the cases -------------------------------------------------------------------------------------------------------

// Sizes on both sides of every tile edge.
std::vector<GemmCase> cases(size_t share, size_t shares) {
  std::vector<GemmCase> list;
  std::mt19937 random(7);
  constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};
  constexpr float kScales[] = {0, 1, 0.5f, -2};
  Walk<int64_t> ms({0, 1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129}, 1);
  Walk<int64_t> ns({0, 1, 3, 7, 8, 9, 16, 24, 31, 63, 64, 65, 72, 127, 128, 129}, 2);
  Walk<int64_t> ks({0, 1, 2, 8, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 96, 97, 127, 128, 136}, 3);
  Walk<int64_t> activations({0, 0, 1, 2, 3, 4, 5, 6, 7}, 4);
  for (int i = 0; i < 400; ++i) {
    GemmCase t;
    t.m = ms.next(), t.n = ns.next(), t.k = ks.next();
    t.in = kFloats[i % 3];
    t.out = pick(random, kFloats);
    t.trans_x = random() % 2, t.trans_w = random() % 2;
    t.seed = random();
    // Aligned rows, or rows that begin anywhere.
    const bool aligned = random() % 3 != 0;
    const auto layout = [&](int64_t columns) {
      Layout l;
      l.offset = aligned ? 8 * (random() % 3) : random() % 12;
      l.pad = aligned ? (8 - columns % 8) % 8 + 8 * (random() % 2) : random() % 4;
      return l;
    };
    if (random() % 5 == 0)
      t.batch = 1 + random() % 3, t.m = std::min<int64_t>(t.m, 65), t.n = std::min<int64_t>(t.n, 65);
    const bool batched = t.batch > 1;
    t.integers = i % 4 == 0;
    t.activation = static_cast<Activation>(t.integers ? random() % 2 : activations.next());
    const int64_t rows_w = is_gated(t.activation) ? 2 * t.n : t.n;
    t.x_layout = layout(t.trans_x ? t.m : t.k);
    t.w_layout = layout(t.trans_w ? rows_w : t.k);
    t.y_layout = layout(t.n);
    t.c_layout = layout(rows_w);
    t.residual_layout = layout(t.n);
    if (batched) {
      t.x_layout.broadcast = random() % 3 == 0;
      (random() % 2 ? t.w_layout.broadcast : t.w_layout.flat) = true;
      t.c_layout.broadcast = random() % 2;
    } else {
      t.x_layout.flat = t.w_layout.flat = t.y_layout.flat = random() % 2;
    }
    t.bias = random() % 2, t.bias_type = pick(random, kFloats), t.bias_offset = aligned ? 8 : random() % 3;
    t.c = random() % 3 == 0, t.c_type = pick(random, kFloats);
    t.residual = random() % 3 == 0, t.residual_type = pick(random, kFloats);
    if (t.c) t.alpha = pick(random, kScales), t.beta = pick(random, kScales);
    t.in_place_c = t.c && !is_gated(t.activation) && random() % 3 == 0;
    t.in_place_residual = t.residual && !t.in_place_c && random() % 3 == 0;
    t.poison_x = t.alpha == 0, t.poison_c = t.c && t.beta == 0;
    list.push_back(t);
  }
  // Every large tile with its edges; both halves of a gate in one tile; long k.
  const auto large = [&](int64_t m, int64_t n, int64_t k, DType in, Activation activation) {
    GemmCase t;
    t.m = m, t.n = n, t.k = k, t.in = in, t.out = DType::bf16, t.activation = activation;
    t.x_layout.pad = t.w_layout.pad = t.y_layout.pad = 8;
    t.integers = activation == Activation::none;
    list.push_back(t);
  };
  large(256, 512, 32, DType::bf16, Activation::none);
  large(250, 500, 72, DType::f16, Activation::none);
  large(200, 256, 104, DType::bf16, Activation::swiglu);
  large(128, 512, 48, DType::f32, Activation::none);
  large(130, 250, 33, DType::f32, Activation::geglu_tanh);
  large(3, 5, 4096, DType::bf16, Activation::gelu_erf);
  GemmCase looping;  // more matrices than blocks: each block makes several
  looping.m = 5, looping.n = 9, looping.k = 70, looping.batch = 300, looping.integers = true;
  for (const auto& [in, pad] : {std::pair{DType::f32, 0}, {DType::bf16, 2}, {DType::bf16, 1}}) {
    looping.in = in;
    looping.x_layout.pad = looping.w_layout.pad = pad;
    list.push_back(looping);
  }
  std::vector<GemmCase> mine;
  for (size_t i = share; i < list.size(); i += shares) mine.push_back(list[i]);
  return mine;
}

// ---- beyond single cases ---------------------------------------------------------------------------------------------

struct Small {  // y[1][2] = x w, with everything on the device
  Operand x, w, y;
  GemmArgs args;
  std::optional<GemmPlan> plan;
  explicit Small(const Device& d) {
    x.make(d, DType::f32, 1, 1, 4, {.flat = true});
    w.make(d, DType::f32, 1, 2, 4, {.flat = true});
    y.make(d, DType::f32, 1, 1, 2, {.flat = true});
    x.each([&](int64_t at) { store_f32(x.host.data, DType::f32, at, static_cast<float>(at)); });
    w.each([&](int64_t at) { store_f32(w.host.data, DType::f32, at, 1); });
    x.upload(), w.upload(), y.upload();
    static_cast<TensorView&>(args.x) = x.device;
    static_cast<TensorView&>(args.w) = w.device;
    static_cast<TensorView&>(args.y) = y.device;
    plan.emplace(d, args);
  }
  float result(const Device& d, int at) {
    y.download();
    d.must(d.sync(), "sync");
    return load_f32(y.host.data, DType::f32, at);
  }
};

void graphs(const Device& d) {
  Small s(d);
  void* graph = nullptr;
  d.must(d.table->graph_begin(d.stream), "graph_begin");
  d.must(s.plan->enqueue(), "plan_enqueue");
  d.must(d.table->graph_end(d.stream, &graph), "graph_end");
  expect(std::isnan(s.result(d, 0)), "capturing runs nothing");
  d.must(d.table->graph_launch(graph, d.stream), "graph_launch");
  expect(s.result(d, 1) == 6, "a graph runs what it captured");
  store_f32(s.x.host.data, DType::f32, 0, 10);
  s.x.upload();
  for (int i = 0; i < 2; ++i) d.must(d.table->graph_launch(graph, d.stream), "graph_launch");
  expect(s.result(d, 0) == 16, "a graph reads what is there when it runs");
  d.must(d.table->graph_destroy(graph), "graph_destroy");
}

// Two streams of a device at once, each with its own operands and many calls in flight; then the plans go first.
void two_streams(const Device& d) {
  Device other = d;
  other.open();
  {
    Small first(d), second(other);
    store_f32(second.x.host.data, DType::f32, 3, 30);
    second.x.upload();
    for (int i = 0; i < 20; ++i) {
      d.must(first.plan->enqueue(), "plan_enqueue");
      d.must(second.plan->enqueue(), "plan_enqueue");
    }
    expect(second.result(other, 0) == 33, "the second stream's operands are its own");
    expect(first.result(d, 0) == 6, "and so are the first stream's");
  }
  other.close();
}

void refusals(const Device& d) {
  const kw_op& op = gemm_of(*d.table);
  Small s(d);
  const auto declines = [&](GemmArgs args, const char* words) {
    const int32_t status = op.supports(&d.info, &args);
    expect(status == static_cast<int32_t>(Code::UNSUPPORTED) && std::strstr(d.table->last_error(), words),
           std::string("supports refuses with '") + words + "': " + d.table->last_error());
  };
  GemmArgs args = s.args;
  args.w.dtype = DType::bf16;
  declines(args, "dtype of w is bf16, expected f32 as of x");
  args = s.args;
  args.x.dtype = args.w.dtype = DType::i8;
  declines(args, "dtype is i8");
  args = s.args;
  args.y.stride[1] = 2;
  declines(args, "last stride of y is 2, expected 1");
  void* memory = nullptr;
  expect(d.table->alloc(d.index, uint64_t{1} << 50, &memory) == static_cast<int32_t>(Code::OUT_OF_MEMORY),
         "alloc of 2^50 bytes is OUT_OF_MEMORY");
  expect(s.plan->enqueue() == 0 && s.result(d, 0) == 6, "earlier tensors are intact after that");
}

void emulated_only(const Device& d) {
  double seconds, host = 0;
  expect(d.table->event_seconds(d.event, d.event, &seconds) == static_cast<int32_t>(Code::UNSUPPORTED),
         "emulated time is refused");
  expect(d.table->copy(d.index, &host, &host, sizeof(host), KW_ON_DEVICE, d.stream) == static_cast<int32_t>(Code::CUDA),
         "a copy outside device memory is refused");
  Small s(d);
  GemmArgs beyond = s.args;
  beyond.x.data = static_cast<char*>(s.x.device.data) + (1 << 20);
  s.plan->rebind(beyond);
  d.must(s.plan->enqueue(), "plan_enqueue");
  expect(d.sync() == static_cast<int32_t>(Code::CUDA), "reading outside an operand fails the wait");
  expect(std::strstr(d.table->last_error(), "gemm_fma.cuh") != nullptr,
         std::string("and names the source line: ") + d.table->last_error());
  s.plan->rebind(s.args);
  expect(s.plan->enqueue() == 0 && s.result(d, 0) == 6, "the stream goes on once it was reported");
}

}  // namespace

namespace kw::test {  // gemm_emu_configs.cc
void configurations(const Device& d, size_t share, size_t shares);
void properties(const Device& d);
void every_configuration_ran(bool every_device);
}  // namespace kw::test

int main(int argc, char** argv) {
  Program program;
  program.turn = [](const Device& d, const Turn& turn) {
    for (const GemmCase& t : cases(turn.share, turn.shares)) {
      const std::string wrong = run(d, t);
      expect(wrong.empty(), t.text() + ": " + wrong);
    }
    configurations(d, turn.share, turn.shares);
    if (turn.share == 0) properties(d);
    graphs(d);
    two_streams(d);
    refusals(d);
    if (d.info.emulated) emulated_only(d);
  };
  program.closing = every_configuration_ran;
  return run_program(argc, argv, program);
}
