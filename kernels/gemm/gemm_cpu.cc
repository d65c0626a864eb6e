// gemm on the CPU: the plan behind kw_op. How a problem is cut into tasks: gemm_cpu_layout.h.
//
// An element's sum depends on k, the processor's caches and the way taken, never on the number of threads or the size of
// the blocks.
//
// Roofline for K = N = 4096 in f32, two threads of an Intel Xeon server with AVX-512 whose measured ceilings are 425
// GFLOP/s out of registers, 360 for any micro-tile out of L1 (12 x 32, 8 x 48, 14 x 32 and 6 x 64 within 3 % of each other),
// and 31 to 37 GB/s of reads out of memory, hardly more out of its L3 cache. Predicted: m 1 and m 16 one read of w, 67 MB /
// 34 GB/s = 2.0 ms (products of m 16: 1.5 ms, hidden); m 512 17.2 GFLOP / 360 = 48 ms. Reached, median of cold calls:
//   f32   m 1 2.1 ms, prepacked 2.2; m 16 3.5, prepacked 2.8; m 512 56, prepacked 51 (337 GFLOP/s, 79 % of 425)
//   f16   m 1 1.15 ms, prepacked 1.2; m 16 2.5, prepacked 2.1; m 512 57, prepacked 56
//   bf16  with AMX: m 1 1.1 ms, prepacked 1.2; m 16 2.3, prepacked 1.4; m 512 9.3 to 10, prepacked 6.9 to 7.5 (2300 to 2490 GFLOP/s)
// m 1 in turns with reads of other buffers as large by peak (29 to 32 GB/s the median, 34 the best): 30 GB/s of bf16, 32
// of f32. No order of reading gets more than 33 there, cold: 1 to 16 streams of a thread, blocks of 48 KB to 16 MB, asked
// for 0.5 to 8 KB ahead or not at all. A single stream gets 29, 6 rows that follow each other 30, streams 128 KB apart 32.
// Prepacked, m 1 to 4: four panels at a time are 11 % (f32) and 18 % (bf16) faster than one after the other, f16 3 to 4 %
// slower (A B B A, while memory gave 16 GB/s).
// m 16 falls short where memory and products take turns: fewer than 16 requests of a core can be on their way.
// AMX, m 512, one thread: 3250 GFLOP/s out of registers (a product of tiles takes 16 cycles); 3100 with 32 columns of w in L1
// and x from L2; 2100 once sums come from L2 and go back after every 288 of k. Without sums, both operands from L2: 2230, 45
// bytes a cycle. So 65 to 69 % is what any order of the loops reaches within L2: 16 rows by 64 columns, sums added by vector
// instructions or in L1 for several pieces of k, longer pieces and prefetched sums all come to 1850 to 2280. From beyond L2
// (151 ns away) a core gets 18 GB/s, and hardly while it multiplies, since both take the same line buffers. Predicted, with
// blocks of 256 x 704: 8.6 GFLOP / 2100 + 47 MB / 18 GB/s = 4.1 + 2.6 ms, 38 % of the ceiling, as measured.
// The first-level cache explains it: of a product's 16 cycles tile loads take 8 and lines of x from L2 8 more, so that
// sums, at 2 cycles a line, come on top. tileloaddt1 for x leaves 512 of k of w in L1 (97 % of the ceiling without sums,
// 73 % with tileloadd) and reaches 83 % with sums in L2, 82 % as that model has it. But once w alone comes from beyond L2,
// x staying there, at most 64 % is left (57 in another run) however it is asked for (ascending, 2 to 32 pages in turn, every
// second or fourth line, into L1 or L2; non-temporally 36; 256 or 512 rows): the processor's streams, 5 ns a line when
// nothing else runs, give way to tile loads. All of it together, with x packed before: 6.4 ms, 43 %. So 75 % is out of
// reach here.
// Lost: micro-tiles of 14 x 32; rows of x copied by each thread instead of packed once (the copies, from L3, took 13 % of
// the time); asking for a whole panel of x ahead (pushes w out of L1); prepacked bf16 widened into L2 before it is used
// (12 % slower than in the micro-tile, which then reads half the bytes); more cells at a time with AMX (m 512: 192 3 %,
// 384 22 % slower); tileloaddt1 in this kernel (as fast, since memory decides; pieces of 384 and 512 of k: 8 and 18 to 26
// % slower, their blocks being smaller); the next panel asked for in pages that take turns (up to 9 %; every second line
// up to 13 %); 48 x 32 with x loaded twice (68 to 79 % of the ceiling out of L2, loads and products hardly overlap), 16 x
// 64 and 32 x 48 with sums (66 to 77 %); x asked for ahead of being packed into tiles (4 to 10 %); every second line asked
// for (the processor does not bring its neighbour); higher blocks of prepacked w on tiles (512 x 384: 5 to 14 %); the next
// panel into L1 instead of L2, or in shorter pieces of k (m 16: the same).
//
// Sources, one object each, with what they are compiled for (all but the first two on x86-64 only):
//   gemm_cpu.cc, gemm_cpu_generic.cc   -O3
//   gemm_cpu_avx2.cc                   -O3 -mavx2 -mfma -mf16c
//   gemm_cpu_avx512.cc                 -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
//   gemm_cpu_avx512bf16.cc             the same and -mavx512bf16 -mavx512vnni
//   gemm_cpu_amxbf16.cc                that and -mamx-tile -mamx-bf16
#include "gemm_cpu.h"

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/packed.h"
#include "../core/plan.h"
#include "../core/threads.h"
#include "gemm_cpu_layout.h"

