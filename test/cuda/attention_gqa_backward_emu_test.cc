// attention_gqa_backward through the table of a kernel library: both sides of every tile edge, each compiled head dimension, every
// feature and kind of length against the definition, with guard bands around what is written and NaN where nothing is to be read;
// the same bits when run again; lengths that only the device knows; what it declines. Arguments: program.h.
#include "../../kernels/attention_gqa_backward/attention_gqa_backward.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;

constexpr DType kFloats[] = {DType::bf16, DType::f16, DType::f32};

struct Problem {
  Operand q, k, v, y, lse, dy, dlse, bias, mask, alibi, sink, lens_q, lens_kv, cu_q, cu_kv, dq, dk, dv, dbias, dsink;
  AttentionGqaBackwardArgs here, there;
  std::string text;

  std::vector<std::pair<Operand*, std::pair<TensorView*, TensorView*>>> all() {
    return {{&q, {&here.q, &there.q}},
            {&k, {&here.k, &there.k}},
            {&v, {&here.v, &there.v}},
            {&y, {&here.y, &there.y}},
            {&lse, {&here.lse, &there.lse}},
            {&dy, {&here.dy, &there.dy}},
            {&dlse, {&here.dlse, &there.dlse}},
            {&bias, {&here.bias, &there.bias}},
            {&mask, {&here.mask, &there.mask}},
            {&alibi, {&here.alibi, &there.alibi}},
            {&sink, {&here.sink, &there.sink}},
            {&lens_q, {&here.lens_q, &there.lens_q}},
            {&lens_kv, {&here.lens_kv, &there.lens_kv}},
            {&cu_q, {&here.cu_q, &there.cu_q}},
            {&cu_kv, {&here.cu_kv, &there.cu_kv}},
            {&dq, {&here.dq, &there.dq}},
            {&dk, {&here.dk, &there.dk}},
            {&dv, {&here.dv, &there.dv}},
            {&dbias, {&here.dbias, &there.dbias}},
            {&dsink, {&here.dsink, &there.dsink}}};
  }
  std::vector<std::pair<Operand*, const char*>> outputs() {
    return {{&dq, "dq"}, {&dk, "dk"}, {&dv, "dv"}, {&dbias, "dbias"}, {&dsink, "dsink"}};
  }
  void bind() {
    for (auto& [operand, views] : all()) {
      if (!operand->memory) continue;
      *views.first = operand->host, *views.second = operand->device;
      operand->upload();
    }
  }
};

// Row-major with `pad` elements after each row of the last dimension, which begins `pad` elements into the buffer.
void place(Operand& o, const Device& d, DType type, const std::vector<int64_t>& shape, int64_t pad, bool read_only) {
  std::vector<int64_t> stride(shape.size(), 1);
  int64_t step = shape.back() + pad;
  for (size_t i = shape.size() - 1; i-- > 0; step *= std::max<int64_t>(shape[i], 1)) stride[i] = step;
  o.place(d, type, shape, stride, pad, read_only);
}

void integers(Operand& o, const Device& d, const std::vector<int32_t>& values) {
  o.place(d, DType::i32, {static_cast<int64_t>(values.size())}, {1}, 0, true);
  std::copy(values.begin(), values.end(), static_cast<int32_t*>(o.host.data));
}

std::vector<int32_t> cuts(std::mt19937& random, int64_t sequences, int64_t total) {
  std::vector<int32_t> cu(sequences + 1);
  for (int32_t& c : cu) c = static_cast<int32_t>(random() % (total + 1));
  std::sort(cu.begin(), cu.end());
  return cu;
}

// NaN in the rows (dimension 1, or 2 of [batch, heads, rows]) that lengths or offsets leave out.
void poison(Operand& o, int row_dimension, const std::vector<int32_t>& lens, const std::vector<int32_t>& cu) {
  const TensorView& v = o.host;
  if (v.count() == 0) return;
  o.each([&](int64_t at) {
    const int64_t batch = v.shape[0] > 1 ? at / v.stride[0] : 0, inside = at - batch * v.stride[0];
    const int64_t row = row_dimension == 1 ? inside / v.stride[1] : inside % v.stride[1] / v.stride[2];
    const bool there = !lens.empty() ? row < lens[batch] : cu.empty() || (row >= cu.front() && row < cu.back());
    if (!there) store_f32(v.data, v.dtype, at, NAN);
  });
}

