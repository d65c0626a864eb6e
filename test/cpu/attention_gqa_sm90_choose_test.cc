// Which kernel for compute capability 9.0 runs an attention_gqa (kernels/attention_gqa/attention_gqa_sm90.h): every answer over a
// sweep of shapes, types and features holds the problem and fits the device, every configuration is reached, and the rules say
// what they promise.
#include <cstring>
#include <map>

#include "../../kernels/attention_gqa/attention_gqa_sm90.h"
#include "../counting.h"
#include "gpus.h"

namespace {

using namespace kw;
using namespace kw::attention_gqa_cuda;
using kw::test::expect;

kw_device_info on(const char* name) {
  for (const auto& device : kw::test::kDevices)
    if (!std::strcmp(device.name, name)) return device.info;
  std::abort();
}

void lay(TensorView& t, DType dtype, int64_t batch, int64_t rows, int64_t heads, int64_t dim) {
  t.data = reinterpret_cast<void*>(4096);
  t.dtype = dtype;
  t.rank = 4;
  const int64_t shape[] = {batch, rows, heads, dim}, stride[] = {rows * heads * dim, heads * dim, dim, 1};
  std::copy_n(shape, 4, t.shape), std::copy_n(stride, 4, t.stride);
}

AttentionGqaArgs problem(int64_t batch, int64_t len_q, int64_t len_kv, int64_t heads_q, int64_t heads_kv, int64_t dim,
                         int64_t dim_v, DType dtype = DType::bf16) {
  AttentionGqaArgs a;
  lay(a.q, dtype, batch, len_q, heads_q, dim);
  lay(a.k, dtype, batch, len_kv, heads_kv, dim);
  lay(a.v, dtype, batch, len_kv, heads_kv, dim_v);
  lay(a.y, dtype, batch, len_q, heads_q, dim_v);
  a.scale = 0.1f;
  return a;
}

std::string name_of(const Sm90Choice& choice) { return choice.configuration ? choice.configuration->name : "none"; }

void sweep() {
  const kw_device_info h200 = on("H200");
  std::map<std::string, int> reached;
  constexpr std::pair<int64_t, int64_t> kDims[] = {{8, 24},   {32, 32},   {33, 31},   {64, 64},   {96, 96},  {128, 128},
                                                   {72, 128}, {192, 128}, {192, 192}, {256, 256}, {576, 512}};
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32})
    for (const auto& [dim, dim_v] : kDims)
      for (const int64_t len_q : {0, 1, 16, 100, 128, 777, 4096})
        for (const int64_t len_kv : {0, 1, 100, 8192})
          for (const auto& [heads_q, heads_kv] :
               {std::pair<int64_t, int64_t>{1, 1}, {32, 8}, {28, 4}, {128, 1}, {300, 1}})
            for (const int64_t batch : {1, 7}) {
              const AttentionGqaArgs a = problem(batch, len_q, len_kv, heads_q, heads_kv, dim, dim_v, dtype);
              const Sm90Choice choice = sm90_choose(a, h200);
              ++reached[name_of(choice)];
              expect(choice.reason != "", "every answer has a reason");
              const Sm90Configuration* c = choice.configuration;
              if (!c) continue;
              ++reached[choice.pack == 1 ? "one head per tile" : "heads share tiles"];
              expect(!c->by_name(), "no twin unasked");
              expect(dim <= c->dim && dim_v <= c->dim_v && dtype != DType::f32 && len_q > 0 && len_kv > 0,
                     std::string(c->name) + " holds the problem");
              expect(
                  choice.rows % choice.pack == 0 && choice.rows > c->rows() - choice.pack && heads_q % choice.pack == 0,
                  std::string(c->name) + " has whole queries in a tile");
              expect(choice.row_tiles * choice.rows >= len_q * choice.pack &&
                         choice.tiles == choice.row_tiles * (heads_q / choice.pack) * batch,
                     std::string(c->name) + " has a tile for every row");
              expect(choice.filled >= 0.5 && choice.filled <= 1,
                     std::string(c->name) + " keeps half of the machine busy");
            }
  for (const Sm90Configuration& c : kSm90Configurations) {
    expect(static_cast<uint64_t>(c.smem()) <= h200.smem_bytes, std::string(c.name) + " fits an H200");
    expect(128 * (c.loading_registers() + c.consumers * c.multiplying_registers()) <= 65536,
           std::string(c.name) + " fits the registers");
    expect(c.by_name() == (reached[c.name] == 0), std::string(c.name) + " is reached, unless it is a twin");
    const Sm90Choice wished = sm90_choose(problem(1, 5, 9, 2, 1, c.dim - 8, c.dim_v), h200, c.name);
    expect(wished.configuration == &c, std::string("a wish for ") + c.name + " is met, however few the rows");
  }
  for (const char* what : {"none", "one head per tile", "heads share tiles"})
    expect(reached[what] > 0, std::string("the sweep has ") + what);
}

