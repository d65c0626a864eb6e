// attention_gqa on the CPU: how a problem is cut into tasks, and the plan behind kw_op.
//
// The rows of a sequence that read one key head, (query, head of the group), are numbered query by query and cut into blocks of
// up to 512. Whoever takes a block packs keys and values, 128 at a time, into its own cache and goes over the block's panels with each
// tile; tiles that no row sees are skipped, and only tiles that some row sees in part are masked.
//
// A sequence of at most 128 rows is one block and split over its keys, every 512 of them: a task makes a partial result, and a second pass
// merges them in order. With at most 16 rows the keys are not packed but read once, in place, several key heads in turn, so that
// memory is read in the order in which it lies; this is decoding.
//
// Prediction for a core of 215 GFLOP/s (f32 multiply-adds) that reads 13 GB/s, 32 / 8 heads of 128: a causal prefill of 1024 is
// 8.6 GFLOP, 40 ms and a tenth more for exponentials and packing; a decode step over 4096 keys of f32 reads 33.6 MB, 2.6 ms.
// Measured, processor time on a machine that was busy otherwise: 63 ms and 2.7 ms.
//
// A row's result depends on its own sequence alone, never on the number of threads or on the other sequences.
//
// Sources, one object each, with what they are compiled for (all but the first two on x86-64 only):
//   attention_gqa_cpu.cc, attention_gqa_cpu_generic.cc   -O3
//   attention_gqa_cpu_avx2.cc                            -O3 -mavx2 -mfma -mf16c
//   attention_gqa_cpu_avx512.cc                          -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
//   attention_gqa_cpu_avx512bf16.cc                      the same and -mavx512bf16
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/plan.h"
#include "attention_gqa_cpu_checks.h"
#include "attention_gqa_cpu_engine.h"
#include "attention_gqa_cpu_sets.h"