void make(Problem& t, const Device& d, unsigned seed, bool whole) {
  std::mt19937 random(seed);
  constexpr int64_t kDims[] = {32, 64, 96, 128, 192, 256, 1, 8, 33, 72, 100, 160, 255};
  constexpr int64_t kLengths[] = {0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129, 160};
  const DType in = kFloats[seed % 3], out = random() % 2 ? in : pick(random, kFloats);
  const int64_t dim = kDims[seed / 3 % 13], dim_v = whole ? 4 : random() % 2 ? dim : pick(random, kDims);
  int64_t len_q = pick(random, kLengths), len_kv = pick(random, kLengths);
  const int64_t heads_kv = 1 + random() % 2, heads = heads_kv * (1 + random() % 3);
  if (!full && len_q * len_kv * heads * (dim + dim_v) > 1'000'000) len_q = 1 + len_q % 40;
  const int lengths = static_cast<int>(random() % 6);  // 1: lens_q, 2: lens_kv, 3: both, 4: packed
  const int64_t batch = lengths == 4 ? 1 : 1 + random() % 2, pad = random() % 3 ? 0 : random() % 8;
  AttentionGqaBackwardArgs& a = t.here;
  a.scale = whole ? 0.5f : 1 / std::sqrt(static_cast<float>(dim));
  a.softcap = !whole && random() % 4 == 0 ? 2.0f : 0;
  a.causal = random() % 3 == 0;
  if (random() % 4 == 0) a.window_left = random() % 70;
  if (random() % 4 == 0) a.window_right = random() % 70;
  const auto input = [&](Operand& o, DType type, const std::vector<int64_t>& shape) {
    place(o, d, type, shape, pad, true);
    o.fill(random, whole);
  };
  input(t.q, in, {batch, len_q, heads, dim}), input(t.k, in, {batch, len_kv, heads_kv, dim});
  input(t.v, in, {batch, len_kv, heads_kv, dim_v}), input(t.dy, in, {batch, len_q, heads, dim_v});
  input(t.y, out, {batch, len_q, heads, dim_v}), input(t.lse, DType::f32, {batch, heads, len_q});
  t.lse.each([&](int64_t at) {  // far below every score, or about that of many keys
    store_f32(t.lse.host.data, DType::f32, at, whole ? -1e4f : 3 + static_cast<float>(random() % 3));
  });
  if (random() % 3 == 0) input(t.dlse, DType::f32, {batch, heads, len_q});
  const int64_t bias_batch = random() % 2 ? batch : 1, bias_heads = random() % 2 ? heads : 1;
  const bool biased = random() % 3 == 0, sunk = random() % 3 == 0;
  if (biased) input(t.bias, pick(random, kFloats), {bias_batch, bias_heads, len_q, len_kv});
  if (sunk) input(t.sink, DType::f32, {heads}), t.sink.host.rank = t.sink.device.rank = 1;
  if (random() % 4 == 0) input(t.alibi, DType::f32, {heads});
  if (random() % 4 == 0) {
    a.mask_block_q = 1 + random() % 20, a.mask_block_kv = 1 + random() % 20;
    place(t.mask, d, DType::u8,
          {1, heads, (len_q + a.mask_block_q - 1) / a.mask_block_q, (len_kv + a.mask_block_kv - 1) / a.mask_block_kv},
          0, true);
    t.mask.each([&](int64_t at) { static_cast<uint8_t*>(t.mask.host.data)[at] = random() % 3 ? 1 : 0; });
  }
  std::vector<int32_t> lens_q, lens_kv, cu_q, cu_kv;
  for (int64_t b = 0; b < batch; ++b) {
    if (lengths == 1 || lengths == 3) lens_q.push_back(static_cast<int32_t>(random() % (len_q + 1)));
    if (lengths == 2 || lengths == 3) lens_kv.push_back(static_cast<int32_t>(random() % (len_kv + 1)));
  }
  if (lengths == 4) cu_q = cuts(random, 3, len_q), cu_kv = cuts(random, 3, len_kv);
  if (!lens_q.empty()) integers(t.lens_q, d, lens_q);
  if (!lens_kv.empty()) integers(t.lens_kv, d, lens_kv);
  if (!cu_q.empty()) integers(t.cu_q, d, cu_q), integers(t.cu_kv, d, cu_kv);
  for (Operand* o : {&t.q, &t.dy, &t.y}) poison(*o, 1, lens_q, cu_q);
  poison(t.lse, 2, lens_q, cu_q);
  for (Operand* o : {&t.k, &t.v}) poison(*o, 1, lens_kv, cu_kv);
  place(t.dq, d, out, {batch, len_q, heads, dim}, pad, false);
  place(t.dk, d, out, {batch, len_kv, heads_kv, dim}, pad, false);
  place(t.dv, d, pick(random, kFloats), {batch, len_kv, heads_kv, dim_v}, pad, false);
  place(t.dbias, d, out, {biased ? bias_batch : 0, biased ? bias_heads : 0, len_q, len_kv}, pad, false);
  place(t.dsink, d, DType::f32, {sunk ? heads : 0}, 0, false);
  t.there = t.here;
  t.bind();
  char line[300];
  std::snprintf(
      line, sizeof(line),
      "seed %u%s: %s, batch %ld, %ld x %ld, heads %ld/%ld, dim %ld/%ld, causal %d, window %ld %ld, lengths %d, bias %d",
      seed, whole ? " whole" : "", name(in), batch, len_q, len_kv, heads, heads_kv, dim, dim_v, a.causal, a.window_left,
      a.window_right, lengths, biased);
  t.text = line;
}

