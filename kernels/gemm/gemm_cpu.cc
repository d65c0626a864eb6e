// gemm on the CPU: which way a problem takes, how it is cut into tasks, and the plan behind kw_op.
//
// stream: few rows of x, w stored [rows_w, k]. Memory-bound: every row of w is read once, straight from where it
//         lies, and multiplied with all rows of x. A task is a run of w's rows.
// blocks: everything else. x is packed once by all threads; a task is a block of y, for which one thread packs its
//         rows of w, 256 cells of k at a time, into its own cache, multiplies, and runs the epilogue on the finished
//         sums. While a block is multiplied, the next piece of w is prefetched.
// An element's sum depends on k and on the way taken alone, never on the number of threads or the size of the blocks.
//
// Roofline for K = N = 4096 in f32, one thread of an Intel Xeon server with AVX-512 whose measured ceilings
// (operator peak) are 225 GFLOP/s and 16 GB/s of reads. Predicted: m 1 is one read of w, 67 MB / 16 GB/s = 4.2 ms; m
// 16 the same as long as the products (0.54 GFLOP) hide behind it; m 512 is 17.2 GFLOP / 225 = 76 ms, and 4 % for
// packing. Reached, in thread time on a machine that was busy with other work: 4.3 ms; 7.2 ms, memory and products
// overlapping little; 106 ms, 72 % of the ceiling, the micro-tile alone doing 85 % from L1. bf16 there: 2.6, 5.5 and
// 118 ms; by vdpbf16ps 170 ms for m 512 (cpu::dot_bf16_pays). Lost: blocks of 256 rows of w (10 % slower than 128),
// prefetching w every 16 or 64 cells of a tile rather than once (no gain).
//
// Sources, one object each, with what they are compiled for (all but the first two on x86-64 only):
//   gemm_cpu.cc, gemm_cpu_generic.cc   -O3
//   gemm_cpu_avx2.cc                   -O3 -mavx2 -mfma -mf16c
//   gemm_cpu_avx512.cc                 -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
//   gemm_cpu_avx512bf16.cc             the same and -mavx512bf16
#include "gemm_cpu.h"

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>

#include "../core/cpu/features.h"
#include "../core/numeric.h"
#include "../core/plan.h"
#include "../core/threads.h"
#include "gemm.h"
#include "gemm_shape.h"

namespace kw::cpu {
namespace {

constexpr int64_t kCells = 256;              // of k in a block: the longest chain of f32 additions
constexpr int64_t kPackedX = 8 << 20;        // cells of x packed at a time, 32 MB
constexpr int64_t kLeastPanels = 4;          // of x in a block, where there are as many
constexpr int64_t kColumns = 128;            // rows of w in a block, at most
constexpr int64_t kStreamBytes = 512 << 10;  // of w in a task of stream, about
constexpr int64_t kStreamColumns = 480;      // at most
constexpr double kSerialWork = 200e3;        // FLOPs below which waking a thread costs more than it brings

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
int64_t element_bytes(DType t) { return bits(t) / 8; }

const GemmKernels& kernels_for(Isa isa, DType dtype) {
  const int index = static_cast<int>(dtype);
#if defined(__x86_64__)
  if (isa == Isa::avx512_bf16 && dtype == DType::bf16 && dot_bf16_pays()) return kGemmAvx512Bf16;
  if (isa >= Isa::avx512) return kGemmAvx512[index];
  if (isa == Isa::avx2) return kGemmAvx2[index];
#endif
  (void)isa;
  return kGemmGeneric[index];
}

const void* at(const GemmOperand& o, int64_t b, int64_t i, int64_t j) {
  return static_cast<const char*>(o.data) + (b * o.batch + i * o.row + j * o.column) * element_bytes(o.dtype);
}

// How a shape is computed: extents, and regions of the workspace in floats.
struct Layout {
  bool stream = false;
  int threads = 1;
  int64_t cells = 0;    // of the whole of k
  int64_t tasks_n = 1;  // runs of columns of y
  // blocks
  int mr = 1;
  int64_t panels = 1;    // of mr rows in a block
  int64_t units = 1;     // blocks of rows, over all batches
  int64_t group = 1;     // of those, packed at a time
  int64_t panels_w = 1;  // of nr columns of y in a block
  // stream
  int64_t chunk = 1;  // columns of y in a task