namespace kw::cpu {
namespace {

constexpr int64_t kSplitRows = 128;  // of a sequence that is split over its keys, at most
constexpr int64_t kBlockRows = 512;  // of a block, at most
constexpr int64_t kTileKeys = 128;
constexpr int64_t kSplitKeys = 512;       // a multiple of kTileKeys and of AttentionFew::kKeys
constexpr int64_t kMostColumns = 512;     // of values
constexpr int64_t kFewRows = 64;          // rows of all key heads of a task
constexpr int64_t kFewBytes = 256 << 10;  // of keys and values that a few rows go over before the next tile, at most
constexpr double kSerialWork = 200e3;     // FLOPs below which waking a thread costs more than it brings
constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNone = -kInfinity;

constexpr KernelSets<AttentionKernels> kSets = {
    kAttentionGeneric,
#if defined(__x86_64__)
    kAttentionAvx2,
    kAttentionAvx512,
    &kAttentionAvx512Bf16,
#endif
};

}  // namespace

std::string AttentionCpuEngine::declines(const std::string& where, const AttentionGqaArgs& args, const char* keys,
                                         const char* values, bool paged) {
  using enum CheckedTensor::Kind;
  const auto stored = paged ? like_q_or_f8 : like_q;
  const CheckedTensor tensors[] = {{"q", args.q, floats},       {keys, args.k, stored},     {values, args.v, stored},
                                   {"bias", args.bias, floats}, {"mask", args.mask, flags}, {"y", args.y, floats},
                                   {"lse", args.lse, f32}};
  const std::string reason = declines_tensors(where, tensors, args.q.dtype);
  if (!reason.empty()) return reason;
  if (args.v.shape[3] > kMostColumns)
    return where + ": " + values + " has " + std::to_string(args.v.shape[3]) + " columns, expected at most " +
           std::to_string(kMostColumns);
  return declines_length(where, keys, args.k.shape[1], kTileKeys);
}

std::vector<std::string> AttentionCpuEngine::configurations(const AttentionGqaArgs& args,
                                                            const kw_device_info& device) {
  return kSets.configurations(static_cast<Isa>(device.isa), args.q.dtype, args.batch_invariant);
}

AttentionCpuEngine::AttentionCpuEngine(const char* where, const AttentionGqaArgs& args, const kw_device_info& device,
                                       bool paged, const std::string& configuration, int64_t splits)
    : where_(where),
      paged_(paged),
      splits_(splits),
      threads_(std::max(1, device.sm_count)),
      cache_(std::clamp<int64_t>(static_cast<int64_t>(features().l2_bytes / 2), 256 << 10, 1 << 20)),
      kernels_(kSets.of(where, static_cast<Isa>(device.isa), args.q.dtype, args.batch_invariant, configuration)),
      args_(args),
      shape_(resolve(args)),
      cells_(ceil_div(shape_.dim, kernels_.per_cell)),
      stride_o_(round_up(shape_.dim_v, 64)),
      capacity_(threads_ * scratch_floats() + partial_floats(shape_)) {}

// Either path's needs, each part rounded to whole cache lines.
int64_t AttentionCpuEngine::scratch_floats() const {
  const int64_t panels = kBlockRows / kernels_.rows, structs = sizeof(AttentionRows) / sizeof(float);
  const int64_t q = std::max(kBlockRows * cells_, kFewRows * round_up(cells_, 16));
  const int64_t slab = kTileKeys / kernels_.per_cell * round_up(shape_.dim_v, kernels_.rows);
  return std::max(panels, kFewRows) * structs + round_up(q, 16) + round_up(kTileKeys * cells_, 16) + slab +
         kBlockRows * stride_o_ + std::max(kTileKeys * kernels_.rows, kFewRows * AttentionFew::kKeys) +
         (paged_ ? AttentionFew::kKeys * round_up(std::max(shape_.dim, shape_.dim_v), 16) : 0);
}

AttentionCpuEngine::Scratch AttentionCpuEngine::scratch(int thread) const {
  float* next = space_ + thread * scratch_floats();
  const auto take = [&next](int64_t floats) { return std::exchange(next, next + round_up(floats, 16)); };
  const int64_t panels = kBlockRows / kernels_.rows;
  Scratch s;
  s.rows = reinterpret_cast<AttentionRows*>(take(std::max(panels, kFewRows) * sizeof(AttentionRows) / sizeof(float)));
  s.q = take(std::max(kBlockRows * cells_, kFewRows * round_up(cells_, 16)));
  s.k = take(kTileKeys * cells_);
  s.v = take(kTileKeys / kernels_.per_cell * round_up(shape_.dim_v, kernels_.rows));
  s.o = take(kBlockRows * stride_o_);
  s.scores = take(std::max<int64_t>(kTileKeys * kernels_.rows, kFewRows * AttentionFew::kKeys));
  s.gathered = next;
  return s;
}

// What partial results may take, whatever the lengths turn out to be.
int64_t AttentionCpuEngine::partial_floats(const AttentionShape& s) const {
  const bool variable = args_.lens_q.present() || s.packed;
  const int64_t rows = s.group * s.len_q;
  if (rows > kSplitRows && !variable) return 0;
  const int64_t padded =
      rows <= AttentionFew::kRows ? rows : round_up(std::min(rows, kSplitRows), AttentionRows::kMost);
  if (splits_ == 1) return 0;
  const int64_t parts = ceil_div(s.len_kv, kSplitKeys), most = splits_ > 0 ? std::min(splits_, parts) : parts;
  const int64_t chunks = s.packed ? s.len_kv / kSplitKeys + s.sequences : s.batch * most;
  return chunks * s.heads_kv * padded * (stride_o_ + 2);
}

void AttentionCpuEngine::rebind(const AttentionGqaArgs& args, void* workspace, const AttentionPages& pages) {
  args_ = args;
  pages_ = pages;
  shape_ = resolve(args);
  cells_ = ceil_div(shape_.dim, kernels_.per_cell);
  stride_o_ = round_up(shape_.dim_v, 64);
  const int64_t floats = threads_ * scratch_floats() + partial_floats(shape_);
  if (floats > capacity_) {
    throw Error(Code::SHAPE, std::string(where_) + ": workspace is " + std::to_string(capacity_ * 4) +
                                 " bytes, expected " + std::to_string(floats * 4) + " for the shape bound now");
  }
  scoring_.assign(std::max<int64_t>(1, shape_.heads_kv), scoring_of(args));
  pieces_.resize(shape_.sequences + (shape_.packed ? 1 : 0));
  space_ = static_cast<float*>(workspace);
}

// Reads the lengths and scales, which may change from call to call, and numbers the tasks.
void AttentionCpuEngine::schedule() {
  tasks_ = 0;
  work_ = 0;
  for (int64_t h = 0; h < shape_.heads_kv; ++h)
    scoring_[h].scale = args_.scale * AttentionStoredScales::of(pages_.stored.k, h);
  int64_t partial = threads_ * scratch_floats(), cleared = 0;
  for (int64_t n = 0; n < static_cast<int64_t>(pieces_.size()); ++n) {
    Piece& p = pieces_[n];
    p = Piece{};
    if (n < shape_.sequences) p.sequence = attention_sequence(args_, shape_, n, where_);
    if (!shape_.packed) {
      p.gap = p.sequence.len_q, p.gap_end = shape_.len_q;
    } else if (n < shape_.sequences) {
      p.gap = cleared, p.gap_end = p.sequence.q0;
      cleared = p.sequence.q0 + p.sequence.len_q;
    } else {
      p.gap = cleared, p.gap_end = shape_.len_q;  // what is left after the last sequence
    }
    measure(p);
    work_ += 2.0 * static_cast<double>(p.rows * shape_.heads_kv * p.sequence.len_kv * (shape_.dim + shape_.dim_v));
    p.first_task = tasks_;
    p.partial = partial;
    tasks_ += p.tasks;
    if (p.split() && p.chunks > 1) partial += p.chunks * shape_.heads_kv * partial_size(p);
  }
}

// Large blocks pack keys and values less often; small ones share the work out better, eight tasks a thread, and stay in cache.
int64_t AttentionCpuEngine::block_rows(int64_t rows) const {
  const int64_t row_bytes = (cells_ + stride_o_) * static_cast<int64_t>(sizeof(float));
  int64_t block = kBlockRows;
  while (block > kSplitRows &&
         (block * row_bytes > cache_ || shape_.sequences * shape_.heads_kv * (rows / block) < 8 * threads_)) {
    block /= 2;
  }
  return std::min(block, round_up(ceil_div(rows, 2), kernels_.rows));
}

void AttentionCpuEngine::measure(Piece& p) const {
  const AttentionSequence& s = p.sequence;
  p.rows = s.len_q * shape_.group;
  p.block = p.rows <= kSplitRows ? p.rows : block_rows(p.rows);
  p.blocks = p.rows == 0 ? 0 : ceil_div(p.rows, p.block);
  if (!p.split()) {
    p.tasks = p.blocks * shape_.heads_kv;
    return;
  }
  const int64_t begin = std::max<int64_t>(0, attention_range(args_, s, 0).begin);
  const int64_t end = attention_range(args_, s, s.len_q - 1).end;
  p.origin = begin / kSplitKeys * kSplitKeys;
  const int64_t length = std::max<int64_t>(0, end - p.origin);
  p.run = splits_ > 0 ? std::max(kSplitKeys, round_up(ceil_div(length, splits_), kSplitKeys)) : kSplitKeys;
  p.chunks = end > begin ? ceil_div(length, p.run) : 0;
  if (p.few()) {
    // Several key heads in a task, but four tasks a thread.
    const int64_t bytes = AttentionFew::kKeys * (shape_.dim + shape_.dim_v) * element_bytes(args_.k.dtype);
    const int64_t most = std::clamp(std::min(kFewRows / p.rows, kFewBytes / bytes), int64_t{1}, shape_.heads_kv);
    const int64_t runs = std::max<int64_t>(1, p.chunks) * static_cast<int64_t>(pieces_.size());
    const int64_t parts = std::clamp(ceil_div(4 * threads_, runs), ceil_div(shape_.heads_kv, most), shape_.heads_kv);
    p.heads = ceil_div(shape_.heads_kv, parts);
  }
  p.tasks = std::max<int64_t>(1, p.chunks) * ceil_div(shape_.heads_kv, p.heads);
}

void AttentionCpuEngine::enqueue(void* stream) {
  auto& pool = *static_cast<ThreadPool*>(stream);
  if (pool.threads() > threads_) {
    throw Error(Code::INTERNAL, std::string(where_) + ": the pool has " + std::to_string(pool.threads()) +
                                    " threads, expected at most " + std::to_string(threads_) + " as the plan");
  }
  schedule();
  const auto each = [&](int64_t n, auto fn) {
    if (work_ < kSerialWork) {
      if (n > 0) fn(int64_t{0}, n, 0);
    } else {
      pool.parallel_for(n, fn, 1);
    }
  };
  each(tasks_, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t task = begin; task < end; ++task) run(task, thread);
  });
  const auto rest = [](const Piece& p) { return p.gap < p.gap_end || (p.split() && p.chunks > 1); };
  if (std::none_of(pieces_.begin(), pieces_.end(), rest)) return;
  each(static_cast<int64_t>(pieces_.size()) * shape_.heads_kv, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& p = pieces_[i / shape_.heads_kv];
      const int64_t head = i % shape_.heads_kv;
      if (p.split() && p.chunks > 1) merge(p, head);
      clear(p.sequence.batch, p.gap, p.gap_end, head);
    }
  });
}

