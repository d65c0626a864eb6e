// attention_gqa on CUDA, compute capability 8.0 and up.
//
// Work: a block makes a tile of rows (queries of one query head, or of all heads of a group when queries are few: then a row
// is one query of one head) and walks the keys that the tile sees; tiles of keys outside every row's window, causal bound,
// length or block mask are skipped, and only tiles on such an edge are masked element by element.
//   attention_mma   bf16, f16. 128 threads. m16n8k16, ldmatrix (.trans for V), XOR swizzle, a ring of slots for K and V in
//                   turn by cp.async (ordinary loads where rows do not begin at multiples of 16 bytes), softmax in powers of
//                   two; the accumulators of S, rounded to the operands' dtype, are operand A of P V.
//                   mma_128, mma_64: every warp 32 or 16 rows, tiles of 64 keys, K and V one slot each: V is copied while
//                   Q Kᵀ runs, the next K while softmax and P V run. mma_16: decoding; all four warps the same 16 rows, each
//                   every fourth tile of 16 keys through a ring of its own of 2 to 4 slots, merged through shared memory.
//                   Compiled for head dimensions 32, 64, 96, 128, 192, 192/128 and 256; others are padded with zeros.
//   attention_fma   f32. 32 rows by 32 or 16 keys, IEEE fma, accurate exp. No TF32.
//   merge_rows      with few blocks the keys are split over blocks too; partial y and lse go to the workspace in f32 and are
//                   merged in the order of the splits. How many splits depends on shapes and the device alone.
// batch_invariant: only mma_64, mma_128 or attention_fma, which give a row the same bits whatever is beside it, and splits of
// whole multiples of 64 keys that depend on the capacity of len_kv, only for at most 64 rows per group (decoding, not packed).
//
// Limits: len_q and len_kv up to 2^24, 2^30 rows of y; head dimensions up to 256. Needs 99 KB of shared memory per block at most.
//
// Prediction, not measured: FLOPs 2 (dim + dim_v) per head, row and visible key; bytes as the contract counts. Prefill is
// bound by arithmetic: mma.sync with this structure reaches 55-65 % of an A100's 312 TFLOP/s and 330-370 TFLOP/s on an H200
// at head dimension 128, somewhat less causal. Decoding is bound by memory: mma_16 keeps 96 KB (A100) to 144 KB (H200) in
// flight per SM at head dimension 128, enough for 75-85 % of bandwidth once the keys are longer than 100 MB in all. f32:
// about half of fma peak.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <sstream>

#include "../attention_merge/attention_merge.cuh"
#include "../core/cuda/registry.h"
#include "../core/cuda/sm90.h"
#include "attention_gqa_fma.cuh"
#include "attention_gqa_params.cuh"
#include "attention_gqa_sm90.h"
#include "attention_gqa_variants.cuh"

