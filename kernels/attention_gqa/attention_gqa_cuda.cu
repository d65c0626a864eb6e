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
// KERNWATT_ATTENTION_GQA=NAME or NAME/SPLITS allows one kernel of attention_gqa_configuration.h alone. A plan of one of configurations()
// takes that one; bound to a problem of other sizes it chooses again.
//
// Prediction, not measured: FLOPs 2 (dim + dim_v) per head, row and visible key; bytes as the contract counts. Prefill is
// bound by arithmetic: mma.sync with this structure reaches 55-65 % of an A100's 312 TFLOP/s and 330-370 TFLOP/s on an H200
// at head dimension 128, somewhat less causal. Decoding is bound by memory: mma_16 keeps 96 KB (A100) to 144 KB (H200) in
// flight per SM at head dimension 128, enough for 75-85 % of bandwidth once the keys are longer than 100 MB in all. f32:
// about half of fma peak.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <sstream>

#include "../attention_merge/attention_merge.cuh"
#include "../core/cuda/registry.h"
#include "../core/cuda/sm90.h"
#include "attention_gqa_configuration.h"
#include "attention_gqa_fma.cuh"
#include "attention_gqa_params.cuh"
#include "attention_gqa_variants.cuh"

namespace kw {
namespace attention_gqa_cuda {

constexpr int64_t kLeastSplit = 128;       // keys: fewer are not worth a block of their own
constexpr int64_t kInvariantSplit = 1024;  // keys, with batch_invariant
constexpr int64_t kMostSplits = 64;
constexpr int64_t kSpareShare =
    20;  // of the operands' bytes, a workspace is at most that part for fewer rows than the plan's
constexpr const char *kWhere = "attention_gqa", *kVariable = "KERNWATT_ATTENTION_GQA";

template <int Dim, int N, int Blocks>
Variant fma_variant() {
  using Shape = FmaShape<Dim, N, Blocks>;
  return {kPortableKernels[3], attention_fma<Shape>, Dim,    Dim, Shape::kM, N,
          Shape::kThreads,     Shape::kSmem,         Blocks, 1,   false};
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

// A pure function of shapes, strides, alignment and device. most_bytes: of workspace; split_keys: fixed by the plan; wish: for one
// kernel and number of splits alone. Without a kernel: none takes it.
Choice choose(const AttentionGqaArgs& args, const kw_device_info& device, int64_t most_bytes, int64_t split_keys,
              const Wish& wish) {
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
    if (wish && wish.name != v.name) continue;
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
  choice.reason = wish            ? std::string(wish.by) + " asks for it"
                  : f32           ? "f32 is computed with IEEE fma"
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
    const int64_t worth = std::max<int64_t>(1, std::min(kMostSplits, seen / kLeastSplit));
    const int64_t held = std::max<int64_t>(1, std::min(worth, most_bytes / std::max<int64_t>(split_bytes(p), 1)));
    const auto filled = [&](int64_t splits) {  // of the slots, over all waves
      const int64_t blocks = unsplit * splits;
      return static_cast<double>(blocks) / static_cast<double>(divided(blocks, slots) * slots);
    };
    const auto best = [&](int64_t most) {
      double best = 0;
      int found = 1;
      for (int64_t splits = 1; splits <= most; ++splits) best = std::max(best, filled(splits));
      while (5 * unsplit < 4 * slots && found < most && filled(found) < 0.85 * best) ++found;
      return found;
    };
    p.splits = wish.splits ? static_cast<int>(std::min<int64_t>(wish.splits, held)) : best(held);
    if (!wish.splits && p.splits < best(worth)) choice.reason += "; fewer splits than it would, for want of workspace";
  }
  if (wish.splits > 1 && p.splits != wish.splits) return {};
  choice.blocks = unsplit * p.splits;
  p.partial_pitch = static_cast<int>(partial_pitch(p));
  p.mask_heads = p.mask.head ? p.pack : 1;
  const int64_t mask_rows = divided(v.rows / p.pack + 1, std::max(p.mask_block_q, 1)) + 1;
  const int64_t mask_columns = divided(v.keys, std::max(p.mask_block_kv, 1)) + 1;
  p.mask_scan = p.mask.data && p.mask_heads * mask_rows * mask_columns <= kScannedMaskEntries;
  return choice;
}

// Which kernel runs: one for compute capability 9.0, or a portable one; or why none does.
struct Decision {
  Sm90Choice sm90;
  Choice portable;
  std::string refusal;