const AttentionPiece& AttentionCpuEngine::piece_of(int64_t task) const {
  const auto after = [](int64_t t, const Piece& p) { return t < p.first_task; };
  return *(std::upper_bound(pieces_.begin(), pieces_.end(), task, after) - 1);
}

void AttentionCpuEngine::run(int64_t task, int thread) const {
  const Piece& p = piece_of(task);
  const Scratch s = scratch(thread);
  const int64_t local = task - p.first_task, groups = ceil_div(shape_.heads_kv, p.heads);
  if (!p.split()) {  // the last block has the longest rows where the mask is causal
    const int64_t head = local % shape_.heads_kv, row = (p.blocks - 1 - local / shape_.heads_kv) * p.block;
    const int64_t count = std::min(p.block, p.rows - row);
    go_over(p, head, row, count, {0, p.sequence.len_kv}, s.o, s);
    for (int64_t r = 0; r < count; ++r) {
      const AttentionRows& rows = s.rows[r / kernels_.rows];
      const int64_t lane = r % kernels_.rows;
      finish(p, head, row + r, s.o + r * stride_o_, rows.fresh ? kNone : rows.max[lane], rows.sum[lane]);
    }
    return;
  }
  const int64_t first = local % groups * p.heads, heads = std::min(p.heads, shape_.heads_kv - first);
  const int64_t chunk = local / groups;
  const bool whole = p.chunks <= 1;
  float* o = whole ? s.o : partial(p, first, chunk);
  const int64_t step_o = whole ? p.padded_rows() * stride_o_ : partial_size(p);
  const AttentionRange keys{p.origin + chunk * p.run, std::min(p.origin + (chunk + 1) * p.run, p.sequence.len_kv)};
  if (p.few()) {
    go_over_few(p, first, heads, keys, o, step_o, s);
  } else {
    go_over(p, first, 0, p.rows, keys, o, s);
  }
  const int64_t panel = p.few() ? p.rows : kernels_.rows;
  for (int64_t i = 0; i < heads * p.rows; ++i) {
    const int64_t head = i / p.rows, r = i % p.rows;
    const AttentionRows& rows = s.rows[p.few() ? head : r / panel];
    const float max = rows.fresh ? kNone : rows.max[r % panel], sum = rows.sum[r % panel];
    float* values = o + head * step_o;
    if (whole) {
      finish(p, first + head, r, values + r * stride_o_, max, sum);
    } else {
      float* ends = values + p.padded_rows() * stride_o_;
      ends[r] = max, ends[p.padded_rows() + r] = sum;
    }
  }
}

