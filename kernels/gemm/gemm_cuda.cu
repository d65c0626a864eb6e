// gemm on CUDA, compute capability 8.0 and up.
//
// Work: a block makes one tile of y over all of k, so a sum's order depends on k alone, never on batch or grid. The batch is
// grid.z, with a loop beyond 16 waves. Blocks walk y in groups of 8 tile rows: neighbours in time share tiles in L2.
//   gemm_mma      bf16, f16; rows of x and w at multiples of 16 bytes. cp.async ring, XOR swizzle, ldmatrix (.trans for a
//                 transposed operand), m16n8k16, fragments double-buffered: 64x64 (32x32) of sums per warp.
//   gemm_mma_any  bf16, f16; any strides and alignment: 2-byte loads, held in registers while the tile before is multiplied.
//   gemm_fma      f32; any strides: IEEE fma, 64x32 (32x32) of sums per warp, cp.async of 16 or 4 bytes. No TF32.
//
//                 tile        threads  stages  shared memory  blocks per SM
//   gemm_mma      128x256x32      256       3          72 KB              1
//                 128x128x32      128       3          48 KB              2
//                 64x64x32        128       4          32 KB              4
//   gemm_mma_any  64x64x32        128       2          16 KB              4
//   gemm_fma      128x128x16      256       2          40 KB              2
//                 64x64x16        128       2          20 KB              4
//
// Sums go through shared memory 16 rows at a time, so that c, residual and y move in 16-byte pieces; where those are not
// aligned, element by element with the same arithmetic. A gated weight's gate and up rows interleave in blocks of 8 within
// a tile (TileRows), so one block holds both halves of every output.
//
// choose() picks the tile that costs the busiest SM least. Limits: m, rows of w and k below 2^31 - 1024; tiles of y below 2^31.
//
// Prediction, not measured: bytes b_x m k + b_w r k + b_y m n (+ c, residual), FLOPs 2 m r k, r = rows of w. At 4096^3
// bf16, 1365 FLOP/byte: compute-bound; mma.sync reaches 70-80 % of an A100's 312 TFLOP/s and 45-55 % of an H200's 989.
// At m = 16, 4096 x 4096: 34 MB, memory-bound; 64 blocks of 64 columns keep too few bytes in flight for more than about
// a third of an H200's 4.8 TB/s. f32 fma: 75-85 % of 19.5 (A100) and 67 TFLOP/s (H200).
#include "../core/cuda/registry.h"
#include "gemm_fma.cuh"
#include "gemm_mma.cuh"