  const char* kernel() const { return sm90.configuration ? sm90.configuration->name : portable.variant.name; }
  int splits() const { return sm90.configuration ? 1 : portable.params.splits; }
  int64_t workspace() const { return splits() > 1 ? split_bytes(portable.params) * splits() : 0; }
  // How many splits batch_invariant makes is no choice.
  std::string configuration() const { return configuration_name(kernel(), portable.params.split_keys ? 1 : splits()); }
};

Decision decide(const AttentionGqaArgs& args, const kw_device_info& device, int64_t most_bytes, int64_t split_keys,
                const Wish& wish) {
  Decision d;
  const bool portable = !wish || is_portable(wish.name);
  d.sm90.reason = wish && portable ? std::string(wish.by) + " asks for another" : sm90_unavailable(device);
  if (d.sm90.reason.empty()) d.sm90 = sm90_choose(args, device, wish.name);
  if (!portable && wish.splits > 1) d.sm90.configuration = nullptr, d.sm90.reason = "it splits no keys";
  if (d.sm90.configuration) {
    if (wish) d.sm90.reason = std::string(wish.by) + " asks for it";
    return d;
  }
  if (portable) d.portable = choose(args, device, most_bytes, split_keys, wish);
  if (d.portable.variant.kernel && d.portable.blocks > INT32_MAX) {
    d.refusal = expected(kWhere, "the number of blocks", std::to_string(d.portable.blocks),
                         "at most " + std::to_string(INT32_MAX));
  } else if (d.portable.variant.kernel) {
    return d;
  } else if (!wish) {
    d.refusal = expected(kWhere, "shared memory per block",
                         std::to_string(static_cast<int64_t>(device.smem_bytes)) + " bytes", "at least 99 KB");
  } else {
    const std::vector<const char*> names = kernel_names();
    std::string known;
    for (const char* name : names) known += (known.empty() ? "there are " : ", ") + std::string(name);
    const bool unknown = std::find(names.begin(), names.end(), wish.name) == names.end();
    d.refusal = expected(kWhere, wish.by, wish.text,
                         "one that takes this problem: " + (unknown    ? known
                                                            : portable ? "it does not"
                                                                       : d.sm90.reason));
  }
  return d;
}

class AttentionGqaCudaPlan {
 public:
  static std::string declines(const AttentionGqaArgs& args, const kw_device_info& device) {
    const std::string reason = refused(args, device);
    return reason.empty() ? decide(args, device, INT64_MAX, invariant_split(args), wished()).refusal : reason;
  }

  // "sm90_attn_128", "mma_16/8": a kernel, and over how many blocks the keys are split. With batch_invariant those that give a row
  // the same bits.
  static std::vector<std::string> configurations(const AttentionGqaArgs& args, const kw_device_info& device) {
    const Wish allowed = wished();
    std::vector<std::string> names;
    const auto add = [&](const Wish& wish) {
      const Decision d = decide(args, device, INT64_MAX, invariant_split(args), wish);
      if (!d.refusal.empty() || !allowed.allows(d.kernel(), d.splits())) return;
      if (std::find(names.begin(), names.end(), d.configuration()) == names.end()) names.push_back(d.configuration());
    };
    add(allowed);
    const Sm90Configuration* least = sm90_configuration(args);
    for (const Sm90Configuration& c : kSm90Configurations)
      if (!c.by_name() && least && c.dim == least->dim) add({kVariable, c.name, c.name, 1});
    for (const Variant& v : variants_for(args.q.dtype, args.q.dim(3), args.v.dim(3)))
      for (int splits = 1; splits <= kMostSplits; splits *= 2) {
        const Wish wish{kVariable, v.name, v.name, splits};
        const Choice choice = choose(args, device, INT64_MAX, invariant_split(args), wish);
        // Blocks for two waves are enough.
        if (splits > 1 && choice.blocks > 2 * choice.blocks_per_sm * std::max(device.sm_count, 1)) break;
        add(wish);
      }
    return names;
  }