const void* AttentionCpuEngine::query(const Piece& p, int64_t head, int64_t row) const {
  const int64_t i = p.sequence.q0 + row / shape_.group;
  return at(args_.q, p.sequence.batch, i, head * shape_.group + row % shape_.group);
}

// A block of rows against a run of keys. Leaves sums and maxima in s.rows, values in o.
void AttentionCpuEngine::go_over(const Piece& p, int64_t head, int64_t row, int64_t count, AttentionRange keys,
                                 float* o, const Scratch& s) const {
  const int64_t panel = kernels_.rows, panels = ceil_div(count, panel), slab = kTileKeys / kernels_.per_cell;
  for (int64_t i = 0; i < panels; ++i) {
    const int64_t first = row + i * panel, rows = std::min(panel, count - i * panel);
    set_rows(s.rows[i], args_, shape_, p.sequence, head, first, rows);
    const void* q[AttentionRows::kMost] = {};
    for (int64_t lane = 0; lane < rows; ++lane) q[lane] = query(p, head, first + lane);
    kernels_.pack_q(s.q + i * panel * cells_, q, shape_.dim);
  }
  // Both ends of what a row sees grow with its number.
  const AttentionRows& last = s.rows[panels - 1];
  const int64_t begin = std::max<int64_t>(keys.begin, s.rows[0].begin[0]);
  const int64_t end = std::min<int64_t>(keys.end, last.end[last.count - 1]);
  for (int64_t tile = begin / kTileKeys * kTileKeys; tile < end; tile += kTileKeys) {
    const int64_t low = std::max(begin, tile) / 2 * 2, high = std::min(end, tile + kTileKeys);
    bool packed = false;
    for (int64_t i = 0; i < panels; ++i) {
      AttentionRows& rows = s.rows[i];
      const int64_t from = std::max<int64_t>(low, rows.begin[0]) / 2 * 2;
      const int64_t to = std::min<int64_t>(high, rows.end[rows.count - 1]);
      if (from >= to || masked_out(scoring_[head], rows, from, to)) continue;
      if (!packed) pack(p, head, tile, low, high, s);
      packed = true;
      kernels_.tile({.scoring = &scoring_[head],
                     .rows = &rows,
                     .q = s.q + i * panel * cells_,
                     .k = s.k,
                     .cells = cells_,
                     .v = s.v,
                     .slab = slab,
                     .columns = static_cast<int>(ceil_div(shape_.dim_v, panel)),
                     .o = o + i * panel * stride_o_,
                     .stride_o = stride_o_,
                     .scores = s.scores,
                     .first = static_cast<int32_t>(tile),
                     .begin = static_cast<int>(from - tile),
                     .end = static_cast<int>(to - tile),
                     .edge = from < rows.begin[rows.count - 1] || to > rows.end[0]});
    }
  }
}