namespace kw::cpu {

const GemmKernels& gemm_kernels(Isa isa, DType dtype) {
  const int index = static_cast<int>(dtype);
#if defined(__x86_64__)
  if (isa >= Isa::amx_bf16 && dtype == DType::bf16) return kGemmAmxBf16;
  if (isa >= Isa::avx512_bf16 && dtype == DType::bf16 && dot_bf16_pays()) return kGemmAvx512Bf16;
  if (isa >= Isa::avx512) return kGemmAvx512[index];
  if (isa == Isa::avx2) return kGemmAvx2[index];
#endif
  (void)isa;
  return kGemmGeneric[index];
}

GemmMachine gemm_machine(const kw_device_info& device) {
  const auto bytes = [](uint64_t known, int64_t otherwise) { return known ? static_cast<int64_t>(known) : otherwise; };
  const Features& f = features();
  return {std::max(1, device.sm_count), bytes(f.l1d_bytes, 32 << 10), bytes(f.l2_bytes, 512 << 10)};
}

namespace {

int64_t element_bytes(DType t) { return bits(t) / 8; }

// Micro-kernels that this processor runs and w's format allows: those of gemm_kernels first, then by falling strength.
std::vector<const GemmKernels*> all_kernels(Isa isa, const GemmOperand& w) {
  std::vector<const GemmKernels*> all{&gemm_kernels(isa, w.dtype)};
#if defined(__x86_64__)
  const int index = static_cast<int>(w.dtype);
  const auto add = [&](Isa least, const GemmKernels& kernels) {
    const bool reads_w = w.format == 0 || panel_format(w.format).rows == kernels.nr;
    if (isa >= least && reads_w && &kernels != all[0]) all.push_back(&kernels);
  };
  if (w.dtype == DType::bf16) {
    add(Isa::amx_bf16, kGemmAmxBf16);
    add(Isa::avx512_bf16, kGemmAvx512Bf16);
  }
  add(Isa::avx512, kGemmAvx512[index]);
  add(Isa::avx2, kGemmAvx2[index]);
#endif
  return all;
}

constexpr std::string_view kStream = "/stream", kBlocks = "/blocks";

const void* at(const GemmOperand& o, int64_t b, int64_t i, int64_t j) {
  return static_cast<const char*>(o.data) + (b * o.batch + i * o.row + j * o.column) * element_bytes(o.dtype);
}

class GemmCpuPlan {
 public:
  static std::string declines(const GemmArgs& args, const kw_device_info&);
  static uint64_t format(const kw_device_info&, const char* operand, const TensorView&);
  static std::vector<std::string> configurations(const GemmArgs& args, const kw_device_info& device);
  GemmCpuPlan(const GemmArgs& args, const kw_device_info& device, const std::string& configuration = "");
  uint64_t workspace() const { return static_cast<uint64_t>(capacity_) * sizeof(float); }
  void rebind(const GemmArgs& args, void* workspace);
  void enqueue(void* stream) const;
  std::string explain() const;

