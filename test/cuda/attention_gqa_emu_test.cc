// attention_gqa through the table of a kernel library: every tile edge, head dimension, feature, layout and kind of length
// against the definition, with NaN wherever nothing may be read and guard bands around what is written; then exact sums,
// bits that must not depend on anything else, lengths that are wrong, and repetition.
//
//   attention_gqa_emu_test LIBRARY.so [--full] [--device N]...     last line: "N passed, N failed"; exit 1 on a failure
//
// On an emulated device the cases are dealt out over its schedules. It runs on libkernwatt_cuda.so just as well.
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "../../kernels/attention_gqa/attention_gqa.h"
#include "harness.h"

namespace {

using namespace kw;
using namespace kw::test;

std::map<std::string, int> seen;  // variants and other choices that plans explained
bool full = false, race = false;  // race: the build that checks every access, which takes four times as long

// How [batch, length, heads, dim] lies in memory.
enum class Order { rows, heads_first, padded, interleaved, misaligned };
constexpr Order kOrders[] = {Order::rows, Order::heads_first, Order::padded, Order::interleaved, Order::misaligned};

struct Case {
  int64_t batch = 1, len_q = 1, len_kv = 1, heads_q = 1, heads_kv = 1, dim = 64, dim_v = 64;
  DType in = DType::bf16, out = DType::bf16;
  Order order = Order::rows;
  float scale = 0;  // 0: 1 / sqrt(dim)
  float softcap = 0;
  bool causal = false;
  int64_t left = -1, right = -1;
  int bias = 0;  // 1: whole, 2: one batch, 3: one head, 4: both one
  DType bias_type = DType::f32;
  int mask = 0;  // likewise
  int64_t mask_q = 1, mask_kv = 1;
  double mask_density = 0.7;
  bool alibi = false, sink = false;
  std::vector<int32_t> lens_q, lens_kv, cu_q, cu_kv;
  bool batch_invariant = false;
  bool zero_q = false;  // with integer values: every visible key weighs the same, so sums are exact
  float spread = 1;     // of q: larger means sharper softmax
  unsigned seed = 1;

