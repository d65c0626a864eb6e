// gemm_int4 on the CPU: the plan behind kw_op. Rows of x are taken as one list over all batches, a group of them at a time;
// each group is arranged once by all threads, and then every thread multiplies it with runs of rows of w.
//
//   stream  few rows of x. Every row of w is read once, in place, as inner products along k (gemm_int4_cpu_kernels.h).
//   blocks  more of them: ŵ is decoded, piece by piece of k, into panels in a thread's own L2 cache, which gemm's
//           micro-kernels multiply (gemm_cpu.h).
//   tiles   more of them, x rounded to int8 and, with AMX, x in f32 or f16: the whole numbers of w on tiles of AMX or of
//           vector registers (gemm_int4_cpu_vector_tiles.h), sums of a group at a time (gemm_int4_cpu_tiles.h).
//
// An element's sum depends on k and the way taken, never on the number of threads or the size of the blocks.
//
// Roofline for K = N = 4096, two threads of an Intel Xeon with AMX (2.6 GHz) that read 35 GB/s together. w with f32 scales is
// 8.9 MB with groups of 128, 10.5 MB with 32. Predicted for m 1: int8 one read of that, 0.25 and 0.30 ms; exact 1.5 cycles on
// each core for 16 weights, 0.30 ms. m 512 is 17.2 GFLOP: exact in f32 three products of bf16 at 6.5 TFLOP/s, 8 ms, and as long
// again for sums on their way to the scales; int8 at 13 TFLOP/s 1.3 ms and 6 for those sums.
// Reached, least of repeated calls, groups of 128 and 32, x and y in f32, w and scales in 16 copies in turn: m 1 exact 0.42 and
// 0.65 ms, int8 0.23 and 0.33; m 16 exact 1.38 and 1.70, int8 0.80 and 1.37; m 512 exact 26.0 and 32.1, int8 7.5 and 22.1 (a
// block of 32 fills half a tile, and its sums are scaled four times as often). m 512 int8 with less than AMX: vpdpbusd 24.5 and
// 40.3, AVX-512 without it 34.5 and 50.6, AVX2 48.9 and 82.3.
// What comes next has to be asked for, and scales a task at a time: without that m 1 took 0.36 and 0.66 ms in int8.
//
// Sources, one object each, compiled as those of gemm_cpu.cc (native/addon.gypi):
//   gemm_int4_cpu.cc, gemm_int4_cpu_generic.cc, gemm_int4_cpu_avx2.cc, gemm_int4_cpu_avx512.cc,
//   gemm_int4_cpu_avx512bf16.cc, gemm_int4_cpu_amxbf16.cc
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <sstream>
#include <string>

#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/plan.h"
#include "../core/threads.h"
#include "gemm_int4_cpu_plan.h"

namespace kw::cpu {
namespace {

constexpr int64_t kArrangedFloats = 256 << 10;  // of x for stream at a time, 1 MB
constexpr int64_t kArrangedRows = 256;          // at most
constexpr int64_t kStreamColumns = 256;         // rows of w in a task of stream, at most
constexpr int64_t kStreamSums = 16 << 10;       // floats of sums in a task, about
constexpr int64_t kTileFloats = 1 << 20;        // of x for tiles at a time, 4 MB
constexpr int64_t kTileRows = 512;              // at most
constexpr int64_t kTileColumns = 128;           // rows of w in a task of tiles, at most
constexpr int64_t kTilePiece = 6 << 10;         // floats of a panel of w decoded at a time, half an L1 cache
constexpr int64_t kTileChain = 256;             // elements along k that are summed on tiles, at most
constexpr int64_t kLargestBlock = 128;
constexpr double kSerialWork = 200e3;  // FLOPs below which waking a thread costs more than it brings

const Int4Kernels& kernels_for(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::amx_bf16) return kInt4Amx;
  if (isa >= Isa::avx512_bf16) return kInt4Avx512Bf16;
  if (isa >= Isa::avx512) return kInt4Avx512;
  if (isa == Isa::avx2) return kInt4Avx2;
#endif
  (void)isa;
  return kInt4Generic;
}

// bf16 that add up to an element of x.
int parts_of(DType dtype) { return dtype == DType::f32 ? 3 : dtype == DType::f16 ? 2 : 1; }

// The problem as gemm's: all rows of x with one w.
GemmShape flat(const GemmInt4Shape& shape) {
  GemmShape s = shape.gemm;
  s.m *= s.batch, s.batch = 1;
  return s;
}

}  // namespace

