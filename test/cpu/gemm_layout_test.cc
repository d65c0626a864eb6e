// How gemm on the CPU cuts a problem (gemm_cpu_layout.h), for every processor's kernels on any machine: blocks that cover it,
// within the workspace that was asked for.
#include "../../kernels/core/packed.h"
#include "../../kernels/gemm/gemm_cpu_layout.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::test;

// Layouts of random shapes and machines: every block fits the workspace that was asked for a larger shape, and that is a
// twentieth of the operands, or what the smallest blocks or few flat rows of x take.
void check_layouts() {
  for (int i = 0; i < 20000; ++i) {
#if defined(__x86_64__)  // data alone: nothing of AMX runs here
    const cpu::GemmKernels& kernels = chance(0.3) ? cpu::kGemmAmxBf16 : cpu::kGemmGeneric[pick(0, 2)];
#else
    const cpu::GemmKernels& kernels = cpu::kGemmGeneric[pick(0, 2)];
#endif
    const cpu::GemmMachine machine{static_cast<int>(pick(1, 64)), one_of<int64_t>({16 << 10, 32 << 10, 48 << 10}),
                                   one_of<int64_t>({256 << 10, 1 << 20, 2 << 20})};
    const auto extent = [](int64_t most) { return chance(0.5) ? pick(0, 40) : pick(0, most); };
    GemmShape large;
    large.batch = pick(1, 3), large.m = extent(3000), large.n = extent(5000), large.k = extent(9000);
    large.rows_w = large.n * pick(1, 2);
    if (chance(0.5)) large.w.format = PanelFormat{kernels.nr, 1, 2}.tag();
    GemmShape small = large;
    small.batch = pick(1, large.batch), small.m = pick(0, large.m), small.k = pick(0, large.k);
    const int64_t capacity = cpu::gemm_capacity(large, kernels, machine);
    for (const GemmShape& s : {large, small}) {
      const cpu::GemmLayout l = cpu::gemm_layout(s, kernels, machine, chance(0.3));
      const std::string text = "layout of " + std::to_string(s.batch) + " x " + std::to_string(s.m) + " x " +
                               std::to_string(s.n) + " x " + std::to_string(s.k);
      if (l.floats() > capacity) expect(false, text + ": more than the workspace");
      const bool empty = s.batch * s.m * s.n == 0;
      if (!empty && !l.stream && l.tasks_n * l.panels_w * kernels.nr < s.n) expect(false, text + ": columns left out");
      if (!l.stream && l.mr > kernels.mr) expect(false, text + ": micro-tiles too high");
    }
    // For an operator that packs x itself, all of a group lies in one place.
    cpu::GemmKernels shared = kernels;
    shared.pack_piece = nullptr;
    const cpu::GemmLayout l = cpu::gemm_layout(small, shared, machine, true);
    expect(l.own_x == 0 && l.packed_x == (l.units > 0 ? l.group * l.panels * l.mr * l.cells : 0),
           "layout: x that is packed for all threads has room");
    expect(l.floats() <= cpu::gemm_capacity(large, shared, machine), "layout: more than the workspace");
    const bool stored = large.w.format != 0;
    const int64_t least = (1 << 20) + machine.threads * (256 << 10), panels = 4 * kernels.mr * (large.k + 2) * 4;
    const int64_t flat = 4 * large.batch * kernels.stream_m * (large.k + 16);
    const int64_t streamed = flat + 4 * machine.threads * kernels.stream_m * 2 * 480;
    const int64_t most = std::max(
        {cpu::gemm_bytes(large) / 20, least, panels + machine.threads * machine.l2_bytes, stored ? 0 : streamed});
    expect(capacity * 4 <= most, "layout: more workspace than a twentieth of the operands");
  }
}

}  // namespace

int main() {
  check_layouts();
  return closing_line();
}