  std::string text() const {
    const auto list = [](const std::vector<int32_t>& values) {
      std::string s;
      for (int32_t v : values) s += (s.empty() ? "" : ",") + std::to_string(v);
      return s.empty() ? std::string("-") : s;
    };
    char line[600];
    std::snprintf(
        line, sizeof(line),
        "batch %ld q %ld kv %ld heads %ld/%ld dim %ld/%ld %s->%s order %d scale %g cap %g causal %d window "
        "%ld,%ld bias %d(%s) mask %d(%ldx%ld %g) alibi %d sink %d lens %s|%s cu %s|%s invariant %d zero %d spread "
        "%g seed %u",
        batch, len_q, len_kv, heads_q, heads_kv, dim, dim_v, name(in), name(out), static_cast<int>(order), scale,
        softcap, causal, left, right, bias, name(bias_type), mask, mask_q, mask_kv, mask_density, alibi, sink,
        list(lens_q).c_str(), list(lens_kv).c_str(), list(cu_q).c_str(), list(cu_kv).c_str(), batch_invariant, zero_q,
        spread, seed);
    return line;
  }
};

// ---- one problem -----------------------------------------------------------------------------------------------------

void place_rows(Operand& o, const Device& d, DType type, Order order, int64_t batch, int64_t rows, int64_t heads,
                int64_t dim) {
  const std::vector<int64_t> shape = {batch, rows, heads, dim};
  const int64_t wide = (dim + 7) / 8 * 8;
  switch (order) {
    case Order::rows:
      return o.place(d, type, shape, {rows * heads * dim, heads * dim, dim, 1}, 0);
    case Order::heads_first:
      return o.place(d, type, shape, {heads * rows * wide, wide, rows * wide, 1}, 8);
    case Order::padded:
      return o.place(d, type, shape, {(rows * heads + 3) * (wide + 8), heads * (wide + 8), wide + 8, 1}, 16);
    case Order::interleaved:  // as a slice of one tensor of q, k and v
      return o.place(d, type, shape, {rows * 3 * heads * wide, 3 * heads * wide, wide, 1}, heads * wide);
    case Order::misaligned:
      return o.place(d, type, shape, {(rows * heads + 1) * (dim + 1) + 1, heads * (dim + 1), dim + 1, 1}, 1);
  }
}

// [batch, heads, rows, columns], with one batch (2, 4) or one head (3, 4).
void place_plane(Operand& o, const Device& d, DType type, int kind, int64_t batch, int64_t heads, int64_t rows,
                 int64_t columns) {
  const bool one_batch = kind == 2 || kind == 4, one_head = kind == 3 || kind == 4;
  const int64_t stored = one_head ? 1 : heads, pitch = columns + 1;
  // One batch by its size, one head by its stride.
  o.place(d, type, {one_batch ? 1 : batch, heads, rows, columns},
          {stored * rows * pitch, one_head ? 0 : rows * pitch, pitch, 1}, 1);
}

class Problem {
 public:
  Problem(const Device& d, const Case& t) : d_(d), t_(t), op_(operator_of(*d.table, "attention_gqa")) {
    std::mt19937 random(t.seed);
    place_rows(q, d, t.in, t.order, t.batch, t.len_q, t.heads_q, t.dim);
    place_rows(k, d, t.in, t.order, t.batch, t.len_kv, t.heads_kv, t.dim);
    place_rows(v, d, t.in, t.order, t.batch, t.len_kv, t.heads_kv, t.dim_v);
    place_rows(y, d, t.out, t.order, t.batch, t.len_q, t.heads_q, t.dim_v);
    lse.place(d, DType::f32, {t.batch, t.heads_q, t.len_q},
              t.order == Order::padded ? std::vector<int64_t>{t.heads_q * (t.len_q + 2), t.len_q + 2, 1}
                                       : std::vector<int64_t>{t.heads_q * t.len_q, t.len_q, 1},
              t.order == Order::padded ? 3 : 0);
    q.fill(random, false);
    if (t.zero_q || t.spread != 1)
      q.each([&](int64_t at) {
        store_f32(q.host.data, t.in, at, t.zero_q ? 0 : t.spread * load_f32(q.host.data, t.in, at));
      });
    k.fill(random, false);
    v.fill(random, t.zero_q);
    bind(host_.q, there_.q, q), bind(host_.k, there_.k, k), bind(host_.v, there_.v, v);
    bind(host_.y, there_.y, y), bind(host_.lse, there_.lse, lse);
    if (t.bias) {
      place_plane(bias, d, t.bias_type, t.bias, t.batch, t.heads_q, t.len_q, t.len_kv);
      bias.fill(random, false);
      bind(host_.bias, there_.bias, bias);
    }
    if (t.mask) {
      place_plane(mask, d, DType::u8, t.mask, t.batch, t.heads_q, (t.len_q + t.mask_q - 1) / t.mask_q,
                  (t.len_kv + t.mask_kv - 1) / t.mask_kv);
      std::bernoulli_distribution visible(t.mask_density);
      mask.each([&](int64_t at) {
        static_cast<uint8_t*>(mask.host.data)[at] = static_cast<uint8_t>(visible(random) ? 1 + random() % 255 : 0);
      });
      bind(host_.mask, there_.mask, mask);
    }
    const auto vector = [&](bool given, Operand& o, OptionalConstTensor& here, OptionalConstTensor& there) {
      if (!given) return;
      o.place(d, DType::f32, {t.heads_q}, {1}, 1);
      o.fill(random, false);
      bind(here, there, o);
    };
    vector(t.alibi, alibi, host_.alibi, there_.alibi);
    vector(t.sink, sink, host_.sink, there_.sink);
    const auto lengths = [&](const std::vector<int32_t>& values, Operand& o, OptionalConstTensor& here,
                             OptionalConstTensor& there) {
      if (values.empty()) return;
      o.place(d, DType::i32, {static_cast<int64_t>(values.size())}, {1}, 3);
      std::copy(values.begin(), values.end(), static_cast<int32_t*>(o.host.data));
      bind(here, there, o);
    };
    lengths(t.lens_q, lens_q, host_.lens_q, there_.lens_q);
    lengths(t.lens_kv, lens_kv, host_.lens_kv, there_.lens_kv);
    lengths(t.cu_q, cu_q, host_.cu_q, there_.cu_q);
    lengths(t.cu_kv, cu_kv, host_.cu_kv, there_.cu_kv);
    poison();
    for (AttentionGqaArgs* a : {&host_, &there_}) {
      a->scale = t.scale != 0 ? t.scale : 1 / std::sqrt(static_cast<float>(t.dim));
      a->softcap = t.softcap, a->causal = t.causal;
      a->window_left = t.left, a->window_right = t.right;
      a->mask_block_q = t.mask_q, a->mask_block_kv = t.mask_kv;
      a->batch_invariant = t.batch_invariant;
    }
    for (Operand* o : all())
      if (o->memory) o->upload();
  }
  ~Problem() {
    if (plan_) op_.plan_destroy(plan_);
    if (workspace_) d_.table->free(d_.index, workspace_);
  }