namespace kw {
namespace attention_gqa_cuda {

constexpr int64_t kLeastSplit = 128;       // keys: fewer are not worth a block of their own
constexpr int64_t kInvariantSplit = 1024;  // keys, with batch_invariant
constexpr int64_t kMostSplits = 64;
constexpr int64_t kMostRows = int64_t{1} << 30;  // of y, over all batches and heads

template <int Dim, int N, int Blocks>
Variant fma_variant() {
  using Shape = FmaShape<Dim, N, Blocks>;
  return {"fma_32", attention_fma<Shape>, Dim, Dim, Shape::kM, N, Shape::kThreads, Shape::kSmem, Blocks, 1, false};
}

std::vector<Variant> variants_for(DType dtype, int64_t dim, int64_t dim_v) {
  const int64_t most = std::max(dim, dim_v);
  if (dtype == DType::f32) {
    if (most <= 64) return {fma_variant<64, 32, 4>()};
    if (most <= 128) return {fma_variant<128, 32, 2>()};
    return {fma_variant<256, 16, 2>()};
  }
  const bool bf16 = dtype == DType::bf16;
  if (most <= 32) return variants_32(bf16);
  if (most <= 64) return variants_64(bf16);
  if (most <= 96) return variants_96(bf16);
  if (most <= 128) return variants_128(bf16);
  if (most <= 192) return dim_v <= 128 ? variants_192_128(bf16) : variants_192(bf16);
  return variants_256(bf16);
}

struct Choice {
  Params params{};
  Variant variant{};
  std::string reason;
  int64_t blocks_per_sm = 0, blocks = 0;
};

// Keys of a split with batch_invariant; 0: not split. Rows are few, so that partial results stay small.
int64_t invariant_split(const AttentionGqaArgs& args) {
  const int64_t len_kv = args.k.dim(1), heads_kv = args.k.dim(2);
  const int64_t rows = heads_kv ? args.q.dim(1) * (args.q.dim(2) / heads_kv) : 0;
  if (!args.batch_invariant || args.cu_q.present() || rows > 64 || len_kv <= kInvariantSplit) return 0;
  return std::max(kInvariantSplit, divided(divided(len_kv, kMostSplits), 64) * 64);
}

// Rows of partial results.
int64_t rows_of(const Params& p) { return int64_t{p.batch} * p.heads_q * p.len_q; }
int64_t partial_pitch(const Params& p) { return divided(p.dim_v, 4) * 4; }
int64_t split_bytes(const Params& p) { return rows_of(p) * (partial_pitch(p) + 1) * 4; }

// A pure function of shapes, strides, alignment and device. most_bytes: of workspace; split_keys: fixed by the plan.
Choice choose(const AttentionGqaArgs& args, const kw_device_info& device, int64_t most_bytes, int64_t split_keys) {
  Choice choice;
  Params& p = choice.params;
  p = base_params(args);
  const bool f32 = p.q.dtype == DType::f32, packed = p.cu_q;
  const int64_t sequences = packed ? std::max<int64_t>(p.cu_count - 1, 1) : p.batch;
  const int64_t queries = packed ? divided(p.len_q, sequences) : p.len_q;  // of a sequence, on average
  const int64_t sms = std::max(device.sm_count, 1);
  constexpr int64_t kReserved = 1024;  // shared memory the system keeps per block

  double least = 0;
  for (const Variant& v : variants_for(p.q.dtype, p.dim, p.dim_v)) {
    const int64_t fit = (static_cast<int64_t>(device.smem_bytes) + kReserved) / (v.smem + kReserved);
    const int64_t blocks = std::min<int64_t>(v.blocks, fit);
    if (blocks < 1) continue;
    if (v.split_warps && (args.batch_invariant || queries * p.group > v.rows)) continue;
    for (const int pack : {1, std::max(p.group, 1)}) {  // without heads there is no group
      const int64_t heads = p.heads_q / pack, tiles = divided(queries * pack, v.rows) * heads * sequences;
      const int64_t busiest = tiles / (sms * blocks) * blocks + divided(tiles % (sms * blocks), sms);
      double cost = static_cast<double>(busiest) * v.rows / v.efficiency;
      if (v.split_warps) cost /= 4;  // the block's four warps share the rows' keys
      if (pack > 1) cost *= 1.1;     // packing has to save something
      if (choice.variant.kernel && cost >= least) continue;
      least = cost;
      choice.variant = v;
      choice.blocks_per_sm = blocks;
      p.pack = pack;
    }
  }
  const Variant& v = choice.variant;
  if (!v.kernel) return choice;
  choice.reason = f32             ? "f32 is computed with IEEE fma"
                  : v.split_warps ? "at most 16 rows per group: the warps share out the keys"
                  : p.pack > 1    ? "few queries: the heads of a group share tiles"
                  : v.rows == 128 ? "enough rows for the largest tile"
                                  : "the tile that keeps most multiprocessors busy";

  const int64_t rows = int64_t{p.len_q} * p.pack;
  p.row_tiles =
      static_cast<int>(packed ? rows / v.rows + std::min<int64_t>(p.cu_count + 1, p.len_q) : divided(rows, v.rows));
  const int64_t unsplit = int64_t{p.row_tiles} * (p.heads_q / std::max(p.pack, 1)) * p.batch;

  p.splits = 1;
  if (args.batch_invariant) {
    if (split_keys && unsplit > 0) {
      p.split_keys = static_cast<int>(split_keys);
      p.splits = static_cast<int>(std::max<int64_t>(1, divided(p.len_kv, split_keys)));
    }
  } else if (unsplit > 0) {
    const int64_t slots = sms * choice.blocks_per_sm;
    const int64_t seen = std::min<int64_t>(p.len_kv, int64_t{p.left} + p.right + divided(v.rows, p.pack));
    int64_t most = std::min({kMostSplits, seen / kLeastSplit, most_bytes / std::max<int64_t>(split_bytes(p), 1)});
    if (5 * unsplit >= 4 * slots) most = 1;
    const auto filled = [&](int64_t splits) {  // of the slots, over all waves
      const int64_t blocks = unsplit * splits;
      return static_cast<double>(blocks) / static_cast<double>(divided(blocks, slots) * slots);
    };
    double best = 0;
    for (int64_t splits = 1; splits <= most; ++splits) best = std::max(best, filled(splits));
    while (p.splits < most && filled(p.splits) < 0.85 * best) ++p.splits;
  }
  choice.blocks = unsplit * p.splits;
  p.partial_pitch = static_cast<int>(partial_pitch(p));
  p.mask_heads = p.mask.head ? p.pack : 1;
  const int64_t mask_rows = divided(v.rows / p.pack + 1, std::max(p.mask_block_q, 1)) + 1;
  const int64_t mask_columns = divided(v.keys, std::max(p.mask_block_kv, 1)) + 1;
  p.mask_scan = p.mask.data && p.mask_heads * mask_rows * mask_columns <= kScannedMaskEntries;
  return choice;
}

class AttentionGqaCudaPlan {
 public:
  static std::string declines(const AttentionGqaArgs& args, const kw_device_info& device) {
    return declines(args, device, wished());
  }