  int64_t packed_x = 0, packed_w = 0, sums = 0;  // the last two for each thread
  int64_t floats() const { return packed_x + threads * (packed_w + sums); }
};

class GemmCpuPlan {
 public:
  static std::string declines(const GemmArgs& args, const kw_device_info&);
  GemmCpuPlan(const GemmArgs& args, const kw_device_info& device);
  uint64_t workspace() const { return static_cast<uint64_t>(capacity_) * sizeof(float); }
  void rebind(const GemmArgs& args, void* workspace);
  void enqueue(void* stream) const;
  std::string explain() const;

 private:
  int64_t capacity(const GemmShape&) const;
  Layout lay_out(const GemmShape&) const;
  void lay_out_blocks(const GemmShape&, Layout&) const;

  template <class Fn>
  void each(ThreadPool& pool, int64_t n, int64_t grain, Fn&& fn) const;
  void run_stream(ThreadPool&) const;
  void stream_columns(int64_t task, float* sums) const;
  void run_blocks(ThreadPool&) const;
  void pack_x(int64_t unit, int64_t panel, float* to) const;
  void run_block(int64_t unit, int64_t task, const float* x, float* packed_w, float* sums) const;
  void finish(int64_t batch, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums,
              int64_t stride, int64_t up) const;

  int threads_;
  int64_t l1_bytes_;
  int64_t budget_;  // floats of packed w and sums that a thread may keep in its L2 cache
  const GemmKernels& kernels_;
  float alpha_ = 1, beta_ = 0;
  Activation activation_;
  int halves_;      // 2 with a gated activation: the gate's rows of w and the up rows
  bool invariant_;  // to m: always in blocks, where an element's sum depends on k alone
  bool widened_;    // bf16 as f32, although there is an instruction for it
  int64_t capacity_;
  GemmShape shape_;
  Layout layout_;
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
  if (args.x.dtype == args.w.dtype) return "";
  return std::string("gemm: w is ") + name(args.w.dtype) + ", expected " + name(args.x.dtype) + " as x";
}

GemmCpuPlan::GemmCpuPlan(const GemmArgs& args, const kw_device_info& device)
    : threads_(std::max(1, device.sm_count)),
      l1_bytes_(features().l1d_bytes == 0 ? 32 << 10 : static_cast<int64_t>(features().l1d_bytes)),
      budget_(std::clamp<int64_t>(static_cast<int64_t>(features().l2_bytes / 2 / sizeof(float)), 48 << 10, 512 << 10)),
      kernels_(kernels_for(static_cast<Isa>(device.isa), args.x.dtype)),
      activation_(args.activation),
      halves_(is_gated(args.activation) ? 2 : 1),
      invariant_(args.batch_invariant),
      widened_(args.x.dtype == DType::bf16 && static_cast<Isa>(device.isa) == Isa::avx512_bf16 &&
               kernels_.per_cell == 1),
      capacity_(capacity(resolve(args))) {}

// Enough for this shape and for every one with smaller extents.
int64_t GemmCpuPlan::capacity(const GemmShape& s) const {
  const int64_t cells = ceil_div(s.k, kernels_.per_cell), total = s.batch * s.m;
  const int64_t rows = (s.m + s.m / kernels_.mr + 1) * 5 / 4;  // with what even panels and blocks may add
  const int64_t rows_x = std::max(s.batch * rows, (total + total / kernels_.mr + 1) * 5 / 4);
  const int64_t blocks_x = std::min(std::max(kPackedX, kLeastPanels * kernels_.mr * cells), rows_x * cells);
  const int64_t stream_rows = s.batch * std::min<int64_t>(s.m, kernels_.stream_m);
  const int64_t stream_x = stream_rows * round_up(cells, 16);
  const int64_t columns =
      std::min(halves_ * round_up(s.n, kernels_.nr), std::max<int64_t>(kColumns, halves_ * kernels_.nr));
  const int64_t blocks = std::min(budget_, columns * (std::min(cells, kCells) + rows_x));
  const int64_t stream =
      std::min<int64_t>(total, kernels_.stream_m) * halves_ * std::min(kStreamColumns, round_up(s.n, 48));
  return std::max(blocks_x, stream_x) + threads_ * std::max(blocks, stream);
}

Layout GemmCpuPlan::lay_out(const GemmShape& s) const {
  Layout l;
  if (s.batch == 0 || s.m == 0 || s.n == 0) return l;
  l.cells = ceil_div(s.k, kernels_.per_cell);
  const double work = static_cast<double>(s.batch * s.m * s.rows_w) * static_cast<double>(2 * s.k + 20);
  l.threads = work < kSerialWork ? 1 : threads_;
  l.stream = s.k > 0 && s.m <= kernels_.stream_m && s.w.column == 1 && !invariant_;
  if (!l.stream) {
    lay_out_blocks(s, l);
    return l;
  }
  const int64_t row_bytes = s.k * element_bytes(s.w.dtype) * halves_;
  const int64_t even = ceil_div(s.n, 4 * l.threads);  // at least four tasks a thread
  l.chunk = std::min({round_up(std::min(even, kStreamBytes / row_bytes + 1), 48), kStreamColumns, round_up(s.n, 48)});
  l.tasks_n = ceil_div(s.n, l.chunk);
  l.packed_x = s.batch * s.m * round_up(l.cells, 16);
  l.sums = s.m * halves_ * l.chunk;
  return l;
}

// Picks the block that lets the slowest thread finish first, among those whose packed w and sums fit its cache. The
// time of a block is about (rows + 24) (columns + 8): packing an element of w costs as much as multiplying it with 24
// rows.
void GemmCpuPlan::lay_out_blocks(const GemmShape& s, Layout& l) const {
  const int64_t nr = kernels_.nr, depth = std::min(l.cells, kCells);
  const int64_t all = ceil_div(s.m, kernels_.mr), all_w = ceil_div(s.n, nr);  // panels of x in a batch, of w
  const int64_t least = std::min(all, kLeastPanels);
  l.mr = static_cast<int>(ceil_div(s.m, all));
  double best = 0;
  for (int64_t w = 1; w <= std::clamp(kColumns / (halves_ * nr), int64_t{1}, all_w); ++w) {
    const int64_t columns = halves_ * w * nr;
    const int64_t in_cache = (budget_ - columns * depth) / (columns * l.mr);
    if (in_cache < least && best != 0) break;
    const int64_t packed = l.cells == 0 ? all : kPackedX / (l.mr * l.cells);
    const int64_t most = std::clamp(std::min(in_cache, packed), least, all);
    const int64_t fewest = ceil_div(all, most), parts_end = std::max(fewest, std::min(all / least, fewest + 16));
    for (int64_t parts = fewest; parts <= parts_end; ++parts) {
      const int64_t panels = ceil_div(all, parts), units = s.batch * ceil_div(all, panels);
      const int64_t rounds = ceil_div(units * ceil_div(all_w, w), l.threads);
      const double cost = static_cast<double>(rounds * (panels * l.mr + 24) * (columns + 8));
      if (best != 0 && cost >= best) continue;
      best = cost;
      l.panels = panels, l.units = units, l.panels_w = w;
    }
  }
  const int64_t rows = l.panels * l.mr, columns = halves_ * l.panels_w * nr;
  l.tasks_n = ceil_div(s.n, l.panels_w * nr);
  l.group = std::clamp<int64_t>(kPackedX / std::max<int64_t>(1, rows * l.cells), 1, l.units);
  l.packed_x = l.group * rows * l.cells;
  l.packed_w = columns * depth;
  l.sums = rows * columns;
}

void GemmCpuPlan::rebind(const GemmArgs& args, void* workspace) {
  const GemmShape shape = fold_batch(resolve(args));
  const Layout layout = lay_out(shape);
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
  if (pool.threads() > threads_) {
    throw Error(Code::INTERNAL, "gemm: the pool has " + std::to_string(pool.threads()) + " threads, expected at most " +
                                    std::to_string(threads_) + " as the plan");
  }
  if (shape_.batch == 0 || shape_.m == 0 || shape_.n == 0) return;
  layout_.stream ? run_stream(pool) : run_blocks(pool);
}

void GemmCpuPlan::run_stream(ThreadPool& pool) const {
  const Layout& l = layout_;
  const int64_t cells_x = round_up(l.cells, 16), rows = shape_.batch * shape_.m;
  const auto flatten = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.flatten(space_ + i * cells_x, at(shape_.x, i / shape_.m, i % shape_.m, 0), shape_.x.column, shape_.k);
    }
  };
  rows* cells_x < 32 << 10 ? flatten(0, rows, 0) : each(pool, rows, 4, flatten);
  each(pool, shape_.batch * l.tasks_n, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t task = begin; task < end; ++task) stream_columns(task, space_ + l.packed_x + thread * l.sums);
  });
}