std::string GemmInt4CpuPlan::declines(const GemmInt4Args& args, const kw_device_info&) {
  const auto expected = [](const char* field, const std::string& is, const char* wanted) {
    return std::string("gemm_int4: ") + field + " is " + is + ", expected " + wanted;
  };
  const struct {
    const char* name;
    const TensorView& view;
  } tensors[] = {
      {"x", args.x}, {"scales", args.scales}, {"bias", args.bias}, {"residual", args.residual}, {"y", args.y}};
  for (const auto& t : tensors) {
    if (!t.view.present()) continue;
    if (!is_float(t.view.dtype)) return expected(t.name, name(t.view.dtype), "f32, f16 or bf16");
    const GemmOperand o = resolve_operand(t.view);
    if (o.column == 1) continue;
    return "gemm_int4: last dimension of " + std::string(t.name) + " has stride " + std::to_string(o.column) +
           ", expected 1";
  }
  if (args.w.dtype != DType::u4 && args.w.dtype != DType::nf4) return expected("w", name(args.w.dtype), "u4 or nf4");
  if (args.w.format != 0) return expected("w", "prepacked", "plain: its rows are read as they are");
  const GemmInt4Shape s = resolve(args);
  const int64_t k = s.gemm.k;
  if (k > 0 && (s.group % kInt4Unit != 0 || s.group * s.groups != k)) {
    return expected("k", std::to_string(k) + " with " + std::to_string(s.groups) + " groups",
                    "groups of a multiple of 32");
  }
  if (args.zeros.present() && args.zeros.dtype != DType::u4) return expected("zeros", name(args.zeros.dtype), "u4");
  if (args.zeros.present() && s.normal_float) return expected("zeros", "given with nf4", "none");
  if (args.perm.present() && args.perm.dtype != DType::i32) return expected("perm", name(args.perm.dtype), "i32");
  return "";
}

GemmKernels GemmInt4CpuPlan::packing_for_all(GemmKernels kernels) {
  kernels.pack_piece = nullptr;
  return kernels;
}

std::string GemmInt4CpuPlan::name_of(const Int4Layout& l) const {
  constexpr const char* kWays[] = {"/stream", "/stream", "/blocks", "/tiles"};
  return (l.way == Way::blocks ? gemm_.isa : kernels_.isa) + std::string(kWays[static_cast<int>(l.way)]);
}

// The own one, then few rows and many by falling strength of the instruction set. batch_invariant has one: others may round
// otherwise.
std::vector<std::pair<std::string, Asked>> GemmInt4CpuPlan::ways(const GemmInt4Args& args,
                                                                 const kw_device_info& device) {
  const Isa best = static_cast<Isa>(device.isa);
  const GemmInt4Shape shape = resolve(args);
  std::vector<std::pair<std::string, Asked>> all;
  const auto add = [&](Isa isa, std::optional<bool> many) {
    const GemmInt4CpuPlan plan(args, device, {isa, many});
    const std::string name = plan.name_of(plan.layout(shape));
    const bool known = std::any_of(all.begin(), all.end(), [&](const auto& other) { return other.first == name; });
    if (!known) all.emplace_back(name, Asked{isa, many});
  };
  add(best, {});
  if (args.batch_invariant || shape.gemm.batch * shape.gemm.m * shape.gemm.n == 0) return all;
  for (int i = static_cast<int>(best); i >= std::min(static_cast<int>(best), 1); --i) {
    const auto isa = static_cast<Isa>(i);
    // Few rows have the same kernels with AMX as without.
    if (isa != Isa::avx512_bf16 || best != Isa::amx_bf16) add(isa, false);
    add(isa, true);
  }
  return all;
}