 private:
  template <class Fn>
  void each(ThreadPool& pool, int64_t n, int64_t grain, Fn&& fn) const;
  void run_stream(ThreadPool&) const;
  void stream_columns(int64_t task, float* sums) const;
  void run_blocks(ThreadPool&) const;
  void pack_x(int64_t unit, int64_t panel, float* to) const;
  GemmPiece piece_of_x(int64_t unit, int64_t panel, int64_t cell, float* to) const;
  void run_block(int64_t unit, int64_t task, const float* x, float* own) const;
  void bring_w(GemmBlock&, float* own_w, int64_t batch, int64_t first, int64_t columns, int64_t cell) const;
  const char* stored_w(int64_t batch, int64_t row, int64_t k) const;
  void finish(int64_t batch, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums,
              int64_t stride, int64_t up) const;

  GemmMachine machine_;
  const GemmKernels& kernels_;
  float alpha_ = 1, beta_ = 0;
  Activation activation_;
  int halves_;      // 2 with a gated activation: the gate's rows of w and the up rows
  bool invariant_;  // to m: always in blocks, where an element's sum depends on k alone
  bool asked_;      // for a configuration
  bool blocks_;     // never stream
  bool widened_;    // bf16 as f32, although there is an instruction for it
  int64_t capacity_;
  GemmShape shape_;
  GemmLayout layout_;
  float* space_ = nullptr;
};

std::string GemmCpuPlan::declines(const GemmArgs& args, const kw_device_info&) {
  const GemmShape s = resolve(args);
  const struct {
    const char* name;
    bool present;
    DType dtype;
    int64_t last;  // stride of the dimension stored last
  } tensors[] = {{"x", true, args.x.dtype, args.trans_x ? s.x.row : s.x.column},
                 {"w", true, args.w.dtype, args.trans_w ? s.w.row : s.w.column},
                 {"c", args.c.present(), args.c.dtype, s.c.column},
                 {"bias", args.bias.present(), args.bias.dtype, s.bias.column},
                 {"residual", args.residual.present(), args.residual.dtype, s.residual.column},
                 {"y", true, args.y.dtype, s.y.column}};
  for (const auto& t : tensors) {
    if (!t.present) continue;
    if (!is_float(t.dtype))
      return std::string("gemm: ") + t.name + " is " + name(t.dtype) + ", expected f32, f16 or bf16";
    if (t.last != 1) {
      return std::string("gemm: last dimension of ") + t.name + " has stride " + std::to_string(t.last) +
             ", expected 1";
    }
  }
  if (args.w.format != 0 && args.trans_w) return "gemm: w is prepacked, expected without trans_w";
  if (args.w.format != 0 && is_gated(args.activation) && s.n % panel_format(args.w.format).rows != 0) {
    return "gemm: n is " + std::to_string(s.n) + " with a gated activation, expected a multiple of " +
           std::to_string(panel_format(args.w.format).rows) + " for a prepacked w";
  }
  if (args.x.dtype == args.w.dtype) return "";
  return std::string("gemm: w is ") + name(args.w.dtype) + ", expected " + name(args.x.dtype) + " as x";
}

// Panels as wide as a micro-tile; bf16 in pairs, which are the cells of the instructions for bf16 and two shifts away from
// f32. k padded as the micro-tiles take it.
uint64_t GemmCpuPlan::format(const kw_device_info& device, const char* operand, const TensorView& view) {
  if (std::string_view(operand) != "w" || !is_float(view.dtype)) return 0;
  const int nr = gemm_kernels(static_cast<Isa>(device.isa), view.dtype).nr;
  return view.dtype == DType::bf16 ? PanelFormat{nr, 2, 32}.tag() : PanelFormat{nr, 1, 2}.tag();
}

// Micro-kernels and the way they are fed, "avx512/stream": of each that streams this problem, blocks as well. batch_invariant
// has one: the others may round otherwise.
std::vector<std::string> GemmCpuPlan::configurations(const GemmArgs& args, const kw_device_info& device) {
  const GemmShape shape = fold_batch(resolve(args));
  std::vector<std::string> names;
  for (const GemmKernels* kernels : all_kernels(static_cast<Isa>(device.isa), shape.w)) {
    const bool streams = gemm_layout(shape, *kernels, gemm_machine(device), args.batch_invariant).stream;
    for (const std::string_view way : {kStream, kBlocks})
      if (streams || way == kBlocks) names.push_back(kernels->isa + std::string(way));
  }
  if (args.batch_invariant || shape.batch * shape.m * shape.n == 0) names.resize(1);
  return names;
}

const GemmKernels& kernels_of(const GemmArgs& args, const kw_device_info& device, const std::string& configuration) {
  const Isa isa = static_cast<Isa>(device.isa);
  if (configuration.empty()) return gemm_kernels(isa, args.x.dtype);
  const auto all = all_kernels(isa, resolve(args).w);
  std::string expected;
  for (const std::string& name : GemmCpuPlan::configurations(args, device)) {
    if (name == configuration)
      for (const GemmKernels* kernels : all)
        if (name.compare(0, name.find('/'), kernels->isa) == 0) return *kernels;
    expected += (expected.empty() ? "" : ", ") + name;
  }
  throw Error(Code::UNSUPPORTED, "gemm: configuration is " + configuration + ", expected one of " + expected);
}

GemmCpuPlan::GemmCpuPlan(const GemmArgs& args, const kw_device_info& device, const std::string& configuration)
    : machine_(gemm_machine(device)),
      kernels_(kernels_of(args, device, configuration)),
      activation_(args.activation),
      halves_(is_gated(args.activation) ? 2 : 1),
      invariant_(args.batch_invariant),
      asked_(!configuration.empty()),
      blocks_(invariant_ || configuration.ends_with(kBlocks)),
      widened_(!asked_ && args.x.dtype == DType::bf16 && static_cast<Isa>(device.isa) == Isa::avx512_bf16 &&
               kernels_.per_cell == 1),
      capacity_(gemm_capacity(resolve(args), kernels_, machine_)) {}

void GemmCpuPlan::rebind(const GemmArgs& args, void* workspace) {
  const GemmShape shape = fold_batch(resolve(args));
  const GemmLayout layout = gemm_layout(shape, kernels_, machine_, blocks_);
  if (layout.floats() > capacity_) {
    throw Error(Code::SHAPE, "gemm: workspace is " + std::to_string(capacity_ * 4) + " bytes, expected " +
                                 std::to_string(layout.floats() * 4) + " for the shape bound now");
  }
  shape_ = shape, layout_ = layout;
  alpha_ = args.alpha, beta_ = args.beta;
  space_ = static_cast<float*>(workspace);
}

// fn(begin, end, thread) over n items, on the calling thread alone when the whole problem is small.
template <class Fn>
void GemmCpuPlan::each(ThreadPool& pool, int64_t n, int64_t grain, Fn&& fn) const {
  if (layout_.threads > 1) {
    pool.parallel_for(n, fn, grain);
  } else if (n > 0) {
    fn(int64_t{0}, n, 0);
  }
}

void GemmCpuPlan::enqueue(void* stream) const {
  auto& pool = *static_cast<ThreadPool*>(stream);
  if (pool.threads() > machine_.threads) {
    throw Error(Code::INTERNAL, "gemm: the pool has " + std::to_string(pool.threads()) + " threads, expected at most " +
                                    std::to_string(machine_.threads) + " as the plan");
  }
  if (shape_.batch == 0 || shape_.m == 0 || shape_.n == 0) return;
  layout_.stream ? run_stream(pool) : run_blocks(pool);
}

void GemmCpuPlan::run_stream(ThreadPool& pool) const {
  const GemmLayout& l = layout_;
  const int64_t cells_x = round_up(l.cells, 16), rows = shape_.batch * shape_.m;
  const auto flatten = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.flatten(space_ + i * cells_x, at(shape_.x, i / shape_.m, i % shape_.m, 0), shape_.x.column, shape_.k);
    }
  };
  rows* cells_x < 32 << 10 ? flatten(0, rows, 0) : each(pool, rows, 4, flatten);
  each(pool, shape_.batch * l.tasks_n, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t task = begin; task < end; ++task) stream_columns(task, space_ + l.packed_x + thread * l.own());
  });
}

