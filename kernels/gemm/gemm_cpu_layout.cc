// The block that lets the slowest thread finish first, within the caches and a twentieth of the operands' bytes.
#include "gemm_cpu_layout.h"

#include <algorithm>

namespace kw::cpu {
namespace {

constexpr int64_t kLeastPanels = 4;    // of x in a block, where there are as many
constexpr int64_t kColumns = 512;      // rows of w in a block, at most
constexpr int64_t kPackedX = 8 << 20;  // cells of x packed at a time where a thread cannot pack its own, 32 MB
constexpr int64_t kPad = 16;  // floats behind a row of sums on tiles, whose 16 rows would meet in few sets of L1
// Of x in pieces: columns of a block, panels in a piece at most, and what bringing a row of x and a column of w costs.
constexpr int64_t kOwnColumns = 1024, kOwnPanels = 8, kOwnCostX = 160, kOwnCostStored = 40, kOwnCostPlain = 260;
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
// m 512 that costs 7 %; on tiles half as much again, so there x takes what it needs unless it is packed in pieces.
int64_t total_budget(const GemmShape& s, const GemmKernels& kernels, const GemmMachine& machine) {
  const int64_t least = kLeastFloats + machine.threads * kOwnFloats;
  if (!on_tiles(kernels) || kernels.pack_piece) return std::max(gemm_bytes(s) / 20 / 4, least);
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

// Columns of a task of stream are a multiple of these: rows of w, or panels, that are read at the same time.
int64_t stream_step(const GemmShape& s, const GemmKernels& kernels) { return s.w.format ? 4 * kernels.nr : 48; }

// Rows of x up to which w is streamed.
int64_t stream_m(const GemmShape& s, const GemmKernels& kernels) {
  return s.w.format ? kernels.stored_m : s.w.column == 1 ? kernels.stream_m : 0;
}

void lay_out_stream(const GemmShape& s, const GemmKernels& kernels, GemmLayout& l) {
  const int64_t halves = halves_of(s), step = stream_step(s, kernels);
  const int64_t row_bytes = s.k * element_bytes(s.w) * halves;
  const int64_t even = ceil_div(s.n, 4 * l.threads);  // at least four tasks a thread
  l.chunk =
      std::min({round_up(std::min(even, kStreamBytes / row_bytes + 1), step), kStreamColumns, round_up(s.n, step)});
  l.tasks_n = ceil_div(s.n, l.chunk);
  l.packed_x = s.batch * s.m * round_up(l.cells, 16);
  l.own_sums = s.m * halves * l.chunk;
}

// Where a block keeps what it needs, in floats, and what bringing a row of x or a column of w costs, in columns or rows that
// could be multiplied meanwhile.
struct Place {
  int64_t space;    // of a thread
  int64_t own_w;    // of it for each column: a piece of plain w
  int64_t own_x;    // and for each row: pieces of x
  int64_t panels;   // of x that are packed for all threads at a time, at most
  int64_t least;    // panels of x in a block
  int64_t columns;  // and of w, at most
  int64_t cost_x, cost_w;
};

// The time of a block is about (rows + cost of w) (columns + cost of x): its products, and bringing its operands.
void cut(const GemmShape& s, const GemmKernels& kernels, const Place& place, GemmLayout& l) {
  const int64_t nr = kernels.nr, halves = halves_of(s), all_w = ceil_div(s.n, nr), all = ceil_div(s.m, l.mr);
  double best = 0;
  for (int64_t w = 1; w <= std::clamp(place.columns / (halves * nr), int64_t{1}, all_w); ++w) {
    const int64_t columns = halves * w * nr;
    const int64_t in_cache = (place.space - columns * place.own_w) / ((columns + l.pad + place.own_x) * l.mr);
    if (in_cache < place.least && best != 0) break;
    const int64_t most = std::clamp(std::min(in_cache, place.panels), place.least, all), fewest = ceil_div(all, most);
    for (int64_t parts = fewest; parts <= std::min(std::max(fewest, all / place.least), fewest + 8); ++parts) {
      const int64_t panels = ceil_div(all, parts), units = s.batch * ceil_div(all, panels);
      const int64_t rounds = ceil_div(units * ceil_div(all_w, w), l.threads);
      const double cost = static_cast<double>(rounds * (panels * l.mr + place.cost_w) * (columns + place.cost_x));
      if (best != 0 && cost >= best) continue;
      best = cost;
      l.panels = panels, l.units = units, l.panels_w = w;
    }
  }
  l.tasks_n = ceil_div(s.n, l.panels_w * nr);
  l.group = std::clamp<int64_t>(place.panels / l.panels, 1, l.units);
  const int64_t rows = l.panels * l.mr, columns = halves * l.panels_w * nr;
  l.own_w = columns * place.own_w;
  l.packed_x = l.group * rows * l.cells;
  l.own_sums = rows * (columns + l.pad);
}

void lay_out_blocks(const GemmShape& s, const GemmKernels& kernels, const GemmMachine& machine, GemmLayout& l) {
  const int64_t total = total_budget(s, kernels, machine), space = own_budget(total, machine);
  const bool stored = s.w.format != 0, tiles = on_tiles(kernels);
  l.depth = depth_of(l.cells, kernels, machine);
  l.mr = static_cast<int>(round_up(ceil_div(s.m, ceil_div(s.m, kernels.mr)), kernels.mr_step));
  l.pad = tiles ? kPad : 0;
  const int64_t all = ceil_div(s.m, l.mr), own_w = stored ? 0 : l.depth;
  const int64_t packed = l.cells == 0 ? all : (total - l.threads * space) / (l.mr * l.cells);
  Place place{.space = space,
              .own_w = own_w,
              .own_x = 0,
              .panels = packed,
              .least = std::min(all, kLeastPanels),
              .columns = kColumns,
              .cost_x = 8,
              .cost_w = stored ? 2 : 24};
  cut(s, kernels, place, l);
  if (kernels.pack_piece && l.cells > 0 && l.group < l.units) {
    // A plain w is packed once for a block, which is higher when its rows of x take turns in a small place.
    const int64_t own = total / machine.threads, two = 2 * l.depth, turns = own / 2 / (two * l.mr);
    const int64_t part = std::clamp<int64_t>(turns, 1, std::min(all, kOwnPanels));
    place = {.space = stored ? own : own - part * l.mr * two,
             .own_w = own_w,
             .own_x = stored ? two : 0,
             .panels = s.batch * all,
             .least = 1,
             .columns = kOwnColumns,
             .cost_x = kOwnCostX,
             .cost_w = stored ? kOwnCostStored : kOwnCostPlain};
    cut(s, kernels, place, l);
    l.part = stored ? l.panels : std::min(part, l.panels);
    l.own_x = l.part * l.mr * l.depth, l.packed_x = 0, l.group = l.units;
  }
  // As long as all of x stays in L2, stored panels are read one after the other, from end to end (m 16: 7 % faster). Not on
  // tiles: every block sets them up again.
  if (stored && !tiles && l.units == 1 && s.m * l.cells * 4 <= machine.l2_bytes / 2) {
    const int64_t rows = l.panels * l.mr, columns = halves_of(s) * kernels.nr;
    l.panels_w = 1, l.tasks_n = ceil_div(s.n, kernels.nr), l.own_sums = rows * columns;
    l.grain = std::max<int64_t>(1, l.tasks_n / (8 * l.threads));
  }
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
  l.stream = s.k > 0 && s.m <= stream_m(s, kernels) && !invariant;
  l.cells = l.stream ? ceil_div(s.k, kernels.per_cell) : cells_of(s, kernels);
  l.stream ? lay_out_stream(s, kernels, l) : lay_out_blocks(s, kernels, machine, l);
  return l;
}

int64_t gemm_capacity(const GemmShape& s, const GemmKernels& kernels, const GemmMachine& machine) {
  const int64_t cells = cells_of(s, kernels), halves = halves_of(s), total = s.batch * s.m, mr = kernels.mr;
  const int64_t budget = total_budget(s, kernels, machine);
  // Rows of x with what even panels and blocks may add; the batch may be folded into m.
  const int64_t rows = (total + s.batch * (mr + kernels.mr_step) + total / mr + 1) * 5 / 4;
  const int64_t depth = std::min<int64_t>(cells, kernels.depth);
  const int64_t blocks_x = std::min(std::max(budget, kLeastPanels * mr * cells), rows * cells);
  const int64_t columns = std::min(halves * round_up(s.n, kernels.nr),
                                   std::max<int64_t>(on_tiles(kernels) ? kOwnColumns : kColumns, halves * kernels.nr));
  const int64_t own = std::min(std::max(own_budget(budget, machine), kLeastPanels * mr * (halves * kernels.nr + kPad) +
                                                                         halves * kernels.nr * kernels.depth),
                               columns * depth + rows * (columns + kPad));
  const int64_t most = stream_m(s, kernels), streamed = std::min(total, most);
  const int64_t stream_x = s.batch * std::min(s.m, most) * round_up(cells, 16);
  const int64_t stream_sums = streamed * halves * std::min(kStreamColumns, round_up(s.n, stream_step(s, kernels)));
  // blocks_x leaves out what the threads take of the budget, unless it is the least there can be.
  int64_t blocks =
      std::min(blocks_x + machine.threads * own, std::max(budget, kLeastPanels * mr * cells + machine.threads * own));
  if (kernels.pack_piece) {
    const int64_t pieces = columns * depth + rows * (columns + kPad + 2 * depth);
    blocks = std::max(blocks, std::min(budget, machine.threads * pieces));
  }
  return std::max(blocks, stream_x + machine.threads * stream_sums);
}

}  // namespace kw::cpu