// The few rows of several key heads against a run of keys. Leaves sums and maxima in s.rows, one for each head; values in o.
void AttentionCpuEngine::go_over_few(const Piece& p, int64_t first_head, int64_t heads, AttentionRange keys, float* o,
                                     int64_t step_o, const Scratch& s) const {
  const int64_t padded = round_up(cells_, 16);
  for (int64_t h = 0; h < heads; ++h) {
    set_rows(s.rows[h], args_, shape_, p.sequence, first_head + h, 0, p.rows);
    for (int64_t r = 0; r < p.rows; ++r) {
      kernels_.flatten(s.q + (h * p.rows + r) * padded, query(p, first_head + h, r), shape_.dim);
    }
  }
  const int64_t begin = std::max<int64_t>(keys.begin, s.rows[0].begin[0]);
  const int64_t end = std::min<int64_t>(keys.end, s.rows[0].end[p.rows - 1]);
  for (int64_t key = begin, count; key < end; key += count) {
    // Up to a multiple of kKeys, so that pages of as many slots are read where they lie.
    count = std::min<int64_t>(AttentionFew::kKeys - key % AttentionFew::kKeys, end - key);
    const int64_t next = std::min<int64_t>(AttentionFew::kKeys, end - key - count);
    int64_t seen = 0, seen_heads[kFewRows];
    AttentionFew few[kFewRows];
    for (int64_t h = 0; h < heads; ++h) {
      AttentionRows& rows = s.rows[h];
      if (masked_out(scoring_[first_head + h], rows, key, key + count)) continue;
      seen_heads[seen] = first_head + h;
      few[seen] = {.scoring = &scoring_[first_head + h],
                   .rows = &rows,
                   .q = s.q + h * p.rows * padded,
                   .padded = padded,
                   .k = nullptr,
                   .v = nullptr,
                   .stride_k = 0,
                   .stride_v = 0,
                   .dim = shape_.dim,
                   .dim_v = shape_.dim_v,
                   .o = o + h * step_o,
                   .stride_o = stride_o_,
                   .scores = s.scores + h * p.rows * AttentionFew::kKeys,
                   .first = static_cast<int32_t>(key),
                   .keys = static_cast<int>(count),
                   .edge = key < rows.begin[p.rows - 1] || key + count > rows.end[0],
                   .ahead = nullptr,
                   .keys_ahead = static_cast<int>(next)};
      ++seen;
    }
    for (int64_t n = 0; n < seen; ++n) {
      const Lines keys_there = keys_of(p, seen_heads[n]), values_there = values_of(p, seen_heads[n]);
      const Rows k = rows_of(keys_there, key, count, s.gathered);
      few[n].k = k.first, few[n].stride_k = k.stride;
      few[n].v = in_place(values_there, key, count);
      few[n].stride_v = args_.v.stride[1];
      if (!few[n].v && seen == 1 && values_in_keys()) few[n].v = k.first, few[n].stride_v = k.stride;
      if (!few[n].v) prefetch(values_there, key, count);
      kernels_.few_scores(few[n]);
    }
    for (int64_t n = 0; n < seen; ++n) {
      const Lines keys_there = keys_of(p, seen_heads[n]);
      if (!few[n].v) {
        const Rows v = gather(values_of(p, seen_heads[n]), key, count, s.gathered);
        few[n].v = v.first, few[n].stride_v = v.stride;
      }
      if (next > 0) {
        few[n].ahead = in_place(keys_there, key + count, next);
        few[n].stride_k = args_.k.stride[1];
        if (!few[n].ahead) prefetch(keys_there, key + count, next);
      }
      kernels_.few_values(few[n]);
    }
  }
}

