// The CPU backend of attention_merge, every instruction set this machine has, against the definition: random cases over dtypes,
// layouts and parts without keys, whose y is NaN; one part bit for bit; equal results for any number of threads; and parts of
// attention_gqa's definition merged into the whole. Built by test/cpu/CMakeLists.txt.
//
//   attention_merge_cpu_test [cases [seed]]
#include "../../kernels/attention_gqa/attention_gqa.h"
#include "../../kernels/attention_merge/attention_merge.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::test;

constexpr float kNone = -std::numeric_limits<float>::infinity();

struct Case {
  Holder y_parts, lse_parts, y, lse;
  AttentionMergeArgs args;
  std::string text;

  void attach(cpu::Isa isa) {
    static_cast<TensorView&>(args.y_parts) = y_parts.view;
    static_cast<TensorView&>(args.lse_parts) = lse_parts.view;
    static_cast<TensorView&>(args.y) = y.view;
    static_cast<TensorView&>(args.lse) = lse.view;
    text = cpu::name(isa);
    for_each_field(args, [this](const char* field, auto& value) { text += describe(field, value); });
  }
};

void shape(Case& t, int64_t parts, int64_t batch, int64_t len, int64_t heads, int64_t columns, DType in, DType out) {
  const bool inside = chance(0.3);  // parts side by side within a row
  t.y_parts.shape(in, {parts, batch, len, heads, columns}, chance(0.5),
                  inside ? std::vector<int>{1, 2, 3, 0, 4} : std::vector<int>{0, 1, 2, 3, 4});
  t.lse_parts.shape(DType::f32, {parts, batch, heads, len}, chance(0.5),
                    inside ? std::vector<int>{1, 3, 2, 0} : std::vector<int>{0, 1, 2, 3});
  t.y.shape(out, {batch, len, heads, columns}, chance(0.5),
            chance(0.3) ? std::vector<int>{0, 2, 1, 3} : std::vector<int>{});
  t.lse.shape(DType::f32, {batch, heads, len}, chance(0.5),
              chance(0.3) ? std::vector<int>{2, 0, 1} : std::vector<int>{});
}

// Parts with an lse of -inf keep a y of NaN.
void fill(Case& t, double empty, const std::function<float()>& value) {
  t.lse_parts.fill([empty] { return chance(empty) ? kNone : 5 * normal(); });
  t.y_parts.each([&](int64_t at, const int64_t* i) {
    const int64_t* stride = t.lse_parts.view.stride;
    const float lse = static_cast<const float*>(
        t.lse_parts.view.data)[i[0] * stride[0] + i[1] * stride[1] + i[3] * stride[2] + i[2] * stride[3]];
    if (lse != kNone) store_f32(t.y_parts.view.data, t.y_parts.view.dtype, at, value());
  });
}

void check(Case& t, cpu::Isa isa, bool exact, ThreadPool& pool, ThreadPool& other) {
  t.attach(isa);
  ReferenceOutputs r;
  ref::attention_merge(t.args, RowList{}, r);
  const std::string explained = run(cpu::attention_merge(), t.args, isa, pool);
  if (explained.rfind("{\"variant\":\"attention_merge_cpu_", 0) != 0) return expect(false, t.text + ": " + explained);
  compare(t.text + ": y", t.y, r[0], exact);
  compare(t.text + ": lse", t.lse, r[1], exact);
  const std::vector<uint8_t> y = t.y.bytes, lse = t.lse.bytes;
  run(cpu::attention_merge(), t.args, isa, other);
  expect(t.y.bytes == y && t.lse.bytes == lse, t.text + ": differs with other threads");
}

void random_cases(int cases, cpu::Isa isa, ThreadPool& pool, ThreadPool& other) {
  for (int n = 0; n < cases; ++n) {
    const bool exact = n % 4 == 0;  // one part: its very values
    const auto any = [] { return one_of({DType::f32, DType::f16, DType::bf16}); };
    const int64_t parts = exact ? 1 : one_of<int64_t>({0, 1, 2, 3, 5, 8, 17, 40});
    const int64_t columns = one_of<int64_t>({1, 3, 8, 15, 16, 17, 33, 64, 65, 100, 128, 256});
    const DType in = any();
    Case t;
    shape(t, parts, one_of<int64_t>({0, 1, 1, 3}), one_of<int64_t>({0, 1, 2, 9, 70}), one_of<int64_t>({1, 2, 5}),
          columns, in, exact ? one_of({in, DType::f32}) : any());
    fill(t, one_of({0.0, 0.3, 1.0}), normal);
    check(t, isa, exact, pool, other);
  }
}