  // Creates the plan, and notes what it chose.
  void plan() {
    d_.must(op_.supports(&d_.info, &there_), "supports");
    d_.must(op_.plan_create(&d_.info, &there_, &plan_), "plan_create");
    const uint64_t bytes = op_.plan_workspace(plan_);
    if (bytes) d_.must(d_.table->alloc(d_.index, bytes, &workspace_), "alloc");
    d_.must(op_.plan_rebind(plan_, &there_, workspace_), "plan_rebind");
    const std::string explained = op_.plan_explain(plan_);
    for (const char* key : {"variant", "splits", "headsPerTile", "asyncCopies", "maskTilesSkipped", "headDim"}) {
      const std::string quoted = std::string("\"") + key + "\":";
      const size_t from = explained.find(quoted) + quoted.size();
      const size_t to = explained[from] == '[' ? explained.find(']', from) + 1 : explained.find_first_of(",}", from);
      const std::string value = explained.substr(from, to - from);
      chosen[key] = value;
      ++seen[std::string(key) + (std::string(key) == "splits" && value != "1" ? " more" : " " + value)];
    }
  }
  int32_t enqueue() { return op_.plan_enqueue(plan_, d_.stream); }

  // Runs once; empty, or what went wrong.
  std::string run() {
    if (!plan_) plan();
    int32_t status = enqueue();
    if (!status) y.download(), lse.download();
    if (!status) status = d_.sync();
    return status ? std::string(kCodeNames[status]) + ": " + d_.table->last_error() : "";
  }

  // Both outputs against the definition, and everything around them.
  std::string check() {
    ReferenceOutputs reference;
    ref::attention_gqa(host_, {}, reference);
    const std::string wrong = compare(y, reference[0], "y", t_.zero_q);
    return !wrong.empty() ? wrong : compare(lse, reference[1], "lse", false);
  }

  const Case& description() const { return t_; }
  AttentionGqaArgs& there() { return there_; }
  kw_plan* handle() const { return plan_; }
  void* workspace() const { return workspace_; }
  Operand q, k, v, bias, mask, alibi, sink, lens_q, lens_kv, cu_q, cu_kv, y, lse;
  std::map<std::string, std::string> chosen;

 private:
  template <class Tensor>
  static void bind(Tensor& here, Tensor& there, const Operand& o) {
    static_cast<TensorView&>(here) = o.host;
    static_cast<TensorView&>(there) = o.device;
  }
  std::vector<Operand*> all() {
    return {&q, &k, &v, &bias, &mask, &alibi, &sink, &lens_q, &lens_kv, &cu_q, &cu_kv, &y, &lse};
  }

  // NaN in every row of q, k and v that is not there.
  void poison() {
    const auto rows = [&](Operand& o, const std::vector<int32_t>& lens, const std::vector<int32_t>& cu) {
      if (o.host.count() == 0) return;
      for (int64_t b = 0; b < t_.batch; ++b)
        for (int64_t i = 0; i < o.host.shape[1]; ++i) {
          bool there = true;
          if (!lens.empty()) there = i < lens[b];
          if (!cu.empty()) there = i >= cu.front() && i < cu.back();
          for (int64_t h = 0; h < o.host.shape[2] && !there; ++h)
            for (int64_t e = 0; e < o.host.shape[3]; ++e)
              store_f32(o.host.data, o.host.dtype,
                        b * o.host.stride[0] + i * o.host.stride[1] + h * o.host.stride[2] + e,
                        std::numeric_limits<float>::quiet_NaN());
        }
    };
    rows(q, t_.lens_q, t_.cu_q);
    rows(k, t_.lens_kv, t_.cu_kv);
    rows(v, t_.lens_kv, t_.cu_kv);
  }