// Keys low .. high - 1 of a head into the tile that begins at `tile`; low is even.
void AttentionCpuEngine::pack(const Piece& p, int64_t head, int64_t tile, int64_t low, int64_t high,
                              const Scratch& s) const {
  const int64_t panel = kernels_.rows, slab = kTileKeys / kernels_.per_cell;
  for (int64_t key = low, count; key < high; key += count) {
    // In pages, as many as `gathered` holds, up to an even key.
    count = paged_ ? std::min(AttentionFew::kKeys - key % AttentionFew::kKeys, high - key) : high - key;
    const int64_t offset = key - tile;
    const Rows k = rows_of(keys_of(p, head), key, count, s.gathered);
    kernels_.pack_k(s.k + offset * cells_, k.first, k.stride, count, shape_.dim);
    const Rows v = values_in_keys() ? k : rows_of(values_of(p, head), key, count, s.gathered);
    kernels_.pack_v(s.v + offset / kernels_.per_cell * panel, v.first, v.stride, count, shape_.dim_v, slab);
  }
}

// Element 0 of a key; null where the table names no page.
const char* AttentionCpuEngine::line(const Lines& l, int64_t key) const {
  if (!paged_) return at(l.view, l.sequence.batch, l.sequence.kv0 + key, l.head);
  const int64_t page = pages_.table[l.sequence.batch * pages_.table_batch + key / pages_.size * pages_.table_entry];
  if (page < 0 || page >= pages_.count) return nullptr;
  const int64_t element = page * l.step + key % pages_.size * l.view.stride[1] + l.head * l.view.stride[2];
  return static_cast<const char*>(l.view.data) + element * element_bytes(l.view.dtype);
}

