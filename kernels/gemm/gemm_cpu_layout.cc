// The block that lets the slowest thread finish first, within the caches and a twentieth of the operands' bytes.
#include "gemm_cpu_layout.h"

#include <algorithm>

namespace kw::cpu {
namespace {

constexpr int64_t kLeastPanels = 4;          // of x in a block, where there are as many
constexpr int64_t kColumns = 512;            // rows of w in a block, at most
constexpr int64_t kPackedX = 8 << 20;        // cells of x packed at a time, 32 MB
constexpr int64_t kLeastFloats = 256 << 10;  // of workspace that any problem may take, 1 MB, and 256 KB for each thread
constexpr int64_t kOwnFloats = 64 << 10;
constexpr int64_t kStreamBytes = 512 << 10;  // of w in a task of stream, about
constexpr int64_t kStreamColumns = 480;      // at most
constexpr double kSerialWork = 200e3;        // FLOPs below which waking a thread costs more than it brings

int64_t element_bytes(const GemmOperand& o) { return bits(o.dtype) / 8; }
int halves_of(const GemmShape& s) { return s.rows_w > s.n ? 2 : 1; }

bool on_tiles(const GemmKernels& kernels) { return kernels.mr_step > 1; }

int64_t cells_of(const GemmShape& s, const GemmKernels& kernels) {
  return round_up(ceil_div(s.k, kernels.per_cell), kernels.cell_step);
}

// Floats of workspace: a twentieth of what x, w and y take. A plain w is then packed again for every group of rows of x: with
// m 512 that costs 7 %, but half as much again on tiles, where all of x is packed at once instead.
int64_t total_budget(const GemmShape& s, const GemmKernels& kernels, const GemmMachine& machine) {
  const int64_t least = kLeastFloats + machine.threads * kOwnFloats;
  if (s.w.format != 0 || !on_tiles(kernels)) return std::max(gemm_bytes(s) / 20 / 4, least);
  const int64_t rows = s.batch * round_up(s.m, kernels.mr) + s.batch * s.m / kLeastPanels;
  return least + std::min(rows * cells_of(s, kernels), kPackedX) + machine.threads * machine.l2_bytes / 2 / 4;
}

// Floats of those for each thread: half of its L2 cache, the rest being for x and for what comes next.
int64_t own_budget(int64_t total, const GemmMachine& machine) {
  return std::clamp(machine.l2_bytes / 2 / 4, kOwnFloats, std::max(kOwnFloats, total / 4 / machine.threads));
}

int64_t depth_of(int64_t cells, const GemmKernels& kernels, const GemmMachine& machine) {
  // A panel of w stays in L1 while panels of x pass by: the two fill four fifths of it.
  const int64_t fits = machine.l1_bytes / 5 * 4 / ((kernels.nr + kernels.mr) * 4) / 16 * 16;
  return std::min(std::clamp<int64_t>(fits, 64, kernels.depth), cells);
}

void lay_out_stream(const GemmShape& s, GemmLayout& l) {
  const int halves = halves_of(s);
  const int64_t row_bytes = s.k * element_bytes(s.w) * halves;
  const int64_t even = ceil_div(s.n, 4 * l.threads);  // at least four tasks a thread
  l.chunk = std::min({round_up(std::min(even, kStreamBytes / row_bytes + 1), 48), kStreamColumns, round_up(s.n, 48)});
  l.tasks_n = ceil_div(s.n, l.chunk);
  l.packed_x = s.batch * s.m * round_up(l.cells, 16);
  l.own_sums = s.m * halves * l.chunk;
}

// The time of a block is about (rows + cost of w) (columns + 8): its products, and bringing a cell of w, which takes as
// long as multiplying it with so many rows.
void lay_out_blocks(const GemmShape& s, const GemmKernels& kernels, const GemmMachine& machine, GemmLayout& l) {
  const int64_t nr = kernels.nr, halves = halves_of(s), total = total_budget(s, kernels, machine);
  const int64_t space = own_budget(total, machine), all_w = ceil_div(s.n, nr);
  const bool stored = s.w.format != 0;
  const int64_t cost_w = stored ? 2 : 24;
  l.depth = depth_of(l.cells, kernels, machine);
  l.mr = static_cast<int>(round_up(ceil_div(s.m, ceil_div(s.m, kernels.mr)), kernels.mr_step));
  const int64_t all = ceil_div(s.m, l.mr), least = std::min(all, kLeastPanels);
  const int64_t own_depth = stored ? 0 : l.depth;
  const int64_t packed = l.cells == 0 ? all : (total - l.threads * space) / (l.mr * l.cells);
  double best = 0;
  for (int64_t w = 1; w <= std::clamp(kColumns / (halves * nr), int64_t{1}, all_w); ++w) {
    const int64_t columns = halves * w * nr, in_cache = (space - columns * own_depth) / (columns * l.mr);
    if (in_cache < least && best != 0) break;
    const int64_t most = std::clamp(std::min(in_cache, packed), least, all), fewest = ceil_div(all, most);
    for (int64_t parts = fewest; parts <= std::min(std::max(fewest, all / least), fewest + 8); ++parts) {
      const int64_t panels = ceil_div(all, parts), units = s.batch * ceil_div(all, panels);
      const int64_t rounds = ceil_div(units * ceil_div(all_w, w), l.threads);
      const double cost = static_cast<double>(rounds * (panels * l.mr + cost_w) * (columns + 8));
      if (best != 0 && cost >= best) continue;
      best = cost;
      l.panels = panels, l.units = units, l.panels_w = w;
    }
  }
  // As long as all of x stays in L2, stored panels are read one after the other, from end to end (m 16: 7 % faster). Not on
  // tiles: every block sets them up again.
  if (stored && !on_tiles(kernels) && l.units == 1 && s.m * l.cells * 4 <= machine.l2_bytes / 2) {
    l.panels_w = 1;
    l.grain = std::max<int64_t>(1, all_w / (8 * l.threads));
  }
  const int64_t rows = l.panels * l.mr, columns = halves * l.panels_w * nr;
  l.tasks_n = ceil_div(s.n, l.panels_w * nr);
  l.group = std::clamp<int64_t>(packed / l.panels, 1, l.units);
  l.packed_x = l.group * rows * l.cells;
  l.own_w = columns * own_depth;
  l.own_sums = rows * columns;
}

}  // namespace

int64_t gemm_bytes(const GemmShape& s) {
  const int64_t x = s.batch * s.m * s.k * element_bytes(s.x), y = s.batch * s.m * s.n * element_bytes(s.y);
  return x + y + (s.w.batch ? s.batch : 1) * s.rows_w * s.k * element_bytes(s.w);
}

GemmLayout gemm_layout(const GemmShape& s, const GemmKernels& kernels, const GemmMachine& machine, bool invariant) {
  GemmLayout l;
  if (s.batch == 0 || s.m == 0 || s.n == 0) return l;
  const double work = static_cast<double>(s.batch * s.m * s.rows_w) * static_cast<double>(2 * s.k + 20);
  l.threads = work < kSerialWork ? 1 : machine.threads;
  l.stream = s.k > 0 && s.m <= kernels.stream_m && s.w.column == 1 && s.w.format == 0 && !invariant;
  l.cells = l.stream ? ceil_div(s.k, kernels.per_cell) : cells_of(s, kernels);
  l.stream ? lay_out_stream(s, l) : lay_out_blocks(s, kernels, machine, l);
  return l;
}

int64_t gemm_capacity(const GemmShape& s, const GemmKernels& kernels, const GemmMachine& machine) {
  const int64_t cells = cells_of(s, kernels), halves = halves_of(s), total = s.batch * s.m, mr = kernels.mr;
  const int64_t budget = total_budget(s, kernels, machine);
  // Rows of x with what even panels and blocks may add; the batch may be folded into m.
  const int64_t rows = (total + s.batch * (mr + kernels.mr_step) + total / mr + 1) * 5 / 4;
  const int64_t blocks_x = std::min(std::max(budget, kLeastPanels * mr * cells), rows * cells);
  const int64_t columns =
      std::min(halves * round_up(s.n, kernels.nr), std::max<int64_t>(kColumns, halves * kernels.nr));
  const int64_t own = std::min(std::max(own_budget(budget, machine),
                                        kLeastPanels * mr * halves * kernels.nr + halves * kernels.nr * kernels.depth),
                               columns * (std::min<int64_t>(cells, kernels.depth) + rows));
  const int64_t streamed = std::min<int64_t>(total, kernels.stream_m);
  const int64_t stream_x = s.batch * std::min<int64_t>(s.m, kernels.stream_m) * round_up(cells, 16);
  const int64_t stream_sums = streamed * halves * std::min(kStreamColumns, round_up(s.n, 48));
  // blocks_x leaves out what the threads take of the budget, unless it is the least there can be.
  const int64_t blocks =
      std::min(blocks_x + machine.threads * own, std::max(budget, kLeastPanels * mr * cells + machine.threads * own));
  return s.w.format != 0 ? blocks : std::max(blocks, stream_x + machine.threads * stream_sums);
}

}  // namespace kw::cpu