  static std::string declines(const AttentionGqaArgs& args, const kw_device_info& device, const std::string& wish) {
    const auto expected = [](const std::string& what, const std::string& received, const std::string& wanted) {
      return "attention_gqa cuda: " + what + " is " + received + ", expected " + wanted;
    };
    const auto text = [](int64_t value) { return std::to_string(value); };
    if (device.cc_major < 8)
      return expected("compute capability", text(device.cc_major) + "." + text(device.cc_minor), "at least 8.0");
    const auto floating = [](DType t) { return t == DType::f32 || t == DType::f16 || t == DType::bf16; };
    const struct {
      const char* name;
      const TensorView& view;
      DType dtype;  // i4: any of f32, f16 and bf16
    } tensors[] = {
        {"q", args.q, DType::i4},        {"k", args.k, args.q.dtype},         {"v", args.v, args.q.dtype},
        {"bias", args.bias, DType::i4},  {"mask", args.mask, DType::u8},      {"alibi", args.alibi, DType::f32},
        {"sink", args.sink, DType::f32}, {"lens_q", args.lens_q, DType::i32}, {"lens_kv", args.lens_kv, DType::i32},
        {"cu_q", args.cu_q, DType::i32}, {"cu_kv", args.cu_kv, DType::i32},   {"y", args.y, DType::i4},
        {"lse", args.lse, DType::f32}};
    for (const auto& t : tensors) {
      if (!t.view.present()) continue;
      if (t.dtype == DType::i4 ? !floating(t.view.dtype) : t.view.dtype != t.dtype)
        return expected(std::string("dtype of ") + t.name, name(t.view.dtype),
                        t.dtype == DType::i4 ? "f32, f16 or bf16" : name(t.dtype));
      if (t.view.dim(-1) > 1 && t.view.step(-1) != 1)
        return expected(std::string("the last stride of ") + t.name, text(t.view.step(-1)), "1");
    }
    for (const auto& [what, value] : {std::pair{"dim", args.q.dim(3)}, {"dim_v", args.v.dim(3)}})
      if (value < 1 || value > 256)
        return expected(what, text(value), "1 to 256 (compiled: 32, 64, 96, 128, 192, 256)");
    for (const auto& [what, value] : {std::pair{"len_q", args.q.dim(1)}, {"len_kv", args.k.dim(1)}})
      if (value > kMostLength) return expected(what, text(value), "at most " + text(kMostLength));
    const int64_t rows = args.q.dim(0) * args.q.dim(1) * args.q.dim(2);
    if (rows > kMostRows) return expected("batch len_q heads_q", text(rows), "at most " + text(kMostRows));
    const Sm90Choice sm90 = choose_sm90(args, device, wish);
    if (sm90.configuration) return "";
    if (!wish.empty()) return expected("KERNWATT_ATTENTION_GQA", wish, "one that takes it: " + sm90.reason);
    const Choice choice = choose(args, device, INT64_MAX, invariant_split(args));
    if (!choice.variant.kernel)
      return expected("shared memory per block", text(static_cast<int64_t>(device.smem_bytes)) + " bytes",
                      "at least 99 KB");
    if (choice.blocks > INT32_MAX)
      return expected("the number of blocks", text(choice.blocks), "at most " + text(INT32_MAX));
    return "";
  }