// Calls fn with line() of each of `count` keys in pages; finding a page takes two divisions.
template <class Fn>
void AttentionCpuEngine::each_line(const Lines& l, int64_t key, int64_t count, Fn fn) const {
  const int64_t step = l.view.stride[1] * element_bytes(l.view.dtype), last = key + count;
  for (int64_t end; key < last; key = end) {
    end = std::min(last, key - key % pages_.size + pages_.size);
    const char* from = line(l, key);
    for (int64_t n = key; n < end; ++n) fn(from ? from + (n - key) * step : nullptr);
  }
}

// Element 0 of a key when the next `count` - 1 follow it at the stride of the view; else null.
const char* AttentionCpuEngine::in_place(const Lines& l, int64_t key, int64_t count) const {
  const bool together = !paged_ || key % pages_.size + count <= pages_.size;
  return together && l.view.dtype == args_.q.dtype ? line(l, key) : nullptr;
}

// As rows of the dtype of q, in place or in `space`, which holds kKeys of them.
AttentionCpuEngine::Rows AttentionCpuEngine::rows_of(const Lines& l, int64_t key, int64_t count, float* space) const {
  const char* first = in_place(l, key, count);
  return first ? Rows{first, l.view.stride[1]} : gather(l, key, count, space);
}

AttentionCpuEngine::Rows AttentionCpuEngine::gather(const Lines& l, int64_t key, int64_t count, float* space) const {
  const int64_t elements = l.view.shape[3], bytes = elements * element_bytes(args_.q.dtype);
  char* to = reinterpret_cast<char*>(space);
  each_line(l, key, count, [&](const char* from) {
    if (!from) {
      std::memset(to, 0, bytes);
    } else if (l.view.dtype == args_.q.dtype) {
      std::memcpy(to, from, bytes);
    } else {
      kernels_.widen(to, reinterpret_cast<const uint8_t*>(from), elements);
    }
    to += bytes;
  });
  return {reinterpret_cast<const char*>(space), elements};
}

// Whether values are the first columns of keys.
bool AttentionCpuEngine::values_in_keys() const {
  const TensorView &k = args_.k, &v = args_.v;
  return paged_ && k.data == v.data && pages_.step_k == pages_.step_v && k.stride[1] == v.stride[1] &&
         k.stride[2] == v.stride[2] && k.shape[3] >= v.shape[3];
}

void AttentionCpuEngine::prefetch(const Lines& l, int64_t key, int64_t count) const {
  const int64_t bytes = l.view.shape[3] * element_bytes(l.view.dtype);
  each_line(l, key, count, [bytes](const char* from) {
    for (int64_t b = 0; from && b < bytes; b += 64) __builtin_prefetch(from + b, 0, 2);
  });
}

// Writes y and lse of a row from its sums.
void AttentionCpuEngine::finish(const Piece& p, int64_t head, int64_t row, const float* o, float max, float sum) const {
  const int64_t i = p.sequence.q0 + row / shape_.group, h = head * shape_.group + row % shape_.group;
  const double sink =
      args_.sink.present() ? static_cast<const float*>(args_.sink.data)[h * args_.sink.stride[0]] : kNone;
  void* y = at(args_.y, p.sequence.batch, i, h);
  double lse = sink;
  if (max == kNone && sum == 0) {
    std::memset(y, 0, shape_.dim_v * element_bytes(args_.y.dtype));
  } else {
    const double top = double{max} < sink ? sink : double{max};
    if (sink != kInfinity) lse = top + std::log(double{sum} * std::exp(double{max} - top) + std::exp(sink - top));
    const float divisor = static_cast<float>(double{sum} + std::exp(sink - double{max}));
    kernels_.finish(y, args_.y.dtype, o, AttentionStoredScales::of(pages_.stored.v, head), divisor, shape_.dim_v);
  }
  store_lse(p.sequence.batch, h, i, static_cast<float>(lse));
}