void GemmCpuPlan::stream_columns(int64_t task, float* sums) const {
  const GemmLayout& l = layout_;
  const int64_t batch = task / l.tasks_n, column = task % l.tasks_n * l.chunk;
  const int64_t columns = std::min(l.chunk, shape_.n - column), cells_x = round_up(l.cells, 16);
  const int64_t stride = halves_ * l.chunk;
  const bool stored = shape_.w.format != 0;
  for (int half = 0; half < halves_; ++half) {
    const int64_t first = half * shape_.n + column;
    const GemmStream g{.x = space_ + batch * shape_.m * cells_x,
                       .cells_x = cells_x,
                       .m = static_cast<int>(shape_.m),
                       .w = stored ? stored_w(batch, first, 0) : at(shape_.w, batch, first, 0),
                       .stride_w = shape_.w.row,
                       .panel_w = stored ? stored_w(batch, kernels_.nr, 0) - stored_w(batch, 0, 0) : 0,
                       .rows = columns,
                       .k = shape_.k,
                       .sums = sums + half * l.chunk,
                       .stride = stride,
                       .l1_bytes = machine_.l1_bytes};
    stored ? kernels_.stream_stored(g) : kernels_.stream(g);
  }
  finish(batch, 0, shape_.m, column, columns, sums, stride, l.chunk);
}