  AttentionGqaCudaPlan(const AttentionGqaArgs& args, const kw_device_info& device) : device_(device), wish_(wished()) {
    const std::string reason = declines(args, device_, wish_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    split_keys_ = invariant_split(args);
    choose_and_prepare(args, INT64_MAX);
    bytes_ =
        !for_90_.configuration && choice_.params.splits > 1 ? split_bytes(choice_.params) * choice_.params.splits : 0;
  }

  uint64_t workspace() const { return static_cast<uint64_t>(bytes_); }

  void rebind(const AttentionGqaArgs& args, void* workspace) {
    const std::string reason = declines(args, device_, wish_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    choose_and_prepare(args, bytes_);
    if (for_90_.configuration) return;
    Params& p = choice_.params;
    if (p.splits > 1) {
      p.partial_y = static_cast<float*>(workspace);
      p.partial_lse = p.partial_y + rows_of(p) * p.partial_pitch * p.splits;
    }
  }

  void enqueue(void* stream) {
    if (for_90_.configuration) return sm90_.enqueue(stream, status_of(stream));
    if (choice_.blocks == 0) return;
    const Variant& v = choice_.variant;
    Params& p = choice_.params;
    p.status = status_of(stream);
    const Stream at = static_cast<Stream>(stream);
    launch({.grid = {static_cast<unsigned>(choice_.blocks)},
            .block = {static_cast<unsigned>(v.threads)},
            .smem = static_cast<size_t>(v.smem),
            .stream = at},
           v.kernel, p);
    if (p.splits == 1) return;
    MergeParams m{};
    m.parts = p.partial_y;
    m.part_lse = p.partial_lse;
    m.dtype = DType::f32;
    m.lse_row = 1;
    m.lse_head = p.len_q;
    m.lse_batch = m.lse_head * p.heads_q;
    m.lse_part = m.lse_batch * p.batch;
    m.y_row = m.lse_row * p.partial_pitch;
    m.y_head = m.lse_head * p.partial_pitch;
    m.y_batch = m.lse_batch * p.partial_pitch;
    m.y_part = m.lse_part * p.partial_pitch;
    m.y = p.y.data;
    m.y_dtype = p.y.dtype;
    m.out_batch = p.y.batch, m.out_row = p.y.row, m.out_head = p.y.head;
    m.lse = static_cast<float*>(p.lse.data);
    m.out_lse_batch = p.lse.batch, m.out_lse_head = p.lse.head, m.out_lse_row = p.lse.row;
    m.sink = p.sink;
    m.total = static_cast<unsigned>(rows_of(p));
    m.rows = static_cast<unsigned>(p.len_q), m.heads = static_cast<unsigned>(p.heads_q);
    m.columns = p.dim_v, m.count = p.splits;
    m.absent_rows = true;
    launch_merge(m, at);
  }

  std::string explain() const {
    if (for_90_.configuration) return explain_sm90();
    const Variant& v = choice_.variant;
    const Params& p = choice_.params;
    const auto text = [](int64_t value) { return std::to_string(value); };
    const auto flag = [](bool value) { return value ? "true" : "false"; };
    const std::string reason = choice_.reason + (device_.cc_major == 9 ? "; no kernel for 9.0: " + for_90_.reason : "");
    return std::string("{\"variant\":\"") + v.name + "\",\"reason\":\"" + reason + "\",\"tile\":[" + text(v.rows) +
           "," + text(v.keys) + "],\"headDim\":[" + text(v.dim) + "," + text(v.dim_v) +
           "],\"headsPerTile\":" + text(p.pack) + ",\"splits\":" + text(p.splits) +
           ",\"splitKeys\":" + text(p.split_keys) + ",\"threads\":" + text(v.threads) +
           ",\"smemBytes\":" + text(v.smem) + ",\"blocksPerSm\":" + text(choice_.blocks_per_sm) +
           ",\"grid\":" + text(choice_.blocks) + ",\"asyncCopies\":" + flag(p.q_wide && p.k_wide && p.v_wide) +
           ",\"maskTilesSkipped\":" + flag(p.mask_scan) + "," + explain_roofline() + "}";
  }

 private:
  // The name in KERNWATT_ATTENTION_GQA, for experiments: a kernel for compute capability 9.0 that alone may run.
  static std::string wished() {
    const char* given = std::getenv("KERNWATT_ATTENTION_GQA");
    return given ? given : "";
  }

  static Sm90Choice choose_sm90(const AttentionGqaArgs& args, const kw_device_info& device, const std::string& wish) {
    Sm90Choice none;
    none.reason = sm90_unavailable(device);
    return none.reason.empty() ? sm90_choose(args, device, wish) : none;
  }

  std::string explain_sm90() const {
    const Sm90Configuration& c = *for_90_.configuration;
    std::ostringstream text;
    text << "{\"variant\":\"" << c.name << "\",\"reason\":\"" << for_90_.reason << "\",\"tile\":[" << c.rows() << ","
         << c.keys << "],\"headDim\":[" << c.dim << "," << c.dim_v << "],\"headsPerTile\":" << for_90_.pack
         << ",\"splits\":1,\"splitKeys\":0,\"stages\":" << c.stages << ",\"threads\":" << c.threads()
         << ",\"registers\":[" << c.loading_registers() << "," << c.multiplying_registers()
         << "],\"smemBytes\":" << c.smem() << ",\"blocksPerSm\":1,\"grid\":" << sm90_.blocks()
         << ",\"tiles\":" << for_90_.tiles << ",\"asyncCopies\":true,\"maskTilesSkipped\":false," << explain_roofline()
         << "}";
    return text.str();
  }

  // What bounds it, and the seconds that each bound predicts; null where the device does not tell its clocks.
  std::string explain_roofline() const {
    if (roofline_.matrix == 0 && roofline_.memory == 0) return "\"bound\":null";
    std::ostringstream text;
    text.precision(4);
    text << "\"bound\":\"" << roofline_.bound() << "\",\"predictedSeconds\":{\"matrix\":" << roofline_.matrix
         << ",\"exp\":" << roofline_.exponentials << ",\"memory\":" << roofline_.memory << "}";
    return text.str();
  }

  void choose_and_prepare(const AttentionGqaArgs& args, int64_t most_bytes) {
    for_90_ = choose_sm90(args, device_, wish_);
    roofline_ = is_sm90(device_) ? sm90_roofline(args, device_) : Sm90Roofline{};
    if (for_90_.configuration) return sm90_.bind(for_90_, base_params(args), device_);
    Choice choice = choose(args, device_, most_bytes, split_keys_);
    if (choice.variant.kernel != choice_.variant.kernel)
      prepare(choice.variant.kernel, static_cast<size_t>(choice.variant.smem));
    choice_ = std::move(choice);
  }

  kw_device_info device_;
  std::string wish_;        // what KERNWATT_ATTENTION_GQA said when the plan was made
  int64_t split_keys_ = 0;  // of a split with batch_invariant, from the lengths the plan was made for; 0: not split
  int64_t bytes_ = 0;       // of workspace
  Choice choice_;
  Sm90Choice for_90_;  // with a configuration it runs in place of choice_
  Sm90Launch sm90_;
  Sm90Roofline roofline_;
};

}  // namespace attention_gqa_cuda

KW_REGISTER_OP(AttentionGqaArgs, attention_gqa_cuda::AttentionGqaCudaPlan, attention_gqa)

}  // namespace kw