void AttentionCpuEngine::store_lse(int64_t batch, int64_t head, int64_t i, float value) const {
  if (!args_.lse.present()) return;
  const int64_t* stride = args_.lse.stride;
  static_cast<float*>(args_.lse.data)[batch * stride[0] + head * stride[1] + i * stride[2]] = value;
}

// The partial results of a piece's key head, in the order of the keys.
void AttentionCpuEngine::merge(const Piece& p, int64_t head) const {
  const int64_t size = partial_size(p), rows = p.padded_rows();
  for (int64_t r = 0; r < p.rows; ++r) {
    const float* first = partial(p, head, 0);
    const int64_t step = shape_.heads_kv * size;
    float max = kNone, total = 0;
    for (int64_t c = 0; c < p.chunks; ++c) max = std::max(max, first[c * step + rows * stride_o_ + r]);
    alignas(64) float o[kMostColumns] = {};
    for (int64_t c = 0; c < p.chunks; ++c) {
      const float* part = first + c * step;
      const float* ends = part + rows * stride_o_;
      if (ends[r] == kNone && ends[rows + r] == 0) continue;
      const float factor = std::exp(ends[r] - max);
      total += factor * ends[rows + r];
      for (int64_t e = 0; e < shape_.dim_v; ++e) o[e] += factor * part[r * stride_o_ + e];
    }
    finish(p, head, r, o, max, total);
  }
}

// Rows of q that are not there.
void AttentionCpuEngine::clear(int64_t batch, int64_t begin, int64_t end, int64_t head) const {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t h = head * shape_.group; h < (head + 1) * shape_.group; ++h) {
      std::memset(at(args_.y, batch, i, h), 0, shape_.dim_v * element_bytes(args_.y.dtype));
      store_lse(batch, h, i, kNone);
    }
  }
}

std::string AttentionCpuEngine::explain() const {
  const int64_t rows = shape_.group * shape_.len_q;
  const bool few = rows <= AttentionFew::kRows, split = rows <= kSplitRows;
  std::ostringstream json;
  json << R"({"variant":")" << where_ << "_cpu_" << kernels_.isa << R"(","configuration":")" << kernels_.isa
       << R"(","path":")"
       << (few     ? args_.k.dtype == args_.q.dtype ? "few rows, keys in place" : "few rows, keys converted"
           : split ? "one block of rows, keys split"
                   : "blocks of rows")
       << R"(","tile":[)" << (few ? rows : kernels_.rows) << ',' << (few ? int64_t{AttentionFew::kKeys} : kTileKeys)
       << R"(],"block":)" << (few ? rows : kBlockRows) << R"(,"splitKeys":)" << (split ? kSplitKeys : 0)
       << (paged_ ? R"(,"pageSize":)" + std::to_string(pages_.size) : "") << R"(,"threads":)" << threads_
       << R"(,"reason":"a key head is read by )" << rows << " rows, " << (split ? "at most " : "more than ")
       << (few ? int64_t{AttentionFew::kRows} : kSplitRows) << "\"}";
  return json.str();
}

namespace {

class AttentionGqaCpuPlan {
 public:
  static std::string declines(const AttentionGqaArgs& args, const kw_device_info&) {
    return AttentionCpuEngine::declines("attention_gqa", args);
  }
  static std::vector<std::string> configurations(const AttentionGqaArgs& args, const kw_device_info& device) {
    return AttentionCpuEngine::configurations(args, device);
  }
  AttentionGqaCpuPlan(const AttentionGqaArgs& args, const kw_device_info& device, const std::string& configuration = "")
      : engine_("attention_gqa", args, device, false, configuration) {}
  uint64_t workspace() const { return engine_.workspace(); }
  void rebind(const AttentionGqaArgs& args, void* workspace) { engine_.rebind(args, workspace); }
  void enqueue(void* stream) { engine_.enqueue(stream); }
  std::string explain() const { return engine_.explain(); }

 private:
  AttentionCpuEngine engine_;
};

}  // namespace

const kw_op& attention_gqa() {
  static constexpr kw_op op = make_op<AttentionGqaArgs, AttentionGqaCpuPlan>("attention_gqa");
  return op;
}

}  // namespace kw::cpu