void GemmCpuPlan::run_blocks(ThreadPool& pool) const {
  const GemmLayout& l = layout_;
  const int64_t unit_x = l.panels * l.mr * l.cells;
  for (int64_t first = 0; first < l.units; first += l.group) {
    const int64_t units = std::min(l.group, l.units - first);
    const int64_t panels = l.cells == 0 || l.own_x > 0 ? 0 : units * l.panels;
    each(pool, panels, std::max<int64_t>(1, panels / (8 * l.threads)), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) pack_x(first + i / l.panels, i % l.panels, space_ + i / l.panels * unit_x);
    });
    each(pool, units * l.tasks_n, l.grain, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) {  // the units that share a piece of w follow each other
        run_block(first + i % units, i / units, space_ + i % units * unit_x, space_ + l.packed_x + thread * l.own());
      }
    });
  }
}

// One panel of a unit, for every piece of k: `to` is [pieces][panels][cells of the piece][mr].
void GemmCpuPlan::pack_x(int64_t unit, int64_t panel, float* to) const {
  const GemmLayout& l = layout_;
  const int64_t blocks = ceil_div(ceil_div(shape_.m, l.mr), l.panels), batch = unit / blocks;
  const int64_t row = (unit % blocks * l.panels + panel) * l.mr;
  if (row >= shape_.m) return;  // the last block of a batch may have fewer panels
  const int rows = static_cast<int>(std::min<int64_t>(l.mr, shape_.m - row));
  for (int64_t c = 0; c < l.cells; c += l.depth) {
    const int64_t depth = std::min(l.depth, l.cells - c), k = c * kernels_.per_cell;
    kernels_.pack_x(to + (c * l.panels + panel * depth) * l.mr, at(shape_.x, batch, row, k), shape_.x.row,
                    shape_.x.column, rows, std::min(depth * kernels_.per_cell, shape_.k - k), depth, l.mr);
  }
}

// Rows of a unit from a panel on and elements from a cell of k on, as many as a piece has.
GemmPiece GemmCpuPlan::piece_of_x(int64_t unit, int64_t panel, int64_t cell, float* to) const {
  const GemmLayout& l = layout_;
  const int64_t blocks = ceil_div(ceil_div(shape_.m, l.mr), l.panels), first = unit % blocks * l.panels;
  const int64_t row = (first + panel) * l.mr, end = std::min((first + l.panels) * l.mr, shape_.m);
  const int64_t rows = std::min(l.part * l.mr, end - row), k = cell * kernels_.per_cell;
  return {.to = to,
          .from = at(shape_.x, unit / blocks, row, k),
          .row_stride = shape_.x.row,
          .k_stride = shape_.x.column,
          .rows = rows,
          .k = shape_.k - k,
          .cells = std::min(l.depth, l.cells - cell),
          .panels = static_cast<int>(ceil_div(rows, l.mr)),
          .mr = l.mr};
}

// Element k of the panel that begins with a row, of a prepacked w.
const char* GemmCpuPlan::stored_w(int64_t batch, int64_t row, int64_t k) const {
  const GemmOperand& w = shape_.w;
  const int64_t panel = round_up(w.row, panel_format(w.format).step) * kernels_.nr;
  const int64_t offset = batch * w.batch + row / kernels_.nr * panel + k * kernels_.nr;
  return static_cast<const char*>(w.data) + offset * element_bytes(w.dtype);
}