  static std::string compare(const Operand& o, const ReferenceOutput& reference, const char* what, bool exact) {
    std::set<int64_t> inside;
    std::string wrong;
    const TensorView& view = o.host;
    const DType type = view.dtype;
    int64_t i = 0;
    std::vector<int64_t> at(1, 0);
    for (int dimension = 0; dimension < view.rank; ++dimension) {  // every element in the order of the reference
      std::vector<int64_t> next;
      for (int64_t from : at)
        for (int64_t n = 0; n < view.shape[dimension]; ++n) next.push_back(from + n * view.stride[dimension]);
      at = std::move(next);
    }
    for (int64_t index : at) {
      inside.insert(index);
      const double value = reference.value[i], actual = load_f32(view.data, type, index);
      const double wanted = exact ? rounded(type, static_cast<float>(value)) : value;
      const double allowed =
          exact ? 0 : 2 * std::abs(reference.plain[i] - value) + ulp(type, value) + reference.slack[i];
      const bool same = actual == wanted || (std::isnan(actual) && std::isnan(wanted));
      if (!same && !(std::abs(actual - wanted) <= allowed) && wrong.empty()) {
        char line[200];
        std::snprintf(line, sizeof(line), "%s[%ld][%ld] is %.9g, expected %.9g within %.3g", what, i / view.dim(-1),
                      i % view.dim(-1), actual, wanted, allowed);
        wrong = line;
      }
      ++i;
    }
    if (!wrong.empty() || view.count() == 0) return wrong;
    const int64_t size = o.size();
    const int64_t base = (static_cast<const uint8_t*>(view.data) - o.bytes.data()) / size;
    for (int64_t index = -base; index < static_cast<int64_t>(o.bytes.size()) / size - base; ++index)
      if (!inside.count(index) && std::memcmp(&o.bytes[(index + base) * size], &o.before[(index + base) * size], size))
        return "element " + std::to_string(index) + " outside " + what + " was written";
    return "";
  }

  const Device& d_;
  const Case t_;
  const kw_op& op_;
  AttentionGqaArgs host_, there_;
  kw_plan* plan_ = nullptr;
  void* workspace_ = nullptr;
};

void check(const Device& d, const Case& t) {
  Problem problem(d, t);
  std::string wrong = problem.run();
  if (wrong.empty()) wrong = problem.check();
  expect(wrong.empty(), t.text() + ": " + wrong);
}

// ---- the cases -------------------------------------------------------------------------------------------------------

template <class T, size_t N>
T pick(std::mt19937& random, const T (&from)[N]) {
  return from[random() % N];
}

// A list walked through in a random order, so that every entry occurs.
template <class T>
class Walk {
 public:
  Walk(std::vector<T> values, unsigned seed) : values_(std::move(values)), random_(seed) {}
  T next() {
    if (at_ % values_.size() == 0) std::shuffle(values_.begin(), values_.end(), random_);
    return values_[at_++ % values_.size()];
  }