void GemmCpuPlan::stream_columns(int64_t task, float* sums) const {
  const Layout& l = layout_;
  const int64_t batch = task / l.tasks_n, column = task % l.tasks_n * l.chunk;
  const int64_t columns = std::min(l.chunk, shape_.n - column), cells_x = round_up(l.cells, 16);
  const int64_t stride = halves_ * l.chunk;
  for (int half = 0; half < halves_; ++half) {
    kernels_.stream({.x = space_ + batch * shape_.m * cells_x,
                     .cells_x = cells_x,
                     .m = static_cast<int>(shape_.m),
                     .w = at(shape_.w, batch, half * shape_.n + column, 0),
                     .stride_w = shape_.w.row,
                     .rows = columns,
                     .k = shape_.k,
                     .sums = sums + half * l.chunk,
                     .stride = stride,
                     .l1_bytes = l1_bytes_});
  }
  finish(batch, 0, shape_.m, column, columns, sums, stride, l.chunk);
}

void GemmCpuPlan::run_blocks(ThreadPool& pool) const {
  const Layout& l = layout_;
  const int64_t unit_x = l.panels * l.mr * l.cells;
  for (int64_t first = 0; first < l.units; first += l.group) {
    const int64_t units = std::min(l.group, l.units - first), panels = l.cells == 0 ? 0 : units * l.panels;
    each(pool, panels, std::max<int64_t>(1, panels / (8 * l.threads)), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) pack_x(first + i / l.panels, i % l.panels, space_ + i / l.panels * unit_x);
    });
    each(pool, units * l.tasks_n, 1, [&](int64_t begin, int64_t end, int thread) {
      float* own = space_ + l.packed_x + thread * (l.packed_w + l.sums);
      for (int64_t i = begin; i < end; ++i) {  // the units that share a piece of w follow each other
        run_block(first + i % units, i / units, space_ + i % units * unit_x, own, own + l.packed_w);
      }
    });
  }
}

