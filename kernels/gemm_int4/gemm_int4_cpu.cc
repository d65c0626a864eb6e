// gemm_int4 on the CPU: the plan behind kw_op. Rows of x are taken as one list over all batches, a group of them at a time;
// each group is arranged once by all threads, and then every thread multiplies it with runs of rows of w.
//
//   stream  few rows of x. w is read once, in place: plain, row by row, as inner products along k (gemm_int4_cpu_kernels.h);
//           packed, sixteen rows side by side (gemm_int4_cpu_panels.h).
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
// Packed, where scales too are one stream, medians of calls one after the other, groups of 128 with scales in f32 and of 32 in
// f16: m 1 exact 0.35 and 0.37 ms, int8 0.24 and 0.29; m 16 int8 0.69 on tiles and 1.08 as a stream.
//
// Sources, one object each, compiled as those of gemm_cpu.cc (native/addon.gypi):
//   gemm_int4_cpu.cc, gemm_int4_cpu_layout.cc, gemm_int4_cpu_generic.cc, gemm_int4_cpu_avx2.cc, gemm_int4_cpu_avx512.cc,
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

}  // namespace

std::string GemmInt4CpuPlan::declines(const GemmInt4Args& args, const kw_device_info& device) {
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
  const GemmInt4Shape s = resolve(args);
  const struct {
    const char* name;
    const TensorView& view;
  } packed[] = {{"w", args.w}, {"scales", args.scales}, {"zeros", args.zeros}};
  for (const auto& t : packed) {
    const uint64_t wanted = format(device, t.name, t.view);
    if (t.view.format == 0 || t.view.format == wanted) continue;
    return expected(t.name, "packed in " + describe_format(t.view.format), describe_format(wanted).c_str());
  }
  const auto is_packed = [](const auto& t) { return t.view.format != 0; };
  if (std::any_of(std::begin(packed), std::end(packed), is_packed) && is_gated(args.activation) &&
      s.gemm.n % kInt4Rows != 0) {
    return "gemm_int4: n is " + std::to_string(s.gemm.n) + " with a gated activation, expected a multiple of " +
           std::to_string(kInt4Rows) + " for prepacked operands";
  }
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

uint64_t GemmInt4CpuPlan::format(const kw_device_info&, const char* operand, const TensorView& view) {
  const std::string_view name(operand);
  if (view.rank != 2) return 0;
  if (name == "w" && bits(view.dtype) == 4) return view.dim(-1) % kInt4Unit == 0 ? kInt4Panels.tag() : 0;
  const bool scales = name == "scales" && is_float(view.dtype);
  // Runs of zeros begin on a byte, so that their rows have to be even.
  const bool zeros = name == "zeros" && view.dtype == DType::u4 && view.dim(-1) % 2 == 0;
  const int64_t groups = view.dim(-2);
  return (scales || zeros) && groups > 0 && groups <= kInt4MostPackedGroups ? int4_sides(groups).tag() : 0;
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
      packed_(args.w.format != 0),
      rounded_(int8_ && (dequant_ || normal_float_)),
      tiles_(kernels_.tiles && !rounded_ && !dequant_ && !normal_float_ &&
             (int8_ || (kernels_.tiles->splits && args.x.dtype != DType::bf16))),
      dtype_(rounded_ ? DType::f32 : args.x.dtype),
      gemm_(packing_for_all(gemm_kernels(asked.isa, dtype_))),
      capacity_(capacity(resolve(args))) {}

void GemmInt4CpuPlan::rebind(const GemmInt4Args& args, void* workspace) {
  const GemmInt4Shape shape = resolve(args);
  const Int4Layout layout = this->layout(shape);
  if (layout.floats() > capacity_) {
    throw Error(Code::SHAPE, "gemm_int4: workspace is " + std::to_string(capacity_ * 4) + " bytes, expected " +
                                 std::to_string(layout.floats() * 4) + " for the shape bound now");
  }
  shape_ = shape, layout_ = layout, rows_ = shape.gemm.batch * shape.gemm.m;
  w_ = {.data = static_cast<const uint8_t*>(shape.gemm.w.data),
        .packed = packed_,
        .rows = shape.gemm.rows_w,
        .k = shape.gemm.k,
        .group = std::max<int64_t>(shape.group, 1),
        .scales = shape.scales.data,
        .scale_dtype = shape.scales.dtype,
        .scales_at = shape.scales_at,
        .zeros_at = shape.zeros_at,
        .zeros = static_cast<const uint8_t*>(shape.zeros),
        .normal_float = shape.normal_float,
        .round = dequant_ ? args.x.dtype : DType::f32};
  space_ = static_cast<float*>(workspace);
}

// Asks for the scales and zeros of a task's rows of w: runs of a few lines, one for each group, which no processor foresees. Into
// L2, where more can be under way at a time. Packed ones lie in order.
void GemmInt4CpuPlan::ask_scales(int64_t row, int64_t rows) const {
  constexpr int64_t kLine = 64;
  const int64_t size = bits(w_.scale_dtype) / 8;
  if (w_.scales_at.run != kInt4Rows) return;
  for (int64_t g = 0; g * w_.group < w_.k; ++g) {
    const char* const scales = static_cast<const char*>(w_.scales) + w_.scales_at.at(g, row) * size;
    for (int64_t at = 0; at < rows * size; at += kLine) __builtin_prefetch(scales + at, 0, 2);
    if (!w_.zeros) continue;
    const uint8_t* const zeros = w_.zeros + w_.zeros_at.at(g, row) / 2;
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
    if (!packed_) ask_scales(half * shape_.gemm.n + column, columns);
    const Int4Stream s{.x = space_,
                       .stride_x = l.arranged / l.group,
                       .m = static_cast<int>(rows),
                       .w = w_,
                       .row = half * shape_.gemm.n + column,
                       .rows = columns,
                       .block = shape_.block,
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
    const int64_t side_by_side = packed_ ? kInt4Rows : 1;
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
                   .ahead = {reinterpret_cast<const char*>(w_.data) + (row_w * g.k + next * side_by_side) / 2,
                             g.k / 2 * side_by_side, ahead == 0 ? 0 : ceil_div(columns, side_by_side),
                             ahead / 2 * side_by_side},
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
  for (int half = 0; half < halves_; ++half) {
    ask_scales(half * shape_.gemm.n + column, columns);
    kernels_.tiles->multiply({.shape = t,
                              .x = space_,
                              .rows = rows,
                              .w = w_,
                              .row = half * shape_.gemm.n + column,
                              .rows_w = columns,
                              .piece = l.piece,
                              .work = w,
                              .sums = sums + half * l.columns,
                              .stride = stride});
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
    json << "x is rounded to int8: w is read in place, " << (packed_ ? "in the order it is packed in, " : "")
         << "whole numbers are multiplied";
  } else if (l.way == Way::stream) {
    if (!many_) json << "m is " << rows_ << ", at most " << most_streamed(shape_.block) << ": ";
    json << "w is read once, in place, " << (packed_ ? "in the order it is packed in, " : "")
         << "and decoded in registers";
  } else {
    const int most = most_streamed(shape_.block);
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