std::vector<std::string> GemmInt4CpuPlan::configurations(const GemmInt4Args& args, const kw_device_info& device) {
  std::vector<std::string> names;
  for (const auto& [name, asked] : ways(args, device)) names.push_back(name);
  return names;
}

Asked GemmInt4CpuPlan::asked_by(const std::string& configuration, const GemmInt4Args& args,
                                const kw_device_info& device) {
  if (configuration.empty()) return {static_cast<Isa>(device.isa), {}};
  std::string expected;
  for (const auto& [name, asked] : ways(args, device)) {
    if (name == configuration) return asked;
    expected += (expected.empty() ? "" : ", ") + name;
  }
  throw Error(Code::UNSUPPORTED, "gemm_int4: configuration is " + configuration + ", expected one of " + expected);
}

GemmInt4CpuPlan::GemmInt4CpuPlan(const GemmInt4Args& args, const kw_device_info& device,
                                 const std::string& configuration)
    : GemmInt4CpuPlan(args, device, asked_by(configuration, args, device)) {}

GemmInt4CpuPlan::GemmInt4CpuPlan(const GemmInt4Args& args, const kw_device_info& device, const Asked& asked)
    : machine_(gemm_machine(device)),
      kernels_(kernels_for(asked.isa)),
      many_(asked.many),
      activation_(args.activation),
      halves_(is_gated(args.activation) ? 2 : 1),
      invariant_(args.batch_invariant),
      int8_(args.accuracy == Int4Accuracy::int8),
      dequant_(args.mode == Int4Mode::dequant),
      normal_float_(args.w.dtype == DType::nf4),
      rounded_(int8_ && (dequant_ || normal_float_)),
      tiles_(kernels_.tiles && !rounded_ && !dequant_ && !normal_float_ &&
             (int8_ || (kernels_.tiles->splits && args.x.dtype != DType::bf16))),
      dtype_(rounded_ ? DType::f32 : args.x.dtype),
      gemm_(packing_for_all(gemm_kernels(asked.isa, dtype_))),
      capacity_(capacity(resolve(args))) {}

Int4Layout GemmInt4CpuPlan::layout(const GemmInt4Shape& shape) const {
  const GemmShape g = flat(shape);
  Int4Layout l;
  if (g.m == 0 || g.n == 0) return l;
  const double work = static_cast<double>(g.m * g.rows_w) * static_cast<double>(2 * g.k + 20);
  l.threads = work < kSerialWork ? 1 : machine_.threads;
  const bool whole = int8_ && !rounded_;
  const bool many = many_ ? *many_ : invariant_ || g.m > (whole ? kernels_.stream_int8_m : kernels_.stream_m);
  if (many && tiles_) {
    l.way = Way::tiles;
    lay_out_tiles(shape, g, l);
  } else if (many && !whole) {
    l.way = Way::blocks;
    lay_out_blocks(g, l);
  } else {
    l.way = whole ? Way::stream_int8 : Way::stream;
    lay_out_stream(g, l);
  }
  return l;
}

void GemmInt4CpuPlan::lay_out_stream(const GemmShape& g, Int4Layout& l) const {
  const int64_t row = l.way == Way::stream ? kernels_.row_floats(g.k) : kernels_.row_floats_int8(g.k);
  const int64_t fits = std::max<int64_t>(kernels_.stream_mx, kArrangedFloats / std::max<int64_t>(row, 1));
  l.group = std::min({g.m, fits, kArrangedRows});
  const int64_t even = round_up(ceil_div(g.n, 8 * l.threads), kInt4Rows), in_sums = kStreamSums / (l.group * halves_);
  l.columns = std::clamp<int64_t>(std::min(even, in_sums / kInt4Rows * kInt4Rows), kInt4Rows, kStreamColumns);
  l.arranged = l.group * row;
  l.own_work = std::max(g.k, kernels_.scratch_floats(g.k));
  l.own_sums = l.group * halves_ * l.columns;
}

