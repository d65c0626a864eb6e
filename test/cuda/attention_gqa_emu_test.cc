// attention_gqa through the table of a kernel library: every tile edge, head dimension, feature, layout and kind of length
// against the definition, then what single cases cannot show (attention_gqa_emu_properties.cc).
//
// Arguments: program.h. On emulated devices the cases are dealt out over all their schedules. It runs on libkernwatt_cuda.so just
// as well.
#include "attention_gqa_problem.h"
#include "program.h"

namespace {

using namespace kw;
using namespace kw::test;

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
    const Order order = pick(random, kOrders);
    for (Order& o : t.order) o = n % 2 ? order : pick(random, kOrders);
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

}  // namespace

int main(int argc, char** argv) {
  Program program;
  program.turn = [](const Device& d, const Turn& turn) {
    const std::vector<Case> list = cases();
    for (size_t i = turn.of_all; i < list.size(); i += turn.all) check(d, list[i]);
    properties(d, turn.of_all);
  };
  program.closing = [](bool every_device) {
    if (!every_device) return;
    for (const char* what :
         {"variant \"mma_16\"", "variant \"mma_64\"", "variant \"mma_128\"", "variant \"fma_32\"", "splits more",
          "headsPerTile 4", "asyncCopies true", "asyncCopies false", "maskTilesSkipped true", "headDim [192,128]",
          "headDim [256,256]", "invariant \"mma_64\"", "invariant \"mma_128\""})
      expect(seen[what] > 0, std::string("some case has ") + what);
  };
  return run_program(argc, argv, program);
}
