// attention_gqa's kernels for compute capability 9.0 through the table of a kernel library: every configuration of
// attention_gqa_sm90.h by name, in both dtypes, with sizes on both sides of a tile's edges and of the rings' ends, windows, sinks,
// lengths, packed sequences, groups that share tiles, and tile after tile in one block; its twins, with weights in
// shared memory and with the simple schedule, give the same bits. Then what they decline, and that nothing runs them unasked.
//
// Arguments: program.h; --full takes every pair of edges with every feature instead of a sample of them. It runs on
// libkernwatt_cuda.so just as well.
#include "../../kernels/attention_gqa/attention_gqa_sm90.h"
#include "attention_gqa_problem.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;
using attention_gqa_cuda::kSm90Configurations;
using attention_gqa_cuda::Sm90Configuration;

constexpr DType kTypes[] = {DType::bf16, DType::f16};
constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};
constexpr Order kAligned[] = {Order::heads_first, Order::padded, Order::interleaved, Order::rows};

// A problem with a plan for one configuration alone.
class Named {
 public:
  Named(const Device& d, const Case& t, const char* name) : name_(name), problem(d, t) {}
  std::string run() {
    setenv("KERNWATT_ATTENTION_GQA", name_, 1);
    std::string wrong;
    try {
      wrong = problem.run();
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    unsetenv("KERNWATT_ATTENTION_GQA");
    if (wrong.empty() && problem.chosen["variant"] != "\"" + std::string(name_) + "\"")
      wrong = "ran " + problem.chosen["variant"];
    ++seen[name_ + std::string(problem.chosen["headsPerTile"] == "1" ? "" : " sharing tiles")];
    return wrong;
  }

 private:
  const char* name_;

 public:
  Problem problem;
};

void check_as(const Device& d, const Case& t, const Sm90Configuration& c) {
  Named named(d, t, c.name);
  std::string wrong = named.run();
  if (wrong.empty()) wrong = named.problem.check();
  expect(wrong.empty(), std::string(c.name) + " " + t.text() + ": " + wrong);
}

enum Feature { plain, causal, windowed, lengths, packed, sharing, kFeatures };

Case dressed(const Sm90Configuration& c, DType in, int64_t len_q, int64_t len_kv, Feature feature,
             std::mt19937& random) {
  Case t;
  t.in = in, t.out = random() % 2 ? in : pick(random, kFloats);
  t.len_q = len_q, t.len_kv = len_kv, t.seed = random();
  const int shorter[] = {0, 0, 8, 31};  // dimensions that are padded
  t.dim = c.dim - pick(random, shorter), t.dim_v = c.dim_v - pick(random, shorter);
  const auto order = [&](int64_t dim) { return kAligned[random() % (dim % 8 ? 3 : 4)]; };
  t.order[0] = order(t.dim), t.order[1] = order(t.dim), t.order[2] = order(t.dim_v), t.order[3] = pick(random, kOrders);
  t.spread = random() % 4 == 0 ? 8 : 1;
  t.scale = random() % 4 == 0 ? 0.3f : 0;
  t.sink = random() % 4 == 0;
  const int64_t groups[] = {1, 1, 2, 3};
  t.heads_kv = 1 + random() % 2, t.heads_q = t.heads_kv * pick(random, groups);
  if (len_q * len_kv > 256 * 256) t.heads_kv = t.heads_q = 1;
  const auto some = [&](int64_t most) { return static_cast<int32_t>(random() % (most + 1)); };
  t.causal = feature == causal || random() % 3 == 0;
  switch (feature) {
    case windowed:
      t.left = some(len_kv);
      if (random() % 2) t.right = some(len_kv), t.causal = false;
      break;
    case lengths:
      t.batch = 2;
      for (int b = 0; b < 2; ++b) {
        t.lens_kv.push_back(b ? static_cast<int32_t>(std::max<int64_t>(len_kv - 1, 0)) : some(len_kv));
        if (t.sink) t.lens_q.push_back(some(len_q));
      }
      break;
    case packed:
      for (int n = 0; n < 4; ++n) t.cu_q.push_back(some(len_q)), t.cu_kv.push_back(some(len_kv));
      std::sort(t.cu_q.begin(), t.cu_q.end()), std::sort(t.cu_kv.begin(), t.cu_kv.end());
      break;
    case sharing: {
      const int64_t sizes[] = {2, 4, 7, 16, 20};
      t.heads_kv = 1, t.heads_q = pick(random, sizes);
      t.len_q = std::max<int64_t>(1, len_q / t.heads_q);
      break;
    }
    default:
      break;
  }
  return t;
}

void configurations(const Device& whole, size_t share, size_t shares) {
  std::mt19937 random(static_cast<unsigned>(71 + share));
  size_t turn = 0;
  for (const Sm90Configuration& c : kSm90Configurations) {
    const int64_t rows = c.rows(), keys = c.keys;
    Walk<int64_t> queries({1, 65, rows - 1, rows, rows + 1, 2 * rows + 3}, random());
    Walk<int64_t> lens({1, keys - 1, keys, keys + 1, (c.stages + 1) * keys, (2 * c.stages + 1) * keys + 5}, random());
    const std::vector<int64_t> every_q = {1, rows - 1, rows, rows + 1, 2 * rows + 3};
    const std::vector<int64_t> every_kv = {1, keys - 1, keys, keys + 1, (2 * c.stages + 1) * keys + 5};
    for (const DType in : kTypes)
      for (int feature = 0; feature < kFeatures; ++feature) {
        const auto one = [&](int64_t len_q, int64_t len_kv) {
          Device d = whole;  // one that makes several tiles per block, and has its keys in L2 by turns
          d.info.sm_count = static_cast<int32_t>(1 + random() % 5);
          d.info.llc_bytes = random() % 2 ? 64 << 20 : 1;
          check_as(d, dressed(c, in, len_q, len_kv, static_cast<Feature>(feature), random), c);
        };
        if (full) {
          for (const int64_t len_q : every_q)
            for (const int64_t len_kv : every_kv)
              if ((turn++) % shares == share) one(len_q, len_kv);
        } else if (turn++ % shares == share) {
          for (int i = 0; i < (race ? 1 : 2); ++i) one(queries.next(), lens.next());
        }
      }
  }
}

// With q = 0 every visible key weighs 1, and over 2^n keys the mean of integers is exact in f32: every bit of the sums counts.
void exact(const Device& d) {
  for (const Sm90Configuration& c : kSm90Configurations)
    for (const DType in : kTypes) {
      Case t;
      t.in = in, t.out = DType::f32, t.zero_q = true, t.seed = static_cast<unsigned>(c.dim + c.keys);
      t.len_q = race ? 70 : c.rows() + 6, t.len_kv = 256, t.dim = c.dim, t.dim_v = c.dim_v;
      check_as(d, t, c);
      if (race) continue;
      t.len_kv = 400, t.left = 15, t.right = 0;  // each row 16 keys, another 16 for the next row
      check_as(d, t, c);
    }
}

std::vector<uint8_t> bits_of(Operand& o) { return o.bytes; }

// Weights through registers and through shared memory, products beside softmax or after it: the same bits. So have two runs of
// one plan.
void twins(const Device& d) {
  for (const Sm90Configuration& c : kSm90Configurations)
    for (const DType in : kTypes) {
      if (c.by_name() || (race && in == DType::f16)) continue;
      Case t;
      t.in = t.out = in, t.dim = c.dim, t.dim_v = c.dim_v, t.causal = true, t.spread = 4, t.seed = 9;
      t.len_q = c.rows() + 5, t.len_kv = 3 * c.keys + 9;
      if (race) t.len_q = c.rows() / 2 + 1, t.len_kv = 2 * c.keys + 9;
      Named one(d, t, c.name);
      const std::string wrong = one.run();
      const std::vector<uint8_t> y = bits_of(one.problem.y), lse = bits_of(one.problem.lse);
      expect(wrong.empty() && one.problem.run().empty() && bits_of(one.problem.y) == y,
             std::string(c.name) + " twice: " + wrong);
      for (const Sm90Configuration& twin : kSm90Configurations) {
        if (!twin.by_name() || twin.dim != c.dim || twin.dim_v != c.dim_v || twin.keys != c.keys) continue;
        Named other(d, t, twin.name);
        const std::string different = other.run();
        expect(different.empty() && bits_of(other.problem.y) == y && bits_of(other.problem.lse) == lse,
               std::string(c.name) + " and " + twin.name + " give the same bits: " + different);
      }
    }
}

// A row that sees no key is 0 even where the values it does not see are NaN.
void empty_rows(const Device& d) {
  for (const Sm90Configuration& c : kSm90Configurations) {
    if (race && c.by_name()) continue;
    Case t;
    t.in = t.out = DType::bf16, t.dim = c.dim, t.dim_v = c.dim_v, t.causal = true;
    t.len_q = 40, t.len_kv = 2;
    Named named(d, t, c.name);
    Problem& p = named.problem;
    p.v.each([&](int64_t at) { store_f32(p.v.host.data, t.in, at, std::numeric_limits<float>::quiet_NaN()); });
    p.v.upload();
    std::string wrong = named.run();
    for (int64_t i = 0; i < t.len_q - t.len_kv && wrong.empty(); ++i) {
      for (int64_t e = 0; e < c.dim_v; ++e)
        if (load_f32(p.y.host.data, t.out, i * c.dim_v + e) != 0) wrong = "row " + std::to_string(i) + " is not 0";
      if (load_f32(p.lse.host.data, DType::f32, i) != -std::numeric_limits<float>::infinity())
        wrong = "lse of row " + std::to_string(i) + " is not -inf";
    }
    expect(wrong.empty(), std::string(c.name) + ": empty rows: " + wrong);
  }
}

// What they decline runs all the same, on the portable kernels; without leave they never run.
void choices(const Device& d) {
  const auto explained = [&](const Case& t, const Device& device) {
    Problem p(device, t);
    p.plan();
    return std::string(operator_of(*device.table, "attention_gqa").plan_explain(p.handle()));
  };
  const auto is_sm90 = [](const std::string& text) {
    return text.find("\"variant\":\"sm90_attn_") != std::string::npos;
  };
  Device small = d;  // where few rows are enough
  small.info.sm_count = 2;
  Case t;
  t.len_q = 256, t.len_kv = 200, t.heads_q = 2, t.dim = t.dim_v = 128;
  const std::string chosen = explained(t, small);
  expect(chosen.find("\"variant\":\"sm90_attn_128\"") != std::string::npos, "one of them is chosen: " + chosen);
  for (const char* part :
       {"\"tile\":[128,128]", "\"stages\":2", "\"registers\":[40,232]", "\"smemBytes\":164352", "\"bound\":"})
    expect(chosen.find(part) != std::string::npos, std::string("explain() has ") + part + ": " + chosen);
  const auto declined = [&](const char* why, auto change) {
    Case other = t;
    change(other);
    const std::string text = explained(other, small);
    expect(!is_sm90(text) && text.find(std::string("no kernel for 9.0: ") + why) != std::string::npos,
           std::string("declined: ") + why + ": " + text);
  };
  declined("q is f32", [](Case& o) { o.in = DType::f32; });
  declined("batch_invariant", [](Case& o) { o.batch_invariant = true; });
  declined("they take no bias, mask or ALiBi", [](Case& o) { o.bias = 1; });
  declined("they take no bias, mask or ALiBi", [](Case& o) { o.mask = 1; });
  declined("they take no bias, mask or ALiBi", [](Case& o) { o.alibi = true; });
  declined("they take no softcap", [](Case& o) { o.softcap = 30; });
  declined("they take no scale of 0 or less", [](Case& o) { o.scale = -1; });
  declined("heads of 32 or less", [](Case& o) { o.dim = o.dim_v = 32; });
  declined("rows of q do not lie", [](Case& o) { o.order[0] = Order::misaligned; });
  declined("rows of k do not lie", [](Case& o) { o.order[1] = Order::misaligned; });
  declined("rows of v do not lie", [](Case& o) { o.order[2] = Order::misaligned; });
  declined("few rows", [](Case& o) { o.len_q = 1; });
  Device neighbour = small;
  neighbour.info.cc_minor = 1;
  expect(!is_sm90(explained(t, neighbour)), "not on another compute capability");
  setenv("KERNWATT_ATTENTION_GQA", "sm90_attn_64", 1);
  Problem p(d, t);
  const int32_t status = operator_of(*d.table, "attention_gqa").supports(&d.info, &p.there());
  expect(status == static_cast<int32_t>(Code::UNSUPPORTED), "a name that cannot compute it is declined, not replaced");
  unsetenv("KERNWATT_ATTENTION_GQA");
  unsetenv("KERNWATT_UNPROVED");
  const std::string without = explained(t, small);
  expect(!is_sm90(without) && without.find("no kernel for 9.0: no GPU has proved it yet") != std::string::npos,
         "not without KERNWATT_UNPROVED=1, and explain() says so: " + without);
  setenv("KERNWATT_UNPROVED", "1", 1);
}

}  // namespace

int main(int argc, char** argv) {
  Program program = sm90_program();
  program.turn = [](const Device& d, const Turn& turn) {
    configurations(d, turn.share, turn.shares);
    if (turn.share == 0) choices(d), empty_rows(d);
    if (turn.share == turn.shares / 2) twins(d);
    if (turn.share == turn.shares - 1) exact(d);
  };
  program.closing = [](bool) {
    for (const Sm90Configuration& c : kSm90Configurations)
      for (const char* how : {"", " sharing tiles"})
        expect(seen[std::string(c.name) + how] > 0, std::string("some case runs ") + c.name + how);
  };
  return run_program(argc, argv, program);
}