void GemmInt4CpuPlan::lay_out_blocks(const GemmShape& g, Int4Layout& l) const {
  l.blocks = gemm_layout(g, gemm_, machine_, true);
  l.group = l.blocks.group * l.blocks.panels * l.blocks.mr;
  l.columns = l.blocks.panels_w * gemm_.nr;
  l.arranged = l.blocks.packed_x, l.own_w = l.blocks.own_w, l.own_sums = l.blocks.own_sums;
  l.own_work = l.blocks.mr * (l.blocks.depth * gemm_.per_cell + 2 * kLargestBlock);
}

void GemmInt4CpuPlan::lay_out_tiles(const GemmInt4Shape& shape, const GemmShape& g, Int4Layout& l) const {
  Int4TileShape& t = l.tiles;
  t.k = g.k, t.segment = shape.block, t.parts = int8_ ? 0 : parts_of(g.x.dtype);
  if (!int8_) {
    t.segment = std::clamp<int64_t>(shape.group, kInt4Unit, kTileChain);
    while (shape.group % t.segment != 0) t.segment -= kInt4Unit;
  }
  t.steps = ceil_div(t.segment, int8_ ? 64 : kInt4Unit), t.segments = g.k / t.segment;
  t.floats_x = t.segments * (t.steps * std::max(t.parts, 1) * 256 + 2 * 16);
  t.floats_w = t.steps * 2 * 256 + 2 * 32;
  const int64_t fits = std::clamp<int64_t>(kTileFloats / std::max<int64_t>(t.floats_x, 1), 1, kTileRows / 16),
                all = ceil_div(g.m, 16);
  const int64_t each = ceil_div(all, ceil_div(all, fits));  // sixteens of rows
  l.group = 16 * std::min(fits, round_up(each, 2));
  l.columns = std::clamp<int64_t>(round_up(ceil_div(g.n, 4 * l.threads), 32), 32, kTileColumns);
  l.piece = std::clamp<int64_t>(kTilePiece / t.floats_w, 1, t.segments);
  l.arranged = std::min(l.group / 16, all) * t.floats_x;
  l.own_work = g.k;
  l.own_w = ceil_div(l.columns, 32) * l.piece * t.floats_w;
  l.own_sums = std::min(l.group, 16 * all) * halves_ * l.columns;
}

// Floats of workspace that are enough for this shape and for every one with smaller extents.
int64_t GemmInt4CpuPlan::capacity(const GemmInt4Shape& shape) const {
  const GemmShape g = flat(shape);
  if (g.m == 0 || g.n == 0) return 0;
  const bool whole = int8_ && !rounded_;
  const int64_t row = whole ? kernels_.row_floats_int8(g.k) : kernels_.row_floats(g.k);
  const int64_t streamed = tiles_ && !many_ ? (whole ? kernels_.stream_int8_m : kernels_.stream_m) : kArrangedRows;
  const int64_t rows = std::min({g.m, kArrangedRows, streamed});
  const int64_t arranged = std::min(rows * row, std::max(kernels_.stream_mx * row, kArrangedFloats));
  const int64_t sums = std::max(std::min(rows * halves_ * kStreamColumns, kStreamSums), rows * halves_ * kInt4Rows);
  const int64_t stream = arranged + machine_.threads * (std::max(g.k, kernels_.scratch_floats(g.k)) + sums);
  if (tiles_) {
    Int4Layout l;
    lay_out_tiles(shape, g, l);
    const Int4TileShape& t = l.tiles;
    const int64_t all = ceil_div(g.m, 16), columns = std::min(kTileColumns, round_up(g.n, 32));
    const int64_t x = std::min(all * t.floats_x, std::max(kTileFloats, t.floats_x));
    const int64_t w = columns / 32 * std::max(kTilePiece, t.floats_w);
    const int64_t own = g.k + w + std::min(16 * all, kTileRows) * halves_ * columns;
    return std::max(stream, x + machine_.threads * own);
  }
  if (whole) return stream;
  const int64_t work = gemm_.mr * (gemm_.depth * gemm_.per_cell + 2 * kLargestBlock);
  return std::max(stream, gemm_capacity(g, gemm_, machine_) + machine_.threads * work);
}