namespace kw {
namespace gemm_cuda {

// ---- choosing and launching ------------------------------------------------------------------------------------------

struct Variant {
  const char* name;
  void (*kernel)(GemmParams);
  int m, n, k, stages, threads, smem, blocks;
  double efficiency;  // of a busy SM, relative to the largest tile: a guess that ranks tiles, not a measurement
};

template <bool kBf16, class Shape, class XTile, class WTile>
Variant mma_variant(const char* name, double efficiency) {
  return {name,
          gemm_mma<kBf16, Shape, XTile, WTile>,
          Shape::kM,
          Shape::kN,
          kTileDepth,
          Shape::kStages,
          Shape::kThreads,
          Shape::kStages * (XTile::kBytes + WTile::kBytes),
          Shape::kBlocks,
          efficiency};
}

using Large = TileShape<128, 256, 64, 64, 3, 1>;
using Medium = TileShape<128, 128, 64, 64, 3, 2>;
using Small = TileShape<64, 64, 32, 32, 4, 4>;

template <bool kBf16, template <int> class XTile, template <int> class WTile>
std::vector<Variant> mma_variants() {
  std::vector<Variant> found = {
      mma_variant<kBf16, Medium, XTile<128>, WTile<128>>("mma_128x128", 0.95),
      mma_variant<kBf16, Small, XTile<64>, WTile<64>>("mma_64x64", 0.6),
  };
  if constexpr (XTile<64>::kAlongK && WTile<64>::kAlongK)
    found.push_back(mma_variant<kBf16, Large, XTile<128>, WTile<256>>("mma_128x256", 1));
  return found;
}

template <bool kBf16>
Variant mma_any_variant() {
  using Shape = TileShape<64, 64, 32, 32, 2, 4>;
  constexpr int kSmem = 2 * 2 * KContiguousTile<64>::kBytes;
  return {"mma_any_64x64", gemm_mma_any<kBf16, Shape>, 64, 64, kTileDepth, 2, Shape::kThreads, kSmem, 4, 1};
}

template <int M, int WarpM, int Blocks>
Variant fma_variant(const char* name, double efficiency) {
  using Shape = TileShape<M, M, WarpM, 32, 2, Blocks>;
  return {name, gemm_fma<Shape>, M, M, kFmaDepth, 2, Shape::kThreads, 2 * 2 * M * kFmaPitch * 4, Blocks, efficiency};
}

// Whether every line of the operand can be moved in 16-byte pieces along its contiguous direction.
bool lines_aligned(const GemmOperand& o, int64_t outer_stride, int64_t inner_stride) {
  const int64_t size = bits(o.dtype) / 8;
  return inner_stride == 1 && reinterpret_cast<uintptr_t>(o.data) % 16 == 0 && outer_stride * size % 16 == 0 &&
         o.batch * size % 16 == 0;
}

struct Choice {
  GemmParams params{};
  Variant variant{};
  std::string reason;
  int64_t blocks_per_sm = 0;
};

template <bool kBf16>
std::vector<Variant> half_variants(const GemmShape& s, bool gated, std::string& reason) {
  const bool x_along_k = lines_aligned(s.x, s.x.row, s.x.column), x_along_m = lines_aligned(s.x, s.x.column, s.x.row);
  const bool w_along_k = lines_aligned(s.w, s.w.row, s.w.column);
  const bool w_along_n = lines_aligned(s.w, s.w.column, s.w.row) && !(gated && s.n % 8);
  if (!(x_along_k || x_along_m) || !(w_along_k || w_along_n)) {
    reason = std::string(x_along_k || x_along_m ? "w" : "x") + " has rows that do not start at multiples of 16 bytes";
    return {mma_any_variant<kBf16>()};
  }
  reason = "rows of x and w start at multiples of 16 bytes";
  if (x_along_k)
    return w_along_k ? mma_variants<kBf16, KContiguousTile, KContiguousTile>()
                     : mma_variants<kBf16, KContiguousTile, RowContiguousTile>();
  return w_along_k ? mma_variants<kBf16, RowContiguousTile, KContiguousTile>()
                   : mma_variants<kBf16, RowContiguousTile, RowContiguousTile>();
}

// A pure function of shape, strides, alignment and device: the variant whose tiles, counted over the busiest SM, cost
// least.
Choice choose(const GemmArgs& args, const kw_device_info& device) {
  Choice choice;
  GemmParams& p = choice.params;
  p.s = resolve(args);
  p.alpha = args.alpha;
  p.beta = args.beta;
  p.activation = args.activation;
  p.gated = is_gated(args.activation);
  const GemmShape& s = p.s;
  p.wide = true;
  for (const GemmOperand* o : {&s.y, &s.c, &s.bias, &s.residual}) {
    const bool halves = p.gated && (o == &s.c || o == &s.bias);
    if (o->data) p.wide &= lines_aligned(*o, o->row, o->column) && !(halves && s.n * bits(o->dtype) / 8 % 16);
  }
  p.x_wide = lines_aligned(s.x, s.x.row, s.x.column);
  p.w_wide = lines_aligned(s.w, s.w.row, s.w.column);

  std::vector<Variant> variants;
  if (s.x.dtype == DType::f32) {
    variants = {fma_variant<128, 64, 2>("fma_128x128", 1), fma_variant<64, 32, 4>("fma_64x64", 0.7)};
    choice.reason = "f32 is computed with IEEE fma";
  } else if (s.x.dtype == DType::bf16) {
    variants = half_variants<true>(s, p.gated, choice.reason);
  } else {
    variants = half_variants<false>(s, p.gated, choice.reason);
  }

  const int64_t sms = std::max(device.sm_count, 1), columns = p.gated ? 2 * ((s.n + 7) / 8 * 8) : s.n;
  double least = 0;
  for (const Variant& v : variants) {
    constexpr int64_t kReserved = 1024;  // shared memory the system keeps per block
    const int64_t fit = (static_cast<int64_t>(device.smem_bytes) + kReserved) / (v.smem + kReserved);
    const int64_t blocks = std::min<int64_t>(v.blocks, fit);
    if (blocks < 1) continue;
    const int64_t tiles_m = (s.m + v.m - 1) / v.m, tiles_n = (columns + v.n - 1) / v.n;
    const int64_t tiles = tiles_m * tiles_n * s.batch;
    const int64_t busiest = tiles / (sms * blocks) * blocks + (tiles % (sms * blocks) + sms - 1) / sms;
    const double cost = static_cast<double>(busiest) * v.m * v.n / v.efficiency;
    if (choice.variant.kernel && cost >= least) continue;
    least = cost;
    choice.variant = v;
    choice.blocks_per_sm = blocks;
    p.tiles_m = static_cast<int>(tiles_m);
    p.tiles_n = static_cast<int>(tiles_n);
  }
  return choice;
}

class GemmCudaPlan {
 public:
  static std::string declines(const GemmArgs& args, const kw_device_info& device) {
    const GemmShape s = resolve(args);
    const auto expected = [](const std::string& what, const std::string& received, const std::string& wanted) {
      return "gemm cuda: " + what + " is " + received + ", expected " + wanted;
    };
    if (device.cc_major < 8)
      return expected("compute capability", std::to_string(device.cc_major) + "." + std::to_string(device.cc_minor),
                      "at least 8.0");
    for (const GemmOperand* o : {&s.x, &s.w, &s.c, &s.bias, &s.residual, &s.y})
      if (o->dtype != DType::f32 && o->dtype != DType::f16 && o->dtype != DType::bf16)
        return expected("a dtype", name(o->dtype), "f32, f16 or bf16");
    if (s.x.dtype != s.w.dtype)
      return expected("dtype of w", name(s.w.dtype), std::string(name(s.x.dtype)) + " as of x");
    const struct {
      const char* name;
      const GemmOperand& operand;
    } rows[] = {{"y", s.y}, {"c", s.c}, {"bias", s.bias}, {"residual", s.residual}};
    for (const auto& row : rows)
      if (row.operand.column != 1)
        return expected(std::string("the last stride of ") + row.name, std::to_string(row.operand.column), "1");
    constexpr int64_t kMost = (int64_t{1} << 31) - 1024;
    for (const auto& [name, value] : {std::pair{"m", s.m}, {"rows of w", s.rows_w}, {"k", s.k}})
      if (value >= kMost) return expected(name, std::to_string(value), "below " + std::to_string(kMost));
    const Choice choice = choose(args, device);
    if (!choice.variant.kernel)
      return expected("shared memory per block", std::to_string(device.smem_bytes) + " bytes", "at least 32 KB");
    const int64_t tiles = int64_t{choice.params.tiles_m} * choice.params.tiles_n;
    if (tiles >= int64_t{1} << 31) return expected("the number of tiles of y", std::to_string(tiles), "below 2^31");
    return "";
  }