// attention_gqa over three parts of the keys, the second empty for early rows, is attention_gqa over all of them.
void check_identity(cpu::Isa isa, ThreadPool& pool) {
  const int64_t batch = 2, len_q = 9, len_kv = 31, heads = 4, dim = 16, dim_v = 24;
  Holder q, k, v, y, lse, sink;
  q.shape(DType::f32, {batch, len_q, heads, dim}), k.shape(DType::f32, {batch, len_kv, 2, dim});
  v.shape(DType::f32, {batch, len_kv, 2, dim_v}), y.shape(DType::f32, {batch, len_q, heads, dim_v});
  lse.shape(DType::f32, {batch, heads, len_q}), sink.shape(DType::f32, {heads});
  for (Holder* h : {&q, &k, &v, &sink}) h->fill(normal);
  AttentionGqaArgs whole;
  static_cast<TensorView&>(whole.q) = q.view, static_cast<TensorView&>(whole.k) = k.view;
  static_cast<TensorView&>(whole.v) = v.view, static_cast<TensorView&>(whole.sink) = sink.view;
  static_cast<TensorView&>(whole.y) = y.view, static_cast<TensorView&>(whole.lse) = lse.view;
  whole.scale = 0.25f;
  ReferenceOutputs expected;
  ref::attention_gqa(whole, RowList{}, expected);

  Case t;
  shape(t, 3, batch, len_q, heads, dim_v, DType::f32, DType::f32);
  const int64_t cuts[] = {0, 11, 11, 31};
  for (int64_t n = 0; n < 3; ++n) {
    AttentionGqaArgs part = whole;
    for (TensorView* view : {static_cast<TensorView*>(&part.k), static_cast<TensorView*>(&part.v)}) {
      view->data = static_cast<float*>(view->data) + cuts[n] * view->stride[1];
      view->shape[1] = cuts[n + 1] - cuts[n];
    }
    if (n != 0) part.sink = {};
    ReferenceOutputs r;
    ref::attention_gqa(part, RowList{}, r);
    int64_t next = 0;
    t.y_parts.each([&](int64_t at, const int64_t* i) {
      if (i[0] == n) static_cast<float*>(t.y_parts.view.data)[at] = static_cast<float>(r[0].value[next++]);
    });
    next = 0;
    t.lse_parts.each([&](int64_t at, const int64_t* i) {
      if (i[0] == n) static_cast<float*>(t.lse_parts.view.data)[at] = static_cast<float>(r[1].value[next++]);
    });
  }
  t.attach(isa);
  run(cpu::attention_merge(), t.args, isa, pool);
  for (ReferenceOutput& r : expected) std::fill(r.slack.begin(), r.slack.end(), 2e-6);
  compare("merged parts: y", t.y, expected[0], false);
  compare("merged parts: lse", t.lse, expected[1], false);
}

void check_declines(ThreadPool& pool) {
  const auto declined = [&pool](Case& t, const char* message) {
    const std::string result = run(cpu::attention_merge(), t.args, cpu::Isa::generic, pool);
    expect(result == std::string("declined: attention_merge: ") + message, "declines: got " + result);
  };
  Case t;
  shape(t, 2, 1, 3, 1, 4, DType::f32, DType::f32);
  t.attach(cpu::Isa::generic), t.args.lse_parts.dtype = DType::bf16;
  declined(t, "lse_parts is bf16, expected f32");
  t.attach(cpu::Isa::generic), t.args.y.dtype = DType::i8;
  declined(t, "y is i8, expected f32, f16 or bf16");
  t.attach(cpu::Isa::generic), t.args.y_parts.stride[4] = 2;
  declined(t, "last dimension of y_parts has stride 2, expected 1");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv, 400);
  each_isa(arguments, [&](cpu::Isa isa, Pools& pools) {
    random_cases(arguments.cases, isa, pools.two, pools.three);
    check_identity(isa, pools.two);
    check_declines(pools.two);
  });
  return closing_line();
}