void GemmInt4CpuPlan::rebind(const GemmInt4Args& args, void* workspace) {
  const GemmInt4Shape shape = resolve(args);
  const Int4Layout layout = this->layout(shape);
  if (layout.floats() > capacity_) {
    throw Error(Code::SHAPE, "gemm_int4: workspace is " + std::to_string(capacity_ * 4) + " bytes, expected " +
                                 std::to_string(layout.floats() * 4) + " for the shape bound now");
  }
  shape_ = shape, layout_ = layout, rows_ = shape.gemm.batch * shape.gemm.m;
  w_ = {.data = static_cast<const uint8_t*>(shape.gemm.w.data),
        .rows = shape.gemm.rows_w,
        .k = shape.gemm.k,
        .group = std::max<int64_t>(shape.group, 1),
        .scales = shape.scales.data,
        .scale_dtype = shape.scales.dtype,
        .stride = shape.scales.row,
        .zeros = static_cast<const uint8_t*>(shape.zeros),
        .normal_float = shape.normal_float,
        .round = dequant_ ? args.x.dtype : DType::f32};
  space_ = static_cast<float*>(workspace);
}

// Asks for the scales and zeros of a task's rows of w: runs of a few lines, one for each group, which no processor foresees. Into
// L2, where more can be under way at a time.
void GemmInt4CpuPlan::ask_scales(int64_t row, int64_t rows) const {
  constexpr int64_t kLine = 64;
  const int64_t size = bits(w_.scale_dtype) / 8;
  for (int64_t g = 0; g * w_.group < w_.k; ++g) {
    const char* const scales = static_cast<const char*>(w_.scales) + (g * w_.stride + row) * size;
    for (int64_t at = 0; at < rows * size; at += kLine) __builtin_prefetch(scales + at, 0, 2);
    if (!w_.zeros) continue;
    const uint8_t* const zeros = w_.zeros + (g * w_.rows + row) / 2;
    for (int64_t at = 0; at < rows / 2; at += kLine) __builtin_prefetch(zeros + at, 0, 2);
  }
  asm volatile("");  // GCC drops calls of a function that does nothing but ask
}

// fn(begin, end, thread) over n items, on the calling thread alone when the whole problem is small.
template <class Fn>
void GemmInt4CpuPlan::each(ThreadPool& pool, int64_t n, int64_t grain, Fn&& fn) const {
  if (layout_.threads > 1) {
    pool.parallel_for(n, fn, grain);
  } else if (n > 0) {
    fn(int64_t{0}, n, 0);
  }
}

void GemmInt4CpuPlan::enqueue(void* stream) const {
  auto& pool = *static_cast<ThreadPool*>(stream);
  if (pool.threads() > machine_.threads) {
    throw Error(Code::INTERNAL, "gemm_int4: the pool has " + std::to_string(pool.threads()) +
                                    " threads, expected at most " + std::to_string(machine_.threads) + " as the plan");
  }
  check_perm(shape_);
  const Int4Layout& l = layout_;
  if (rows_ == 0 || shape_.gemm.n == 0) return;
  const auto own = [&](int thread) { return space_ + l.arranged + thread * l.own(); };
  const int64_t tasks = ceil_div(shape_.gemm.n, l.columns);
  for (int64_t first = 0; first < rows_; first += l.group) {
    const int64_t rows = std::min(l.group, rows_ - first);
    if (l.way == Way::blocks) {
      const int64_t mr = l.blocks.mr, panels = ceil_div(rows, mr), high = l.blocks.panels * mr;
      each(pool, w_.k == 0 ? 0 : panels, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t block = i / l.blocks.panels;
          pack_x(first + i * mr, i % l.blocks.panels, space_ + block * high * l.blocks.cells, own(thread));
        }
      });
      const int64_t blocks = ceil_div(rows, high);
      each(pool, blocks * tasks, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) run_block(first, i % blocks, i / blocks, own(thread));
      });
    } else if (l.way == Way::tiles) {
      each(pool, rows, 4, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) {
          kernels_.tiles->arrange(space_ + i / 16 * l.tiles.floats_x, l.tiles, static_cast<int>(i % 16),
                                  row_of(first + i), own(thread));
        }
      });
      each(pool, tasks, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t task = begin; task < end; ++task) run_tiles(first, rows, task, own(thread));
      });
    } else {
      const int64_t row = l.arranged / l.group;
      each(pool, rows, 4, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) arrange(first + i, space_ + i * row, own(thread));
      });
      each(pool, tasks, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t task = begin; task < end; ++task) run_stream(first, rows, task, own(thread));
      });
    }
  }
}