  // configuration: one of configurations(), or empty.
  AttentionGqaCudaPlan(const AttentionGqaArgs& args, const kw_device_info& device,
                       const std::string& configuration = "")
      : device_(device), wish_(wished()), sizes_(sizes_of(args)), split_keys_(invariant_split(args)) {
    if (const std::string reason = refused(args, device); !reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    if (!configuration.empty()) {
      asked_ = wish_of("configuration", configuration);
      asked_.splits = std::max(asked_.splits, 1);
    }
    decide_and_prepare(args, INT64_MAX, asked_ ? asked_ : wish_);
    bytes_ = decision_.workspace();
    bytes_ = std::max(bytes_, spare_bytes(args));
  }

  uint64_t workspace() const { return static_cast<uint64_t>(bytes_); }

  void rebind(const AttentionGqaArgs& args, void* workspace) {
    if (const std::string reason = refused(args, device_); !reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    const bool asked =
        asked_ && sizes_of(args) == sizes_ && decide(args, device_, bytes_, split_keys_, asked_).refusal.empty();
    decide_and_prepare(args, bytes_, asked ? asked_ : wish_);
    if (decision_.splits() > 1) {
      Params& p = decision_.portable.params;
      p.partial_y = static_cast<float*>(workspace);
      p.partial_lse = p.partial_y + rows_of(p) * p.partial_pitch * p.splits;
    }
  }

  void enqueue(void* stream) {
    if (decision_.sm90.configuration) return sm90_.enqueue(stream, status_of(stream));
    Choice& choice = decision_.portable;
    if (choice.blocks == 0) return;
    const Variant& v = choice.variant;
    Params& p = choice.params;
    p.status = status_of(stream);
    const Stream at = static_cast<Stream>(stream);
    launch({.grid = {static_cast<unsigned>(choice.blocks)},
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
    if (decision_.sm90.configuration) return explain_sm90();
    const Choice& choice = decision_.portable;
    const Variant& v = choice.variant;
    const Params& p = choice.params;
    const auto text = [](int64_t value) { return std::to_string(value); };
    const auto flag = [](bool value) { return value ? "true" : "false"; };
    const std::string reason =
        choice.reason + (device_.cc_major == 9 ? "; no kernel for 9.0: " + decision_.sm90.reason : "");
    return std::string("{\"variant\":\"") + v.name + "\",\"configuration\":\"" + decision_.configuration() +
           "\",\"reason\":\"" + reason + "\",\"tile\":[" + text(v.rows) + "," + text(v.keys) + "],\"headDim\":[" +
           text(v.dim) + "," + text(v.dim_v) + "],\"headsPerTile\":" + text(p.pack) + ",\"splits\":" + text(p.splits) +
           ",\"splitKeys\":" + text(p.split_keys) + ",\"threads\":" + text(v.threads) +
           ",\"smemBytes\":" + text(v.smem) + ",\"blocksPerSm\":" + text(choice.blocks_per_sm) +
           ",\"grid\":" + text(choice.blocks) + ",\"asyncCopies\":" + flag(p.q_wide && p.k_wide && p.v_wide) +
           ",\"maskTilesSkipped\":" + flag(p.mask_scan) + "," + explain_roofline() + "}";
  }

 private:
  using Sizes = std::array<int64_t, 8>;
  static Sizes sizes_of(const AttentionGqaArgs& a) {
    return {a.q.dim(0), a.q.dim(1), a.q.dim(2), a.q.dim(3), a.k.dim(1), a.k.dim(2), a.v.dim(3), a.cu_q.dim(0)};
  }

  // Of workspace for what the plan of a server may be bound to later: less would have its keys split.
  int64_t spare_bytes(const AttentionGqaArgs& args) const {
    int64_t most = 0, wanted = 0;
    for (const TensorView* t : {static_cast<const TensorView*>(&args.q), static_cast<const TensorView*>(&args.k),
                                static_cast<const TensorView*>(&args.v), static_cast<const TensorView*>(&args.y)})
      most += t->count() * bits(t->dtype) / 8 / kSpareShare;
    for (const int64_t batch : {int64_t{1}, args.q.dim(0)})
      for (const int64_t rows : {int64_t{1}, int64_t{16}, int64_t{64}, args.q.dim(1)}) {
        if (batch > args.q.dim(0) || rows > args.q.dim(1)) continue;
        AttentionGqaArgs less = args;
        less.q.shape[0] = less.k.shape[0] = less.v.shape[0] = less.y.shape[0] = batch;
        less.q.shape[1] = less.y.shape[1] = rows;
        wanted = std::max(wanted, decide(less, device_, INT64_MAX, split_keys_, wish_).workspace());
      }
    return std::min(most, wanted);
  }

  // For experiments: KERNWATT_ATTENTION_GQA allows one kernel alone.
  static Wish wished() {
    const char* given = std::getenv(kVariable);
    return given && *given ? wish_of(kVariable, given) : Wish{};
  }

  static std::string refused(const AttentionGqaArgs& args, const kw_device_info& device) {
    const CheckedTensor tensors[] = {
        {"q", args.q, kAnyFloat},        {"k", args.k, args.q.dtype},         {"v", args.v, args.q.dtype},
        {"bias", args.bias, kAnyFloat},  {"mask", args.mask, DType::u8},      {"alibi", args.alibi, DType::f32},
        {"sink", args.sink, DType::f32}, {"lens_q", args.lens_q, DType::i32}, {"lens_kv", args.lens_kv, DType::i32},
        {"cu_q", args.cu_q, DType::i32}, {"cu_kv", args.cu_kv, DType::i32},   {"y", args.y, kAnyFloat},
        {"lse", args.lse, DType::f32}};
    return refused_by_all(kWhere, device, tensors, args);
  }

  std::string explain_sm90() const {
    const Sm90Choice& choice = decision_.sm90;
    const Sm90Configuration& c = *choice.configuration;
    std::ostringstream text;
    text << "{\"variant\":\"" << c.name << "\",\"configuration\":\"" << c.name << "\",\"reason\":\"" << choice.reason
         << "\",\"tile\":[" << c.rows() << "," << c.keys << "],\"headDim\":[" << c.dim << "," << c.dim_v
         << "],\"headsPerTile\":" << choice.pack << ",\"splits\":1,\"splitKeys\":0,\"stages\":" << c.stages
         << ",\"threads\":" << c.threads() << ",\"registers\":[" << c.loading_registers() << ","
         << c.multiplying_registers() << "],\"smemBytes\":" << c.smem()
         << ",\"blocksPerSm\":1,\"grid\":" << sm90_.blocks() << ",\"tiles\":" << choice.tiles
         << ",\"asyncCopies\":true,\"maskTilesSkipped\":false," << explain_roofline() << "}";
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

  void decide_and_prepare(const AttentionGqaArgs& args, int64_t most_bytes, const Wish& wish) {
    Decision decision = decide(args, device_, most_bytes, split_keys_, wish);
    if (!decision.refusal.empty()) throw Error(Code::UNSUPPORTED, decision.refusal);
    const Variant& v = decision.portable.variant;
    const bool another = v.kernel && v.kernel != decision_.portable.variant.kernel;
    decision_ = std::move(decision);
    roofline_ = is_sm90(device_) ? sm90_roofline(args, device_) : Sm90Roofline{};
    if (decision_.sm90.configuration) return sm90_.bind(decision_.sm90, base_params(args), device_);
    if (another) prepare(decision_.portable.variant.kernel, static_cast<size_t>(decision_.portable.variant.smem));
  }

  kw_device_info device_;
  Wish wish_, asked_;   // of the environment when the plan was made, and a configuration
  Sizes sizes_;         // for which a configuration was asked
  int64_t split_keys_;  // of a split with batch_invariant, from the lengths the plan was made for; 0: not split
  int64_t bytes_ = 0;   // of workspace
  Decision decision_;
  Sm90Launch sm90_;
  Sm90Roofline roofline_;
};

}  // namespace attention_gqa_cuda

KW_REGISTER_OP(AttentionGqaArgs, attention_gqa_cuda::AttentionGqaCudaPlan, attention_gqa)

}  // namespace kw