 private:
  std::vector<T> values_;
  std::mt19937 random_;
  size_t at_ = 0;
};

std::vector<int32_t> offsets(std::mt19937& random, int64_t sequences, int64_t total, bool gaps) {
  std::vector<int32_t> cu(sequences + 1);
  for (int32_t& c : cu) c = static_cast<int32_t>(random() % (total + 1));
  std::sort(cu.begin(), cu.end());
  if (!gaps) cu.front() = 0, cu.back() = static_cast<int32_t>(total);
  return cu;
}

std::vector<Case> cases() {
  std::vector<Case> list;
  std::mt19937 random(11);
  constexpr DType kFloats[] = {DType::bf16, DType::f16, DType::f32};
  Walk<int64_t> queries({0, 1, 1, 1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 129, 150}, 1);
  Walk<int64_t> keys({0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 96, 100, 127, 128, 129, 200, 257}, 2);
  Walk<std::pair<int64_t, int64_t>> dims({{64, 64},
                                          {128, 128},
                                          {32, 32},
                                          {96, 96},
                                          {192, 192},
                                          {256, 256},
                                          {192, 128},
                                          {40, 40},
                                          {80, 80},
                                          {100, 100},
                                          {1, 1},
                                          {8, 24},
                                          {33, 31},
                                          {72, 128},
                                          {130, 4},
                                          {160, 130},
                                          {200, 256},
                                          {255, 253}},
                                         3);
  Walk<std::pair<int64_t, int64_t>> heads({{1, 1}, {2, 2}, {2, 1}, {4, 2}, {4, 1}, {3, 1}, {6, 2}, {8, 1}, {7, 7}}, 4);
  Walk<int> features({0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 5);
  constexpr int64_t kWindows[] = {0, 1, 5, 16, 40, 63, 64, 100, 1 << 30};
  constexpr int64_t kBlocks[] = {1, 1, 3, 16, 32, 64, 100};
  const int count = full ? 3000 : race ? 180 : 330;
  for (int n = 0; n < count; ++n) {
    Case t;
    t.seed = random();
    t.in = kFloats[n % 5 % 3], t.out = random() % 3 ? t.in : pick(random, kFloats);
    t.len_q = queries.next(), t.len_kv = keys.next();
    std::tie(t.dim, t.dim_v) = dims.next();
    std::tie(t.heads_q, t.heads_kv) = heads.next();
    t.order = kOrders[random() % 5];
    if (!full && t.len_q * t.heads_q > 130) t.heads_q = t.heads_kv = 1;
    t.batch = t.len_q * t.heads_q * t.len_kv < 4000 ? 1 + random() % 3 : 1;
    t.causal = random() % 3 == 0;
    t.spread = random() % 4 == 0 ? 8 : 1;
    t.batch_invariant = random() % 4 == 0;
    for (int feature = features.next(), more = random() % 3; more >= 0; feature = features.next(), --more) {
      switch (feature) {
        case 1:
          t.softcap = random() % 2 ? 0.5f : 30;
          break;
        case 2:
          t.left = pick(random, kWindows);
          break;
        case 3:
          t.right = pick(random, kWindows);
          break;
        case 4:
          t.bias = 1 + random() % 4, t.bias_type = pick(random, kFloats);
          break;
        case 5:
        case 6:
          t.mask = 1 + random() % 4, t.mask_q = pick(random, kBlocks), t.mask_kv = pick(random, kBlocks);
          t.mask_density = random() % 3 ? 0.6 : 0.05;
          break;
        case 7:
          t.alibi = true;
          break;
        case 8:
          t.sink = true;
          break;
        case 9:
          t.scale = random() % 2 ? -0.3f : 0.7f;
          break;
        case 10:
        case 11:
          for (int64_t b = 0; b < t.batch && t.cu_q.empty(); ++b) {
            t.lens_kv.push_back(static_cast<int32_t>(random() % 4 == 0 ? t.len_kv : random() % (t.len_kv + 1)));
            if (feature == 11) t.lens_q.push_back(static_cast<int32_t>(random() % (t.len_q + 1)));
          }
          if (feature == 10) t.lens_q.clear();
          if (feature == 11 && random() % 2) t.lens_kv.clear();
          while (static_cast<int64_t>(t.lens_kv.size()) > t.batch) t.lens_kv.pop_back();
          while (static_cast<int64_t>(t.lens_q.size()) > t.batch) t.lens_q.pop_back();
          break;
        case 12: {
          t.batch = 1, t.lens_q.clear(), t.lens_kv.clear();
          const int64_t sequences = random() % 6;
          const bool gaps = random() % 2 || sequences == 0;
          t.cu_q = offsets(random, sequences, t.len_q, gaps), t.cu_kv = offsets(random, sequences, t.len_kv, gaps);
          break;
        }
        default:
          break;
      }
    }
    list.push_back(t);
  }
  // Long enough to fill rings and several splits; many sequences in one launch.
  const auto longer = [&](auto change) {
    for (DType type : kFloats) {
      Case t;
      t.in = t.out = type, t.seed = random();
      t.len_kv = 700, t.dim = t.dim_v = 64;
      change(t);
      list.push_back(t);
    }
  };
  longer([](Case& t) { t.heads_q = 4, t.lens_kv = {611}; });
  longer([](Case& t) { t.heads_q = 4, t.heads_kv = 2, t.sink = true, t.left = 300; });
  longer([](Case& t) { t.len_q = 70, t.causal = true, t.alibi = true; });
  longer([](Case& t) { t.len_q = 3, t.sink = true, t.lens_q = {2}; });
  longer([](Case& t) { t.batch = 0; });
  longer([](Case& t) { t.heads_q = t.heads_kv = 0; });
  longer([](Case& t) {
    t.batch_invariant = true, t.len_kv = 2100, t.heads_q = 2, t.lens_kv = {2100}, t.dim = t.dim_v = 32;
  });
  longer([](Case& t) {
    t.len_q = 90, t.len_kv = 120, t.heads_q = 2;
    for (int i = 0; i <= 45; ++i) t.cu_q.push_back(2 * i), t.cu_kv.push_back(i * 8 / 3);
  });
  longer([](Case& t) { t.len_q = 200, t.len_kv = 200, t.mask = 4, t.mask_q = t.mask_kv = 64, t.mask_density = 0.4; });
  return list;
}

// ---- beyond single cases ---------------------------------------------------------------------------------------------

// With q = 0 every visible key weighs 1, and over 2^n keys the mean of integers is exact in f32.
void exact(const Device& d) {
  constexpr std::pair<int64_t, int64_t> kDims[] = {{32, 32},   {64, 48},   {96, 96},  {128, 128},
                                                   {192, 128}, {192, 192}, {256, 256}};
  for (auto [dim, dim_v] : kDims)
    for (DType type : {DType::bf16, DType::f16, DType::f32})
      for (int64_t len_q : {1, 70, 130}) {
        if (race && len_q == 130) continue;
        Case t;
        t.in = type, t.out = DType::f32, t.zero_q = true, t.seed = static_cast<unsigned>(dim + len_q);
        t.len_q = len_q, t.len_kv = 128, t.dim = dim, t.dim_v = dim_v;
        check(d, t);
        if (len_q != 70) continue;
        t.len_kv = 200, t.left = 15, t.right = 0;  // each row 16 keys, another 16 for the next row
        check(d, t);
      }
}

std::vector<uint8_t> row_bits(const Problem& p, int64_t batch, int64_t row, int64_t head) {
  const TensorView& y = p.y.host;
  const auto* from =
      static_cast<const uint8_t*>(y.data) + (batch * y.stride[0] + row * y.stride[1] + head * y.stride[2]) * p.y.size();
  return {from, from + y.shape[3] * p.y.size()};
}

// batch_invariant: the same bits for rows alone, in a batch, beside other rows, and in tiles of another size.
void invariance(const Device& d) {
  for (DType type : {DType::bf16, DType::f16, DType::f32}) {
    Case t;
    t.in = type, t.out = DType::f32, t.batch_invariant = true, t.batch = 3, t.len_q = 128, t.len_kv = 150;
    t.heads_q = 2, t.dim = t.dim_v = 64, t.seed = 5, t.left = 100, t.right = 90;
    t.alibi = type == DType::f32, t.spread = 8;  // sharp and without ALiBi: the scores are scaled in the exponent
    Problem whole(d, t);
    expect(whole.run().empty() && whole.check().empty(), "three batches");
    ++seen["invariant " + whole.chosen["variant"]];
    // The place of a query counts from the last: parts end where the whole does.
    const auto part = [&](const char* what, int64_t batch, int64_t rows) {
      Case s = t;
      s.batch = 1, s.len_q = rows;
      Problem p(d, s);
      const auto slice = [&](const Operand& from, Operand& to) {
        const int64_t first =
            batch * from.host.stride[0] + (from.host.shape[1] - to.host.shape[1]) * from.host.stride[1];
        to.each([&](int64_t at) { store_f32(to.host.data, type, at, load_f32(from.host.data, type, first + at)); });
        to.upload();
      };
      slice(whole.q, p.q), slice(whole.k, p.k), slice(whole.v, p.v);
      if (t.alibi) {
        std::copy_n(static_cast<float*>(whole.alibi.host.data), t.heads_q, static_cast<float*>(p.alibi.host.data));
        p.alibi.upload();
      }
      expect(p.run().empty(), what);
      bool same = true;
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t h = 0; h < t.heads_q; ++h)
          same &= row_bits(p, 0, i, h) == row_bits(whole, batch, t.len_q - rows + i, h);
      expect(same, std::string("batch_invariant: ") + what + " has the bits it has in a batch, " + name(type));
      ++seen["invariant " + p.chosen["variant"]];
    };
    part("a batch alone", 1, 128);
    part("the last 40 rows", 2, 40);
    part("the last row", 0, 1);
  }
}

void repetition(const Device& d) {
  const int times = 200;
  for (int64_t len_q : {1, 20}) {
    Case t;
    t.heads_q = 4, t.heads_kv = 2, t.len_q = len_q, t.len_kv = 300, t.causal = true, t.dim = t.dim_v = 32, t.batch = 1;
    if (len_q == 20) t.heads_q = 2, t.len_kv = 70;
    Problem p(d, t);
    std::string wrong = p.run();
    if (wrong.empty()) wrong = p.check();
    expect(wrong.empty(), wrong);
    const std::vector<uint8_t> y = p.y.bytes, lse = p.lse.bytes;
    int different = 0;
    for (int i = 1; i < times && wrong.empty(); ++i) {
      wrong = p.run();
      different += p.y.bytes != y || p.lse.bytes != lse;
    }
    expect(wrong.empty() && different == 0,
           std::to_string(different) + " of " + std::to_string(times) + " runs differ");
  }
}

// Lengths are read on the device: out of range they are clamped, and the next wait names the first.
void wrong_lengths(const Device& d) {
  const auto raises = [&](const Case& t, const char* words) {
    Problem p(d, t);
    const std::string said = p.run();
    expect(said == std::string("INDEX: ") + words, "expected '" + std::string(words) + "', received '" + said + "'");
    expect(d.sync() == 0, "the next wait is fine");
  };
  Case t;
  t.batch = 2, t.len_q = 3, t.len_kv = 8;
  t.lens_kv = {8, 9};
  raises(t, "attention_gqa: lens_kv[1] is 9, expected 0 to 8");
  t.lens_kv = {-1, 3};
  raises(t, "attention_gqa: lens_kv[0] is -1, expected 0 to 8");
  t.lens_kv.clear(), t.lens_q = {2, 100};
  raises(t, "attention_gqa: lens_q[1] is 100, expected 0 to 3");
  t = {};
  t.len_q = t.len_kv = 40, t.in = t.out = DType::f32;
  t.cu_q = {0, 30, 20, 40}, t.cu_kv = {0, 10, 20, 40};
  raises(t, "attention_gqa: cu_q[2] is 20, expected 30 to 40");
  t.cu_q = {0, 10, 20, 40}, t.cu_kv = {0, 10, 20, 50};
  raises(t, "attention_gqa: cu_kv[3] is 50, expected 20 to 40");
}

// A captured launch reads lengths when it runs.
void graphs(const Device& d) {
  Case t;
  t.len_q = 2, t.len_kv = 40, t.heads_q = 2, t.lens_kv = {40};
  Problem p(d, t);
  p.plan();
  void* graph = nullptr;
  d.must(d.table->graph_begin(d.stream), "graph_begin");
  d.must(p.enqueue(), "plan_enqueue");
  d.must(d.table->graph_end(d.stream, &graph), "graph_end");
  for (int32_t length : {40, 7, 0}) {
    Case other = t;
    other.lens_kv = {length};
    Problem same(d, other);  // the same operands, for the definition
    *static_cast<int32_t*>(p.lens_kv.host.data) = length;
    p.lens_kv.upload();
    d.must(d.table->graph_launch(graph, d.stream), "graph_launch");
    p.y.download(), p.lse.download();
    d.must(d.sync(), "sync");
    same.y.bytes = p.y.bytes, same.lse.bytes = p.lse.bytes;
    const std::string wrong = same.check();
    expect(wrong.empty(), "a graph with length " + std::to_string(length) + ": " + wrong);
  }
  d.must(d.table->graph_destroy(graph), "graph_destroy");
}

// A plan for a capacity, bound to less.
void rebinding(const Device& d) {
  for (bool invariant : {false, true}) {
    Case large;
    large.batch = 2, large.heads_q = 2, large.len_kv = 1500, large.dim = large.dim_v = 32,
    large.batch_invariant = invariant;
    Problem p(d, large);
    std::string wrong = p.run();
    if (wrong.empty()) wrong = p.check();
    expect(wrong.empty(), "at capacity: " + wrong);
    for (int64_t len_kv : {1100, 40}) {
      Case small = large;
      small.len_kv = len_kv, small.batch = 1;
      Problem q(d, small);
      const kw_op& op = operator_of(*d.table, "attention_gqa");
      d.must(op.plan_rebind(p.handle(), &q.there(), p.workspace()), "plan_rebind");
      d.must(op.plan_enqueue(p.handle(), d.stream), "plan_enqueue");
      q.y.download(), q.lse.download();
      d.must(d.sync(), "sync");
      wrong = q.check();
      expect(wrong.empty(), "bound to " + std::to_string(len_kv) + " keys: " + wrong);
    }
  }
}

void refusals(const Device& d) {
  const kw_op& op = operator_of(*d.table, "attention_gqa");
  Case t;
  Problem p(d, t);
  const auto declines = [&](auto change, const char* words) {
    AttentionGqaArgs args = p.there();
    change(args);
    const int32_t status = op.supports(&d.info, &args);
    expect(status == static_cast<int32_t>(Code::UNSUPPORTED) && std::strstr(d.table->last_error(), words),
           std::string("supports refuses with '") + words + "': " + d.table->last_error());
  };
  declines([](AttentionGqaArgs& a) { a.q.shape[3] = a.k.shape[3] = 257; }, "dim is 257, expected 1 to 256");
  declines([](AttentionGqaArgs& a) { a.v.shape[3] = 300; }, "dim_v is 300, expected 1 to 256");
  declines([](AttentionGqaArgs& a) { a.k.dtype = DType::f16; }, "dtype of k is f16, expected bf16");
  declines([](AttentionGqaArgs& a) { a.q.dtype = DType::i8; }, "dtype of q is i8, expected f32, f16 or bf16");
  declines([](AttentionGqaArgs& a) { a.v.stride[3] = 2; }, "the last stride of v is 2, expected 1");
  declines([](AttentionGqaArgs& a) { a.k.shape[1] = a.v.shape[1] = 1 << 25; }, "len_kv is 33554432, expected at most");
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int> devices;
  for (int i = 2; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--full")) full = true;
    if (!std::strcmp(argv[i], "--device") && i + 1 < argc) devices.push_back(std::atoi(argv[++i]));
  }
  if (argc < 2) return std::fprintf(stderr, "usage: attention_gqa_emu_test LIBRARY.so [--full] [--device N]...\n"), 2;
  const bool every_device = devices.empty();
  const kw_table* table = open_library(argv[1], devices);
  race = std::strstr(table->build, "race build") != nullptr;
  try {
    std::vector<std::pair<int, const char*>> ways;
    for (int device : devices) {
      kw_device_info info{};
      table->device_info(device, &info);
      for (const char* schedule : schedules_of(info)) ways.emplace_back(device, schedule);
    }
    const std::vector<Case> list = cases();
    size_t share = 0;
    for (const auto& [device, schedule] : ways) {
      Device d{table, device};
      d.must(table->device_info(device, &d.info), "device_info");
      setenv("KERNWATT_EMU", schedule, 1);  // read by the stream's thread when it starts
      d.open();
      const uint64_t free_before = d.free_bytes();
      const auto started = std::chrono::steady_clock::now();
      for (size_t i = share; i < list.size(); i += ways.size()) check(d, list[i]);
      const size_t round = share % 6;
      if (round == 0 || full) exact(d);
      if (round == 1 || full) invariance(d);
      if (round == 2 || round == 5 || full) repetition(d);
      if (round == 3 || full) wrong_lengths(d), refusals(d);
      if (round == 4 || full) graphs(d), rebinding(d);
      if (d.info.emulated) expect(free_before == d.free_bytes(), "every allocation was freed");
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
      std::printf("%s, %s: %.1f s\n", d.info.name, d.info.emulated ? schedule : "hardware", seconds);
      d.close();
      ++share;
    }
    if (every_device && ways.size() > 1)
      for (const char* what :
           {"variant \"mma_16\"", "variant \"mma_64\"", "variant \"mma_128\"", "variant \"fma_32\"", "splits more",
            "headsPerTile 4", "asyncCopies true", "asyncCopies false", "maskTilesSkipped true", "headDim [192,128]",
            "headDim [256,256]", "invariant \"mma_64\"", "invariant \"mma_128\""})
        expect(seen[what] > 0, std::string("some case has ") + what);
    for (const auto& [what, times] : seen) std::printf("%s: %d  ", what.c_str(), times);
  } catch (const std::exception& error) {
    expect(false, error.what());
  }
  std::printf("\n%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