// A row of x over all batches.
Int4Row GemmInt4CpuPlan::row_of(int64_t row) const {
  const GemmOperand& x = shape_.gemm.x;
  const int64_t at = row / shape_.gemm.m * x.batch + row % shape_.gemm.m * x.row;
  return {.data = static_cast<const char*>(x.data) + at * bits(x.dtype) / 8,
          .dtype = x.dtype,
          .perm = static_cast<const int32_t*>(shape_.perm),
          .block = int8_ ? shape_.block : 0};
}

void GemmInt4CpuPlan::arrange(int64_t row, float* to, float* own) const {
  (layout_.way == Way::stream ? kernels_.arrange : kernels_.arrange_int8)(to, row_of(row), w_.k, own);
}

void GemmInt4CpuPlan::run_stream(int64_t first, int64_t rows, int64_t task, float* own) const {
  const Int4Layout& l = layout_;
  const int64_t column = task * l.columns, columns = std::min(l.columns, shape_.gemm.n - column);
  const int64_t stride = halves_ * l.columns;
  float* const sums = own + l.own_work;
  for (int half = 0; half < halves_; ++half) {
    ask_scales(half * shape_.gemm.n + column, columns);
    const Int4Stream s{.x = space_,
                       .stride_x = l.arranged / l.group,
                       .m = static_cast<int>(rows),
                       .w = w_,
                       .row = half * shape_.gemm.n + column,
                       .rows = columns,
                       .sums = sums + half * l.columns,
                       .stride = stride,
                       .scratch = own};
    (l.way == Way::stream ? kernels_.stream : kernels_.stream_int8)(s);
  }
  finish(first, rows, column, columns, sums, stride, l.columns);
}

// One panel of mr rows, from `row` on, the `panel`-th of its block, for every piece of k: `to` is [pieces][panels][cells of
// the piece][mr].
void GemmInt4CpuPlan::pack_x(int64_t row, int64_t panel, float* to, float* own) const {
  const GemmLayout& l = layout_.blocks;
  const GemmShape& g = shape_.gemm;
  const int rows = static_cast<int>(std::min<int64_t>(l.mr, rows_ - row));
  const int64_t size = bits(dtype_) / 8;
  const bool whole = !shape_.perm && !rounded_ && (row % g.m + rows <= g.m || g.x.batch == g.m * g.x.row);
  for (int64_t c = 0; c < l.cells; c += l.depth) {
    const int64_t depth = std::min(l.depth, l.cells - c), from = c * gemm_.per_cell;
    const int64_t count = std::min(depth * gemm_.per_cell, g.k - from);
    float* const piece = to + (c * l.panels + panel * depth) * l.mr;
    if (whole) {
      const auto* start = static_cast<const char*>(row_of(row).data) + from * size;
      gemm_.pack_x(piece, start, g.x.row, 1, rows, count, depth, l.mr);
      continue;
    }
    // Row by row into memory of this thread, in whole blocks where there are some.
    const int64_t block = rounded_ ? shape_.block : 1, low = from / block * block;
    const int64_t high = std::min(round_up(from + count, block), g.k), stride = high - low;
    for (int r = 0; r < rows; ++r) {
      const Int4Row source = row_of(row + r);
      char* const place = reinterpret_cast<char*>(own) + r * stride * size;
      if (dtype_ == DType::f32) {
        kernels_.widen(reinterpret_cast<float*>(place), source, low, high - low);
      } else {
        auto* elements = reinterpret_cast<uint16_t*>(place);
        const auto* all = static_cast<const uint16_t*>(source.data);
        for (int64_t p = 0; p < stride; ++p) elements[p] = all[source.perm ? source.perm[low + p] : low + p];
      }
    }
    gemm_.pack_x(piece, reinterpret_cast<char*>(own) + (from - low) * size, stride, 1, rows, count, depth, l.mr);
  }
}