// One panel of a unit, for every piece of k: `to` is [pieces][panels][cells of the piece][mr].
void GemmCpuPlan::pack_x(int64_t unit, int64_t panel, float* to) const {
  const Layout& l = layout_;
  const int64_t blocks = ceil_div(ceil_div(shape_.m, l.mr), l.panels), batch = unit / blocks;
  const int64_t row = (unit % blocks * l.panels + panel) * l.mr;
  if (row >= shape_.m) return;  // the last block of a batch may have fewer panels
  const int rows = static_cast<int>(std::min<int64_t>(l.mr, shape_.m - row));
  for (int64_t c = 0; c < l.cells; c += kCells) {
    const int64_t depth = std::min(kCells, l.cells - c), k = c * kernels_.per_cell;
    kernels_.pack(to + (c * l.panels + panel * depth) * l.mr, at(shape_.x, batch, row, k), shape_.x.row,
                  shape_.x.column, rows, std::min(depth * kernels_.per_cell, shape_.k - k), l.mr);
  }
}

void GemmCpuPlan::run_block(int64_t unit, int64_t task, const float* x, float* packed_w, float* sums) const {
  const Layout& l = layout_;
  const GemmOperand& w = shape_.w;
  const int64_t nr = kernels_.nr, bytes = element_bytes(w.dtype);
  const int64_t blocks = ceil_div(ceil_div(shape_.m, l.mr), l.panels), batch = unit / blocks;
  const int64_t row = unit % blocks * l.panels * l.mr, rows = std::min(l.panels * l.mr, shape_.m - row);
  const int64_t column = task * l.panels_w * nr, columns = std::min(l.panels_w * nr, shape_.n - column);
  const int64_t panels_w = ceil_div(columns, nr), stride = halves_ * panels_w * nr;
  if (l.cells == 0) std::fill(sums, sums + rows * stride, 0.0f);
  for (int64_t c = 0; c < l.cells; c += kCells) {
    const int64_t depth = std::min(kCells, l.cells - c), k = c * kernels_.per_cell;
    const int64_t elements = std::min(depth * kernels_.per_cell, shape_.k - k), next = k + elements;
    const int64_t ahead = std::min(kCells * kernels_.per_cell, shape_.k - next);
    for (int half = 0; half < halves_; ++half) {
      const int64_t first = half * shape_.n + column;
      for (int64_t from = 0; from < columns; from += nr) {
        kernels_.pack(packed_w + from * depth, at(w, batch, first + from, k), w.row, w.column,
                      static_cast<int>(std::min(nr, columns - from)), elements, static_cast<int>(nr));
      }
      GemmBlock block{.x = x + c * l.panels * l.mr,
                      .panel_x = depth * l.mr,
                      .panels_x = static_cast<int>(ceil_div(rows, l.mr)),
                      .mr = l.mr,
                      .w = packed_w,
                      .panels_w = static_cast<int>(panels_w),
                      .cells = depth,
                      .sums = sums + half * panels_w * nr,
                      .stride = stride,
                      .add = c > 0,
                      .ahead = nullptr,
                      .ahead_stride = 0,
                      .ahead_rows = 0,
                      .ahead_bytes = 0};
      if (ahead > 0) {
        const bool along_k = w.column == 1;
        block.ahead = static_cast<const char*>(at(w, batch, first, next));
        block.ahead_stride = (along_k ? w.row : w.column) * bytes;
        block.ahead_rows = along_k ? columns : ahead;
        block.ahead_bytes = (along_k ? ahead : columns) * bytes;
      }
      kernels_.block(block);
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
  const Layout& l = layout_;
  std::ostringstream json;
  json << R"({"variant":"gemm_cpu_)" << kernels_.isa << R"(","path":")" << (l.stream ? "stream" : "blocks") << '"';
  if (l.stream) {
    json << R"(,"tile":[)" << shape_.m << ',' << l.chunk << ',' << shape_.k << ']';
  } else {
    json << R"(,"tile":[)" << l.mr << ',' << kernels_.nr << ',' << kCells * kernels_.per_cell << R"(],"block":[)"
         << l.panels * l.mr << ',' << l.panels_w * kernels_.nr << ']';
  }
  json << R"(,"threads":)" << l.threads << R"(,"reason":")";
  if (l.stream) {
    json << "m is " << shape_.m << ", at most " << kernels_.stream_m << ": w is read once, in place";
  } else if (shape_.k == 0) {
    json << "no product to compute: the epilogue alone";
  } else if (shape_.w.column != 1) {
    json << "w is stored [k, rows_w]: packed as it is used";
  } else if (shape_.m <= kernels_.stream_m) {
    json << "batch_invariant: one row goes the way of many, w is packed as it is used";
  } else {
    json << "m is " << shape_.m << ", above " << kernels_.stream_m << ": w is packed as it is used";
  }
  if (widened_) json << "; bf16 is widened to f32, which is faster here than vdpbf16ps";
  json << "\"}";
  return json.str();
}

}  // namespace

const kw_op& gemm() {
  static constexpr kw_op op = make_op<GemmArgs, GemmCpuPlan>("gemm");
  return op;
}

}  // namespace kw::cpu