// Panels of rows [first, first + columns) of w for the cells of a block, and where the next piece of them lies.
void GemmCpuPlan::bring_w(GemmBlock& block, float* own_w, int64_t batch, int64_t first, int64_t columns,
                          int64_t cell) const {
  const GemmLayout& l = layout_;
  const GemmOperand& w = shape_.w;
  const int64_t nr = kernels_.nr, bytes = element_bytes(w.dtype), per = kernels_.per_cell, k = cell * per;
  const int64_t elements = std::min(block.cells * per, shape_.k - k), next = k + elements;
  const int64_t ahead = std::clamp<int64_t>(shape_.k - next, 0, l.depth * per);
  block.w = own_w, block.panel_w = block.cells * nr * 4;
  if (w.format == 0 && kernels_.pack_piece) {
    const auto* rows = static_cast<const char*>(at(w, batch, first, k));
    block.plain = {.to = own_w,
                   .from = rows,
                   .row_stride = w.row,
                   .k_stride = w.column,
                   .rows = columns,
                   .k = shape_.k - k,
                   .cells = block.cells,
                   .panels = block.panels_w,
                   .mr = static_cast<int>(nr)};
    const int64_t count = std::min(columns, nr);
    const auto* start = static_cast<const char*>(at(w, batch, first, next));
    if (w.column == 1) block.ahead = {start, w.row * bytes, ahead == 0 ? 0 : count, ahead * bytes};
    if (w.column != 1) block.ahead = {start, w.column * bytes, ahead, count * bytes};
    return;
  }
  if (w.format == 0) {
    for (int64_t from = 0; from < columns; from += nr) {
      kernels_.pack(own_w + from * block.cells, at(w, batch, first + from, k), w.row, w.column,
                    static_cast<int>(std::min(nr, columns - from)), elements, block.cells, static_cast<int>(nr));
    }
    const auto* start = static_cast<const char*>(at(w, batch, first, next));
    if (w.column == 1) block.ahead = {start, w.row * bytes, ahead == 0 ? 0 : columns, ahead * bytes};
    if (w.column != 1) block.ahead = {start, w.column * bytes, ahead, columns * bytes};
    return;
  }
  block.w = stored_w(batch, first, k), block.panel_w = stored_w(batch, first + nr, k) - stored_w(batch, first, k);
  // Of one panel at a time the next lies behind this one; of several it is the next task's.
  const char* then = ahead > 0 ? stored_w(batch, first, next) : columns > nr ? nullptr : stored_w(batch, first + nr, 0);
  const int64_t row = block.cells * 4;
  block.in_place = true;
  block.ahead = {then, kFetched, block.cells * nr * per * bytes / row, row};
}

void GemmCpuPlan::run_block(int64_t unit, int64_t task, const float* x, float* own) const {
  const GemmLayout& l = layout_;
  const int64_t nr = kernels_.nr, blocks = ceil_div(ceil_div(shape_.m, l.mr), l.panels), batch = unit / blocks;
  const int64_t row = unit % blocks * l.panels * l.mr, rows = std::min(l.panels * l.mr, shape_.m - row);
  const int64_t column = task * l.panels_w * nr, columns = std::min(l.panels_w * nr, shape_.n - column);
  const int64_t panels_w = ceil_div(columns, nr), stride = halves_ * panels_w * nr + l.pad;
  const int64_t panels = ceil_div(rows, l.mr), part = l.own_x > 0 ? l.part : panels;
  float *piece = own + l.own_w, *other = piece + l.own_x;
  float* const sums = other + l.own_x;
  if (l.cells == 0) std::fill(sums, sums + rows * stride, 0.0f);
  if (l.cells > 0 && l.own_x > 0) kernels_.pack_piece(piece_of_x(unit, 0, 0, piece));
  for (int64_t c = 0; c < l.cells; c += l.depth) {
    GemmBlock all[2];
    for (int half = 0; half < halves_; ++half) {
      all[half] = {.x = x + c * l.panels * l.mr,
                   .panels_x = static_cast<int>(panels),
                   .mr = l.mr,
                   .w = nullptr,
                   .panel_w = 0,
                   .panels_w = static_cast<int>(panels_w),
                   .cells = std::min(l.depth, l.cells - c),
                   .sums = sums + half * panels_w * nr,
                   .stride = stride,
                   .add = c > 0,
                   .ahead = {},
                   .in_place = false,
                   .next = {}};
      bring_w(all[half], own + half * panels_w * nr * l.depth, batch, half * shape_.n + column, columns, c);
    }
    for (int64_t i = 0; i < panels; i += part) {
      for (int half = 0; half < halves_; ++half) {
        GemmBlock block = all[half];
        if (l.own_x > 0) {
          const bool last = i + part >= panels;
          block.x = piece, block.panels_x = static_cast<int>(std::min(part, panels - i));
          block.sums += i * l.mr * stride;
          if (half == 0 && !last) block.next = piece_of_x(unit, i + part, c, other);
          if (half == 0 && last && c + l.depth < l.cells) block.next = piece_of_x(unit, 0, c + l.depth, other);
          if (i > 0 && !block.in_place) block.ahead = {}, block.plain = {};
        }
        shape_.w.format ? kernels_.block_stored(block) : kernels_.block(block);
      }
      std::swap(piece, other);
    }
  }
  finish(batch, row, rows, column, columns, sums, stride, panels_w * nr);
}