void GemmInt4CpuPlan::run_block(int64_t first, int64_t block, int64_t task, float* own) const {
  const GemmLayout& l = layout_.blocks;
  const GemmShape& g = shape_.gemm;
  const int64_t nr = gemm_.nr, high = l.panels * l.mr, row = first + block * high, rows = std::min(high, rows_ - row);
  const int64_t column = task * l.panels_w * nr, columns = std::min(l.panels_w * nr, g.n - column);
  const int64_t panels_w = ceil_div(columns, nr), stride = halves_ * panels_w * nr;
  const float* const x = space_ + block * high * l.cells;
  float* const panels = own + layout_.own_work;
  float* const sums = panels + layout_.own_w;
  const auto decode = gemm_.per_cell == 2 ? kernels_.panel_pairs : kernels_.panel;
  if (l.cells == 0) std::fill(sums, sums + rows * stride, 0.0f);
  for (int half = 0; half < halves_; ++half) ask_scales(half * g.n + column, columns);
  for (int64_t c = 0; c < l.cells; c += l.depth) {
    const int64_t cells = std::min(l.depth, l.cells - c), from = c * gemm_.per_cell;
    const int64_t count = std::min(cells * gemm_.per_cell, g.k - from);
    const int64_t next = from + count, ahead = std::clamp<int64_t>(g.k - next, 0, l.depth * gemm_.per_cell);
    for (int half = 0; half < halves_; ++half) {
      const int64_t row_w = half * g.n + column;
      for (int64_t j = 0; j < columns; j += nr) {
        decode({.w = w_,
                .row = row_w + j,
                .rows = static_cast<int>(std::min(nr, columns - j)),
                .panel = static_cast<int>(nr),
                .from = from,
                .count = count,
                .to = panels + j * cells});
      }
      gemm_.block({.x = x + c * l.panels * l.mr,
                   .panels_x = static_cast<int>(ceil_div(rows, l.mr)),
                   .mr = l.mr,
                   .w = panels,
                   .panel_w = cells * nr * 4,
                   .panels_w = static_cast<int>(panels_w),
                   .cells = cells,
                   .sums = sums + half * panels_w * nr,
                   .stride = stride,
                   .add = c > 0,
                   .ahead = {reinterpret_cast<const char*>(w_.data) + (row_w * g.k + next) / 2, g.k / 2,
                             ahead == 0 ? 0 : columns, ahead / 2},
                   .in_place = false});
    }
  }
  finish(row, rows, column, columns, sums, stride, panels_w * nr);
}

void GemmInt4CpuPlan::run_tiles(int64_t first, int64_t rows, int64_t task, float* own) const {
  const Int4Layout& l = layout_;
  const Int4TileShape& t = l.tiles;
  const int64_t column = task * l.columns, columns = std::min(l.columns, shape_.gemm.n - column);
  const int64_t stride = halves_ * l.columns;
  float* const w = own + l.own_work;
  float* const sums = w + l.own_w;
  if (t.segments == 0) std::fill(sums, sums + rows * stride, 0.0f);
  for (int half = 0; half < halves_; ++half) ask_scales(half * shape_.gemm.n + column, columns);
  for (int64_t from = 0; from < t.segments; from += l.piece) {
    const int64_t segments = std::min(l.piece, t.segments - from);
    for (int half = 0; half < halves_; ++half) {
      for (int64_t j = 0; j < columns; j += 32) {
        kernels_.tiles->panel(w + j / 32 * segments * t.floats_w, t, w_, half * shape_.gemm.n + column + j,
                              static_cast<int>(std::min<int64_t>(32, columns - j)), from, segments);
      }
      kernels_.tiles->block({.shape = t,
                             .x = space_,
                             .tiles_x = ceil_div(rows, 16),
                             .w = w,
                             .panels = static_cast<int>(ceil_div(columns, 32)),
                             .first = from,
                             .segments = segments,
                             .sums = sums + half * l.columns,
                             .stride = stride});
    }
  }
  finish(first, rows, column, columns, sums, stride, l.columns);
}