std::string run(const Device& d, Problem& t) {
  const kw_op& op = operator_of(*d.table, "attention_gqa_backward");
  kw_plan* plan = nullptr;
  void* workspace = nullptr;
  d.must(op.supports(&d.info, &t.there), "supports");
  d.must(op.plan_create(&d.info, &t.there, &plan), "plan_create");
  const uint64_t bytes = op.plan_workspace(plan);
  if (bytes) d.must(d.table->alloc(d.index, bytes, &workspace), "alloc");
  d.must(op.plan_rebind(plan, &t.there, workspace), "plan_rebind");
  ++seen[std::strstr(op.plan_explain(plan), "\"mma\"") ? "mma" : "fma"];
  int32_t status = op.plan_enqueue(plan, d.stream);
  for (auto& [operand, what] : t.outputs()) operand->download();
  const int32_t ended = d.sync();
  status = status ? status : ended;
  const std::string error = status ? std::string(kCodeNames[status]) + ": " + d.table->last_error() : "";
  op.plan_destroy(plan);
  if (workspace) d.table->free(d.index, workspace);
  return error;
}

void check(const Device& d, unsigned seed, bool whole) {
  Problem t;
  make(t, d, seed, whole);
  std::string wrong = run(d, t);
  std::vector<std::vector<uint8_t>> first;
  if (wrong.empty()) {
    ReferenceOutputs reference;
    ref::attention_gqa_backward(t.here, {}, reference);
    for (size_t i = 0; auto& [operand, what] : t.outputs()) {
      if (wrong.empty()) wrong = compare(*operand, reference[i], what, whole);
      first.push_back(operand->bytes), ++i;
    }
  }
  if (wrong.empty() && seed % 4 == 0) {
    wrong = run(d, t);
    for (size_t i = 0; auto& [operand, what] : t.outputs())
      if (operand->bytes != first[i++] && wrong.empty()) wrong = std::string(what) + " has other bits when run again";
  }
  expect(wrong.empty(), t.text + ": " + wrong);
}

// Lengths that do not fit are reported, by name and number.
void lengths(const Device& d) {
  const auto refused = [&](const std::vector<int32_t>& values, bool packed, const char* words) {
    Problem t;
    for (auto [o, rows] :
         {std::pair{&t.q, 6}, {&t.y, 6}, {&t.dy, 6}, {&t.dq, 6}, {&t.k, 8}, {&t.v, 8}, {&t.dk, 8}, {&t.dv, 8}})
      place(*o, d, DType::f32, {packed ? 1 : 2, rows, 1, 4}, 0, false);
    place(t.lse, d, DType::f32, {packed ? 1 : 2, 1, 6}, 0, true);
    place(t.dbias, d, DType::f32, {0, 0, 6, 8}, 0, false), place(t.dsink, d, DType::f32, {0}, 0, false);
    integers(packed ? t.cu_q : t.lens_kv, d, values);
    if (packed) integers(t.cu_kv, d, {0, 4, 8});
    t.bind();
    const std::string wrong = run(d, t);
    expect(wrong.find(words) != std::string::npos, std::string(words) + ": got " + wrong);
  };
  refused({8, 9}, false, "attention_gqa_backward: lens_kv[1] is 9, expected 0 to 8");
  refused({0, 4, 3}, true, "attention_gqa_backward: cu_q[2] is 3, expected 4 to 6");
}

void refusals(const Device& d) {
  const kw_op& op = operator_of(*d.table, "attention_gqa_backward");
  Problem t;
  make(t, d, 9, false);
  const auto declines = [&](const auto& change, const char* words) {
    AttentionGqaBackwardArgs bad = t.there;
    change(bad);
    expect(op.supports(&d.info, &bad) == static_cast<int32_t>(Code::UNSUPPORTED) &&
               std::strstr(d.table->last_error(), words),
           std::string("supports refuses with '") + words + "': " + d.table->last_error());
  };
  expect(op.supports(&d.info, &t.there) == 0, "the plain case is supported");
  declines([](auto& a) { a.lse.dtype = DType::bf16; }, "dtype of lse is bf16, expected f32");
  declines([](auto& a) { a.dy.dtype = DType::i32; }, "dtype of dy is i32, expected bf16");
  declines([](auto& a) { a.q.stride[3] = 2; }, "the last stride of q is 2, expected 1");
  declines([](auto& a) { a.q.shape[3] = 257; }, "dim is 257, expected 1 to 256");
}

}  // namespace

int main(int argc, char** argv) {
  Program program;
  program.turn = [](const Device& d, const Turn& turn) {
    const unsigned cases = full ? 400 : race ? 8 : 16;
    for (unsigned i = 0; i < cases; ++i) {
      const unsigned seed = static_cast<unsigned>(turn.of_all) * cases + i;
      check(d, seed, false);
      if (i % 2 == 0) check(d, seed, true);
    }
    lengths(d);
    refusals(d);
  };
  program.closing = [](bool) {
    for (const char* kind : {"mma", "fma"}) expect(seen[kind] > 0, std::string(kind) + " was never chosen");
  };
  return run_program(argc, argv, program);
}