void GemmCpuPlan::finish(int64_t batch, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums,
                         int64_t stride, int64_t up) const {
  const auto side = [&](const GemmOperand& o, int64_t j) {
    if (!o.data) return GemmFinish::Side{};
    return GemmFinish::Side{const_cast<void*>(at(o, batch, row, j)), o.row, o.dtype};
  };
  const bool gated = halves_ == 2;
  kernels_.finish({.sums = sums,
                   .stride = stride,
                   .up = gated ? up : 0,
                   .rows = rows,
                   .columns = columns,
                   .alpha = alpha_,
                   .beta = beta_,
                   .activation = activation_,
                   .y = side(shape_.y, column),
                   .c = side(shape_.c, column),
                   .c_up = gated ? side(shape_.c, shape_.n + column) : GemmFinish::Side{},
                   .residual = side(shape_.residual, column),
                   .bias = side(shape_.bias, column),
                   .bias_up = gated ? side(shape_.bias, shape_.n + column) : GemmFinish::Side{}});
}

std::string GemmCpuPlan::explain() const {
  const GemmLayout& l = layout_;
  std::ostringstream json;
  const char* path = !l.stream ? shape_.w.format ? "panels" : "blocks" : shape_.m == 1 ? "gemv" : "skinny";
  json << R"({"variant":"gemm_cpu_)" << kernels_.isa << R"(","configuration":")" << kernels_.isa
       << (l.stream ? kStream : kBlocks) << R"(","path":")" << path << '"';
  if (l.stream) {
    json << R"(,"tile":[)" << shape_.m << ',' << l.chunk << ',' << shape_.k << ']';
  } else {
    json << R"(,"tile":[)" << l.mr << ',' << kernels_.nr << ',' << l.depth * kernels_.per_cell << R"(],"block":[)"
         << l.panels * l.mr << ',' << l.panels_w * kernels_.nr << ']';
  }
  json << R"(,"threads":)" << l.threads << R"(,"reason":")";
  if (l.stream) {
    json << "m is " << shape_.m << ", at most " << (shape_.w.format ? kernels_.stored_m : kernels_.stream_m)
         << ": w is read once, in place";
  } else if (shape_.k == 0) {
    json << "no product to compute: the epilogue alone";
  } else if (shape_.w.format != 0) {
    json << "w is prepacked: its panels are read in place";
  } else if (shape_.w.column != 1) {
    json << "w is stored [k, rows_w]: packed as it is used";
  } else if (shape_.m <= kernels_.stream_m) {
    json << (invariant_ ? "batch_invariant: one row goes the way of many, " : "") << "w is packed as it is used";
  } else {
    json << "m is " << shape_.m << ", above " << kernels_.stream_m << ": w is packed as it is used";
  }
  if (widened_) json << "; bf16 is widened to f32, which is faster here than vdpbf16ps";
  if (asked_) json << "; configuration asks for it";
  json << "\"}";
  return json.str();
}

}  // namespace

const kw_op& gemm() {
  static constexpr kw_op op = make_op<GemmArgs, GemmCpuPlan>("gemm");
  return op;
}

}  // namespace kw::cpu