// The epilogue, a batch at a time.
void GemmInt4CpuPlan::finish(int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums,
                             int64_t stride, int64_t up) const {
  const GemmShape& g = shape_.gemm;
  const bool gated = halves_ == 2;
  for (int64_t done = 0, some; done < rows; done += some) {
    const int64_t batch = (row + done) / g.m, i = (row + done) % g.m;
    some = std::min(rows - done, g.m - i);
    const auto side = [&](const GemmOperand& o, int64_t j) {
      if (!o.data) return GemmFinish::Side{};
      const int64_t at = batch * o.batch + i * o.row + j;
      return GemmFinish::Side{static_cast<char*>(o.data) + at * bits(o.dtype) / 8, o.row, o.dtype};
    };
    gemm_.finish({.sums = sums + done * stride,
                  .stride = stride,
                  .up = gated ? up : 0,
                  .rows = some,
                  .columns = columns,
                  .alpha = 1,
                  .beta = 0,
                  .activation = activation_,
                  .y = side(g.y, column),
                  .c = {},
                  .c_up = {},
                  .residual = side(g.residual, column),
                  .bias = side(g.bias, column),
                  .bias_up = gated ? side(g.bias, g.n + column) : GemmFinish::Side{}});
  }
}

std::string GemmInt4CpuPlan::explain() const {
  const Int4Layout& l = layout_;
  std::ostringstream json;
  const bool blocks = l.way == Way::blocks;
  const char* path = blocks ? "blocks" : l.way == Way::stream_int8 ? "stream_int8" : rows_ == 1 ? "gemv" : "skinny";
  if (l.way == Way::tiles) path = int8_ ? "tiles_int8" : "tiles";
  json << R"({"variant":"gemm_int4_cpu_)" << (blocks ? gemm_.isa : kernels_.isa) << R"(","configuration":")"
       << name_of(l) << R"(","path":")" << path << '"';
  if (blocks) {
    json << R"(,"tile":[)" << l.blocks.mr << ',' << gemm_.nr << ',' << l.blocks.depth * gemm_.per_cell
         << R"(],"block":[)" << l.blocks.panels * l.blocks.mr << ',' << l.columns << ']';
  } else {
    json << R"(,"tile":[)" << l.group << ',' << l.columns << ',' << w_.k << ']';
  }
  json << R"(,"threads":)" << l.threads << R"(,"reason":")" << (many_ ? "configuration asks for it: " : "");
  if (l.way == Way::stream_int8) {
    json << "x is rounded to int8: w is read in place, whole numbers are multiplied";
  } else if (l.way == Way::stream) {
    if (!many_) json << "m is " << rows_ << ", at most " << kernels_.stream_m << ": ";
    json << "w is read once, in place, and decoded in registers";
  } else {
    const int most = l.way == Way::tiles && int8_ ? kernels_.stream_int8_m : kernels_.stream_m;
    if (!many_ && rows_ <= most) json << "batch_invariant: one row goes the way of many, ";
    if (!many_ && rows_ > most) json << "m is " << rows_ << ", above " << most << ": ";
    if (l.way == Way::blocks) json << "w is decoded into panels as it is used";
    if (l.way == Way::tiles && int8_) json << "x and w are multiplied as whole numbers";
    if (l.way == Way::tiles && !int8_)
      json << "x is multiplied as a sum of " << l.tiles.parts << " bf16 and w as whole numbers";
  }
  if (rounded_) json << "; x is rounded to int8 and multiplied in f32, " << (dequant_ ? "mode is dequant" : "w is nf4");
  json << "\"}";
  return json.str();
}

const kw_op& gemm_int4() {
  static constexpr kw_op op = make_op<GemmInt4Args, GemmInt4CpuPlan>("gemm_int4");
  return op;
}

}  // namespace kw::cpu
