// How the CPU backend of gemm cuts a problem: one pure function of shape, kernels and machine.
//
// stream: few rows of x, w stored [rows_w, k] or prepacked. Memory-bound: every row or panel of w is read once, straight from
//         where it lies, and multiplied with all rows of x. A task is a run of w's rows.
// blocks: everything else. A group of x's rows is packed once by all threads. A task is a block of y within the group,
//         for which one thread brings its rows of w into its own L2 cache as panels, `depth` cells of k at a time,
//         multiplies, and runs the epilogue on the finished sums. Prepacked panels are read where they lie.
//         On tiles, where x does not fit the workspace as a whole, the thread packs its rows of x itself, piece by piece:
//         the next one while this one is multiplied.
#pragma once
#include "gemm_cpu.h"
#include "gemm_shape.h"

namespace kw::cpu {

struct GemmMachine {
  int threads;
  int64_t l1_bytes, l2_bytes;
};

// Threads and caches of a CPU device; 32 KB and 512 KB where the caches are unknown.
GemmMachine gemm_machine(const kw_device_info&);

struct GemmLayout {
  bool stream = false;
  int threads = 1;
  int64_t cells = 0;    // of the whole of k
  int64_t tasks_n = 1;  // runs of columns of y
  // blocks
  int mr = 1;
  int64_t depth = 1;     // cells of k at a time
  int64_t panels = 1;    // of mr rows in a block
  int64_t units = 1;     // blocks of rows, over all batches
  int64_t group = 1;     // of those, packed at a time
  int64_t panels_w = 1;  // of nr columns of y in a block
  int64_t grain = 1;     // tasks in a row that a thread takes
  int64_t pad = 0;       // floats behind a row of sums
  int64_t part = 1;      // panels of x in a piece that a thread packs for itself
  // stream
  int64_t chunk = 1;  // columns of y in a task

  // Regions of the workspace in floats: x for all, and for each thread panels of w, two pieces of x, and sums.
  int64_t packed_x = 0, own_w = 0, own_x = 0, own_sums = 0;
  int64_t own() const { return own_w + 2 * own_x + own_sums; }
  int64_t floats() const { return packed_x + threads * own(); }
};

// invariant: always in blocks, where an element's sum depends on k alone, not on m.
GemmLayout gemm_layout(const GemmShape&, const GemmKernels&, const GemmMachine&, bool invariant);

// Floats of workspace that are enough for this shape and for every one with smaller extents.
int64_t gemm_capacity(const GemmShape&, const GemmKernels&, const GemmMachine&);

// What x, w and y take.
int64_t gemm_bytes(const GemmShape&);

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace kw::cpu
