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
#include <type_traits>

#include "gemm_sm90.h"
#include "gemm_sm90_epilogue.cuh"

namespace kw::gemm_cuda {

template <class T, class Shape>
static __global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    gemm_sm90(const __grid_constant__ Sm90Params q) {
  using Epilogue = std::conditional_t<Shape::kWhole, Sm90Whole<Shape>, Sm90Stream<T, Shape>>;
  sm90_gemm<Shape, Sm90Weights<T, Shape>, Epilogue>(q);
}

namespace {

using Kernel = void (*)(Sm90Params);

// A configuration as it is compiled.
struct Compiled {
  Kernel bf16, f16;
  int box_x, box_y;  // rows of the boxes of x and y
};

template <size_t I>
constexpr Compiled compiled() {
  constexpr const Sm90Configuration& c = kSm90Configurations[I];
  constexpr Sm90Mode kMode = !c.streams()                      ? Sm90Mode::whole
                             : c.share == Sm90Configuration::x ? Sm90Mode::stream_share_x
                             : c.share == Sm90Configuration::w ? Sm90Mode::stream_share_w
                                                               : Sm90Mode::stream;
  using Shape = Sm90Shape<c.slabs, c.rows / c.slabs / 64, c.tokens, c.stages, kMode, c.blocks_per_sm>;
  static_assert(Shape::kRows == c.rows && Shape::kThreads == c.threads() && Shape::kSmem == c.smem() &&
                c.most_splits <= kSm90MostSplits);
  return {gemm_sm90<__nv_bfloat16, Shape>, gemm_sm90<__half, Shape>, c.tokens / (Shape::kShareX ? Shape::kCluster : 1),
          Shape::kBoxTokens};
}

template <size_t... I>
Compiled compiled_of(const Sm90Configuration& c, std::index_sequence<I...>) {
  static constexpr Compiled kAll[] = {compiled<I>()...};
  return kAll[&c - kSm90Configurations];
}

TensorMap map_of(const GemmOperand& o, int64_t batch, int64_t rows, int64_t length, int box_rows) {
  const int64_t size = bits(o.dtype) / 8, pitch = rows == 1 ? (length * size + 15) / 16 * 16 : o.row * size;
  const int64_t layers = o.batch ? batch : 1, layer_pitch = o.batch ? o.batch * size : pitch;
  return make_tensor_map_3d(o.dtype, o.data, length, rows, layers, pitch, layer_pitch, Sm90Configuration::kDepth,
                            box_rows, Swizzle::b128);
}

}  // namespace

struct Sm90Launch::State {
  Sm90Params params;
  LaunchConfig config;
  Kernel kernel = nullptr;
};

void Sm90Launch::bind(const Sm90Configuration& c, int splits, const GemmParams& p, const kw_device_info& device) {
  const GemmShape& s = p.s;
  const Sm90Tiles tiles = sm90_tiles(c, s, p.gated);
  const int cluster = c.cluster(splits);
  std::string reason = sm90_declines(s);
  if (reason.empty()) reason = sm90_declines(c, splits, s.k, p.gated);
  if (reason.empty() && tiles.units * cluster >= int64_t{1} << 31) reason = "y has 2^31 tiles or more";
  if (!reason.empty()) throw Error(Code::UNSUPPORTED, std::string("gemm cuda: ") + c.name + ": " + reason);

  const Compiled compiled = compiled_of(c, std::make_index_sequence<std::size(kSm90Configurations)>());
  if (!state_) state_ = std::make_shared<State>();
  Sm90Params& q = state_->params;
  q.p = p;
  q.w = map_of(s.w, s.batch, s.rows_w, s.k, 64);
  q.x = map_of(s.x, s.batch, s.m, s.k, compiled.box_x);
  q.tiles_rows = static_cast<int>(tiles.rows);
  q.tiles_tokens = static_cast<int>(tiles.tokens);
  q.units = static_cast<int>(tiles.units);
  q.splits = splits;
  q.store = c.streams() && s.y.dtype == s.x.dtype && !s.c.data && !s.residual.data &&
            (p.activation == Activation::none || p.activation == Activation::relu) && tma_takes(s.y, s.m, s.n);
  q.y = q.store ? map_of(s.y, s.batch, s.m, s.n, compiled.box_y) : q.x;

  const int64_t resident = std::max(device.sm_count / cluster, 1);
  const int64_t clusters = c.streams() ? std::min(tiles.units, resident) : tiles.units;
  LaunchConfig& config = state_->config;
  config.grid = {static_cast<unsigned>(clusters * cluster)};
  config.block = {static_cast<unsigned>(c.threads())};
  config.cluster = {static_cast<unsigned>(cluster)};
  config.smem = static_cast<size_t>(c.smem());
  const Kernel kernel = s.x.dtype == DType::bf16 ? compiled.bf16 : compiled.f16;
  if (kernel != state_->kernel) prepare(kernel, config.smem);
  state_->kernel = kernel;
}

void Sm90Launch::enqueue(void* stream) const {
  LaunchConfig config = state_->config;
  config.stream = static_cast<Stream>(stream);
  launch(config, state_->kernel, state_->params);
}

}  // namespace kw::gemm_cuda
