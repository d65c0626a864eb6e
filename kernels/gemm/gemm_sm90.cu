// gemm of bf16 and f16 for compute capability 9.0: TMA, wgmma, clusters. The skeleton is gemm_sm90.cuh, the way out
// gemm_sm90_epilogue.cuh, the configurations gemm_sm90.h. For x and w contiguous along k, with rows and matrices at multiples
// of 16 bytes; any y, c, bias, residual and activation. Everything else is gemm_cuda.cu's.
//
// Work: rows of w are wgmma's M and rows of x, tokens, its N, so that few tokens cost little. One warp loads, two warpgroups
// multiply, m64n<tokens>k16, 64 of k per stage. stream: as many blocks as SMs, each making tile after tile, loads running
// ahead through the epilogue; _x and _w: clusters of two that load the tile of x or of w once. whole: k in parts, one per
// block of a cluster, whose sums are added in order of k through distributed shared memory, so that results never depend on
// timing; two blocks per SM overlap one's ends with the other's middle. A sum's order depends on k and its parts alone.
//
// 384 threads each; registers of a loading / a multiplying thread:
//
//             tokens x rows  slabs  stages  shared memory  registers  blocks per SM
//   256x128, _x   256 x 128      1       4         226 KB   24 / 240              1
//   128x256, _w   128 x 256      2       4         226 KB   24 / 240              1   gated too
//   128x128       128 x 128      1       6         192 KB         90              1   gated too, 1-4 parts
//   64x128         64 x 128      1       4          96 KB         58              2   gated too, 1-8 parts
//   32x128         32 x 128      1       5         100 KB         56              2   gated too, 1-8 parts
//   16x128         16 x 128      1       6         108 KB         56              2   gated too, 1-8 parts
//
// Prediction, not measured: bytes 2 (m k + r k) + b_y m n, FLOPs 2 m r k, r = rows of w. At 4096^3, 1365 FLOP/byte:
// compute-bound, 139 us at an H200's 989 TFLOP/s; L2 must feed an SM 48 bytes a cycle for 256x128, 32 for _x, of the 47 or
// so that it can; the epilogue is 2 % of a tile's 65 000 cycles; power holds long runs to 650-750 TFLOP/s, 66-76 % of peak.
// At m = 16, 8192 x 8192: 134 MB, 28 us at 4.8 TB/s; the rings hold 216 KB per SM in flight, eight times what 4.8 TB/s at
// 0.7 us of latency need, so 75-85 %; below 40 MB the 3 us of start count. At m = 128, 8192^2: 31 us, 70 %.
#include "gemm_sm90.h"
#include "gemm_sm90_launch.cuh"

namespace kw::gemm_cuda {

template <class T, class Shape>
static __global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    gemm_sm90(const __grid_constant__ Sm90Params q) {
  sm90_gemm<Shape, Sm90Weights<T, Shape>, Sm90Epilogue<T, Shape>>(q);
}

namespace {

struct Kernels {
  template <class T, class Shape>
  static constexpr auto of() {
    return gemm_sm90<T, Shape>;
  }
};

}  // namespace

struct Sm90Launch::State : Sm90Bound<Sm90Params> {};

void Sm90Launch::bind(const Sm90Configuration& c, int splits, const GemmParams& p, const kw_device_info& device) {
  const GemmShape& s = p.s;
  std::string reason = sm90_declines(s);
  if (reason.empty()) reason = sm90_declines(c, splits, s.k, p.gated);
  if (!reason.empty()) throw Error(Code::UNSUPPORTED, std::string("gemm cuda: ") + c.name + ": " + reason);
  if (!state_) state_ = std::make_shared<State>();
  state_->params.w = sm90_map_of(s.w, s.batch, s.rows_w, s.k, 64);
  state_->bind<kSm90Configurations, Kernels>("gemm", c, splits, p, device);
}

void Sm90Launch::enqueue(void* stream) const { state_->enqueue(stream); }

}  // namespace kw::gemm_cuda
