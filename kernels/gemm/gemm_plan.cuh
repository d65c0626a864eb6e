// What plans of gemm and of gemm_int4 share on the host: limits, alignment, the grid of a choice, the kernel that adds parts of k,
// explaining.
#pragma once
#include <ostream>
#include <string>

#include "gemm_choose.h"
#include "gemm_reduce.cuh"

namespace kw::gemm_cuda {

constexpr int64_t kMostRows = (int64_t{1} << 31) - 1024;  // of x and w, and of k: tiles are counted in 32 bits

// Whether every line of the operand can be moved in 16-byte pieces along its contiguous direction.
inline bool lines_aligned(const GemmOperand& o, int64_t outer_stride, int64_t inner_stride) {
  const int64_t size = bits(o.dtype) / 8;
  return inner_stride == 1 && reinterpret_cast<uintptr_t>(o.data) % 16 == 0 && outer_stride * size % 16 == 0 &&
         o.batch * size % 16 == 0;
}

// Sets p.wide from p.s and p.gated; returns the bytes that the epilogue moves.
inline int64_t resolve_epilogue(GemmParams& p) {
  const GemmShape& s = p.s;
  int64_t bytes = 0;
  p.wide = true;
  for (const GemmOperand* o : {&s.y, &s.c, &s.bias, &s.residual}) {
    const bool halves = p.gated && (o == &s.c || o == &s.bias);
    if (!o->data) continue;
    p.wide &= lines_aligned(*o, o->row, o->column) && !(halves && s.n * bits(o->dtype) / 8 % 16);
    const int64_t rows = o == &s.bias ? 1 : (o->batch || o == &s.y ? s.batch : 1) * s.m;
    bytes += rows * (o == &s.c || o == &s.bias ? s.rows_w : s.n) * bits(o->dtype) / 8;
  }
  return bytes;
}

// Puts a choice into the parameters and gives its grid: beyond 16 waves of blocks, each makes several matrices of the batch.
inline Dim grid_of(GemmParams& p, const GemmChoice& choice, const kw_device_info& device) {
  p.tiles_m = static_cast<int>(choice.tiles_m);
  p.tiles_n = static_cast<int>(choice.tiles_n);
  p.splits = choice.splits;
  p.split_depth = choice.split_depth;
  p.partial_pitch = choice.partial_pitch;
  const int64_t tiles = choice.tiles_m * choice.tiles_n, blocks = tiles * choice.splits;
  const int64_t waves = 16 * choice.blocks_per_sm * std::max(device.sm_count, 1);
  const int64_t layers = std::clamp<int64_t>(waves / std::max<int64_t>(blocks, 1), 1, 65535);
  return {static_cast<unsigned>(tiles), static_cast<unsigned>(choice.splits),
          static_cast<unsigned>(std::min(p.s.batch, layers))};
}

inline void launch_reduce(const GemmParams& p, Stream stream) {
  const int64_t tiles = divided(p.s.m, kReduceRows) * divided(p.partial_pitch, kReduceColumns);
  launch({.grid = {static_cast<unsigned>(tiles), 1, static_cast<unsigned>(std::min<int64_t>(p.s.batch, 65535))},
          .block = {kReduceThreads},
          .stream = stream},
         gemm_reduce, p);
}

// Members of an explanation: what runs, how large, and how long the cost model expects it to take.
inline void explain_choice(std::ostream& json, const GemmChoice& choice, const GemmParams& p,
                           const kw_device_info& device) {
  const GemmConfig& c = *choice.config;
  const auto micro = [](double seconds) { return seconds * 1e6; };
  json << R"("tile":[)" << c.m << ',' << c.n << ',' << c.k << R"(],"splits":)" << choice.splits << R"(,"stages":)"
       << c.stages << R"(,"threads":)" << c.threads() << R"(,"smemBytes":)" << c.smem() << R"(,"blocksPerSm":)"
       << choice.blocks_per_sm << R"(,"tiles":[)" << choice.tiles_m << ',' << choice.tiles_n << ',' << p.s.batch
       << R"(],"wideEpilogue":)" << (p.wide ? "true" : "false");
  if (choice.seconds > 0)  // there is something to do
    json << R"(,"predictedMicroseconds":)" << micro(choice.seconds) << R"(,"roofline":{"bound":")"
         << (choice.bandwidth_bound ? "bandwidth" : "compute") << R"(","microseconds":)" << micro(choice.roof_seconds)
         << R"(,"predictedShare":)" << choice.roof_seconds / choice.seconds << R"(,"clocks":")"
         << (model_of(device).nominal ? "typical of the architecture" : "of the device") << R"("})";
}

}  // namespace kw::gemm_cuda