  GemmCudaPlan(const GemmArgs& args, const kw_device_info& device) : device_(device) { rebind(args, nullptr); }

  uint64_t workspace() const { return 0; }

  void rebind(const GemmArgs& args, void*) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    Choice choice = choose(args, device_);
    if (choice.variant.kernel != choice_.variant.kernel) prepare(choice.variant.kernel, choice.variant.smem);
    choice_ = std::move(choice);
    // Beyond 16 waves of blocks, each makes several matrices of the batch.
    const int64_t tiles = int64_t{choice_.params.tiles_m} * choice_.params.tiles_n;
    const int64_t waves = 16 * choice_.blocks_per_sm * std::max(device_.sm_count, 1);
    const int64_t layers = std::clamp<int64_t>(waves / std::max<int64_t>(tiles, 1), 1, 65535);
    config_.grid = {static_cast<unsigned>(tiles), 1, static_cast<unsigned>(std::min(choice_.params.s.batch, layers))};
    config_.block = {static_cast<unsigned>(choice_.variant.threads)};
    config_.smem = static_cast<size_t>(choice_.variant.smem);
  }

  void enqueue(void* stream) {
    if (config_.grid.x == 0 || config_.grid.z == 0) return;
    config_.stream = static_cast<Stream>(stream);
    launch(config_, choice_.variant.kernel, choice_.params);
  }

  std::string explain() const {
    const Variant& v = choice_.variant;
    const GemmParams& p = choice_.params;
    const auto text = [](int64_t value) { return std::to_string(value); };
    return std::string("{\"variant\":\"") + v.name + "\",\"reason\":\"" + choice_.reason + "\",\"tile\":[" + text(v.m) +
           "," + text(v.n) + "," + text(v.k) + "],\"stages\":" + text(v.stages) + ",\"threads\":" + text(v.threads) +
           ",\"smemBytes\":" + text(v.smem) + ",\"blocksPerSm\":" + text(choice_.blocks_per_sm) + ",\"tiles\":[" +
           text(p.tiles_m) + "," + text(p.tiles_n) + "," + text(p.s.batch) +
           "],\"wideEpilogue\":" + (p.wide ? "true" : "false") + "}";
  }

 private:
  kw_device_info device_;
  Choice choice_;
  LaunchConfig config_;
};

}  // namespace gemm_cuda

KW_REGISTER_OP(GemmArgs, gemm_cuda::GemmCudaPlan, gemm)

}  // namespace kw