void rules() {
  const kw_device_info h200 = on("H200");
  const auto named = [&](const AttentionGqaArgs& a) { return name_of(sm90_choose(a, h200)); };
  AttentionGqaArgs prefill = problem(1, 4096, 4096, 32, 8, 128, 128);
  expect(named(prefill) == "sm90_attn_128_full", "a prefill that sees all keys");
  expect(named(problem(1, 4096, 128, 32, 8, 128, 128)) == "sm90_attn_128", "all keys, but they would be padded");
  prefill.causal = true;
  expect(named(prefill) == "sm90_attn_128", "a causal prefill");
  prefill.causal = false, prefill.window_left = 1000;
  expect(named(prefill) == "sm90_attn_128", "a prefill with a window");
  expect(named(problem(64, 1, 4096, 32, 8, 128, 128)) == "none", "a decode step has too few rows");
  expect(sm90_choose(problem(64, 16, 4096, 64, 8, 128, 128), h200).pack == 8, "16 queries of 8 heads fill a tile");
  expect(named(problem(2, 4096, 4096, 128, 128, 192, 128)) == "sm90_attn_192_128", "heads of 192 and 128");
  const auto declines = [&](const char* what, auto change) {
    AttentionGqaArgs a = problem(1, 4096, 4096, 32, 8, 128, 128);
    change(a);
    expect(named(a) == "none", std::string("declined: ") + what);
  };
  declines("rows that begin between 16 bytes", [](AttentionGqaArgs& a) { a.q.data = reinterpret_cast<void*>(4098); });
  declines("rows that lie apart by 4 bytes more", [](AttentionGqaArgs& a) { a.k.stride[1] += 2; });
  declines("one row for all", [](AttentionGqaArgs& a) { a.v.stride[1] = 0; });
  declines("softcap", [](AttentionGqaArgs& a) { a.softcap = 1; });
  declines("a negative scale", [](AttentionGqaArgs& a) { a.scale = -1; });
  declines("batch_invariant", [](AttentionGqaArgs& a) { a.batch_invariant = true; });
  declines("bias", [](AttentionGqaArgs& a) { static_cast<TensorView&>(a.bias) = a.q; });
  declines("mask", [](AttentionGqaArgs& a) { static_cast<TensorView&>(a.mask) = a.q; });
  declines("ALiBi", [](AttentionGqaArgs& a) { static_cast<TensorView&>(a.alibi) = a.q; });
  expect(name_of(sm90_choose(problem(1, 4096, 4096, 32, 8, 128, 128), on("L40S"))) == "none", "99 KB hold no tile");

  const Sm90Roofline whole = sm90_roofline(problem(1, 8192, 8192, 32, 8, 128, 128), h200);
  expect(!std::strcmp(whole.bound(), "matrix") && std::abs(whole.matrix / whole.exponentials - 2) < 1e-9,
         "at 128 wgmma takes twice as long as the powers of two");
  AttentionGqaArgs a = problem(1, 8192, 8192, 32, 8, 128, 128);
  a.causal = true;
  expect(std::abs(sm90_roofline(a, h200).matrix / whole.matrix - 0.5) < 0.01, "a causal mask halves the work");
  a.window_left = 512;
  expect(std::abs(sm90_roofline(a, h200).matrix / whole.matrix - 512.0 / 8192) < 0.01,
         "a window leaves its own length");
  expect(!std::strcmp(sm90_roofline(problem(1, 8192, 8192, 32, 8, 40, 40), h200).bound(), "exp"), "short heads: exp");
  expect(!std::strcmp(sm90_roofline(problem(64, 1, 8192, 32, 8, 128, 128), h200).bound(), "memory"),
         "decoding: memory");
  kw_device_info silent = h200;
  silent.clock_khz = 0;
  expect(sm90_roofline(a, silent).matrix == 0, "no figures without clocks");
}

}  // namespace

int main() {
  sweep();
  rules();
  return kw::test::closing_line();
}
