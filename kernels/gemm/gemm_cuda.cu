// gemm on CUDA, compute capability 8.0 and up.
//
// Work: a block makes one tile of y, over all of k or one of at most 32 parts of it. Blocks walk y in groups of 8 tile rows:
// neighbours in time share tiles in L2. The batch is grid.z, with a loop beyond 16 waves; parts of k are grid.y.
//   gemm_mma      bf16, f16; rows of x and w at multiples of 16 bytes. cp.async ring, XOR swizzle, ldmatrix (.trans for a
//                 transposed operand), m16n8k16, fragments double-buffered.
//   gemm_mma_any  bf16, f16; any strides and alignment: 2-byte loads, held in registers while the tile before is multiplied.
//   gemm_fma      f32; any strides: IEEE fma, cp.async of 16 or 4 bytes. No TF32.
//   gemm_sm90     bf16, f16 on compute capability 9.0: gemm_sm90.cu. Not with batch_invariant: wgmma may round unlike mma.sync.
//   gemm_reduce   the second kernel of a product in parts: adds them in their order and finishes y.
// Tiles, stages and threads stand in gemm_choose.h (kConfigs), which also chooses: by predicted time, from the problem's
// shape, alignment and the device's limits alone. Few rows (decoding) take mma_16x64: w streams through rings that keep
// 60 KB (Ada) to 100 KB (A100, Hopper) in flight per multiprocessor, and parts of k give every multiprocessor some.
//
// Same operands, same bits: a sum adds k in steps of 16 (f32: 1) in ascending order within a part, then parts in ascending
// order; nothing is atomic. How many parts there are depends on m, so batch_invariant takes one, and then a row's bits
// depend on k alone: all configurations for a pair of dtypes add alike. Its price is that few rows leave multiprocessors idle.
//
// Sums go through shared memory 16 rows at a time, so that c, residual and y move in 16-byte pieces; where those are not
// aligned, element by element with the same arithmetic. A gated weight's gate and up rows interleave in blocks of 8 within
// a tile (TileRows), so one block holds both halves of every output.
//
// Limits: m, rows of w and k below 2^31 - 1024; tiles of y below 2^31. A plan of one of configurations() takes that one; bound
// to another problem later it chooses again. KERNWATT_GEMM=NAME or NAME/PARTS, for experiments, allows one alone.
//
// Prediction, not measured: bytes b_x m k + b_w r k + b_y m n (+ c, residual), FLOPs 2 m r k, r = rows of w. At 4096^3
// bf16, 1365 FLOP/byte: compute-bound; mma.sync reaches 70-80 % of an A100's 312 TFLOP/s and 45-55 % of an H200's 989.
// At m up to 16, 1 FLOP/byte a row: memory-bound, 34 MB of w at 4096 x 4096 are 7 us of an H200's 4.8 TB/s and some 5 us of
// ramps and second kernel come on top; 72 % of bandwidth from 128 MB of w on. plan.explain() gives each problem's figures.
// f32 fma: 75-85 % of 19.5 (A100) and 67 TFLOP/s (H200).
#include <cstdlib>
#include <memory>
#include <sstream>

#include "../core/cuda/registry.h"
#include "../core/cuda/sm90.h"
#include "gemm_decision.h"
#include "gemm_fma.cuh"
#include "gemm_plan.cuh"
#include "gemm_variants.cuh"

namespace kw {
namespace gemm_cuda {

template <size_t I>
constexpr Kernel fma_kernel() {
  constexpr GemmConfig c = kConfigs[I];
  if constexpr (c.family == Family::fma) {
    static_assert(c.k == kFmaDepth && c.pitch == kFmaPitch && ShapeOf<I>::kThreads == c.threads());
    return gemm_fma<ShapeOf<I>>;
  } else {
    return nullptr;
  }
}

Kernel kernel_of(const GemmConfig& config, DType dtype, Access access) {
  if (dtype == DType::bf16) return bf16_kernel(config, access);
  if (dtype == DType::f16) return f16_kernel(config, access);
  static constexpr auto kAt = []<size_t... I>(std::index_sequence<I...>) { return std::array{fma_kernel<I>()...}; }
  (std::make_index_sequence<std::size(kConfigs)>());
  return kAt[static_cast<size_t>(&config - kConfigs)];
}

// ---- problems --------------------------------------------------------------------------------------------------------

// What the kernels need to know of a problem beside its configuration, and what the choice needs; reason says why access is
// what it is.
struct Resolved {
  GemmParams params{};
  GemmProblem problem;
  const char* reason = "";
  std::string sm90_reason;  // why no kernel for compute capability 9.0 can run; empty when some can
};

Resolved resolve_problem(const GemmArgs& args, const kw_device_info& device) {
  Resolved r;
  GemmParams& p = r.params;
  p.s = resolve(args);
  if (const GemmShape folded = fold_batch(p.s); folded.m < kMostRows) p.s = folded;  // w is read once for all
  p.alpha = args.alpha;
  p.beta = args.beta;
  p.activation = args.activation;
  p.gated = is_gated(args.activation);
  const GemmShape& s = p.s;
  GemmProblem& q = r.problem;
  q.epilogue_bytes = resolve_epilogue(p);
  p.x_wide = lines_aligned(s.x, s.x.row, s.x.column);
  p.w_wide = lines_aligned(s.w, s.w.row, s.w.column);

  q.batch = s.batch, q.m = s.m, q.k = s.k;
  q.columns = p.gated ? 2 * divided(s.n, 8) * 8 : s.n;
  q.element = bits(s.x.dtype) / 8;
  q.invariant = args.batch_invariant;
  q.gated = p.gated;
  r.sm90_reason = sm90_unavailable(device);
  if (r.sm90_reason.empty()) r.sm90_reason = sm90_declines(s);
  if (r.sm90_reason.empty() && q.invariant) r.sm90_reason = "batch_invariant: they may round unlike the others";
  q.sm90 = r.sm90_reason.empty();
  q.w_shared = s.batch == 1 || s.w.batch == 0;
  if (s.x.dtype == DType::f32) {
    r.reason = "f32 is computed with IEEE fma";
    return r;
  }
  const bool x_along_m = lines_aligned(s.x, s.x.column, s.x.row);
  const bool w_along_n = lines_aligned(s.w, s.w.column, s.w.row) && !(p.gated && s.n % 8);
  if (!(p.x_wide || x_along_m)) {
    r.reason = "x has rows that do not start at multiples of 16 bytes";
  } else if (!(p.w_wide || w_along_n)) {
    r.reason = "w has rows that do not start at multiples of 16 bytes";
  } else {
    r.reason = "rows of x and w start at multiples of 16 bytes";
    q.access = p.x_wide ? (p.w_wide ? Access::k_k : Access::k_rows) : (p.w_wide ? Access::rows_k : Access::rows_rows);
  }
  return r;
}

constexpr Chooser kChooser{"gemm cuda", "KERNWATT_GEMM", "kernels/gemm/gemm_choose.h", "40 KB", {}};

class GemmCudaPlan {
 public:
  static std::string declines(const GemmArgs& args, const kw_device_info& device) {
    const std::string reason = refuses(args, device);
    if (!reason.empty()) return reason;
    return kChooser.declines(resolve_problem(args, device).problem, device);
  }

  static std::vector<std::string> configurations(const GemmArgs& args, const kw_device_info& device) {
    return kChooser.configurations(resolve_problem(args, device).problem, device);
  }

  GemmCudaPlan(const GemmArgs& args, const kw_device_info& device, const std::string& configuration = "")
      : device_(device), decision_(kChooser, device, resolve_problem(args, device).problem, configuration) {
    choose_and_prepare(args, INT64_MAX);
    bytes_ = decision_.partial_bytes();
  }

  uint64_t workspace() const { return static_cast<uint64_t>(bytes_); }

  void rebind(const GemmArgs& args, void* workspace) {
    choose_and_prepare(args, bytes_);
    resolved_.params.partial = decision_.choice().partial_bytes ? static_cast<float*>(workspace) : nullptr;
  }

  void enqueue(void* stream) {
    if (decision_.choice().config->sm90) return sm90_.enqueue(stream);
    if (config_.grid.x == 0 || config_.grid.z == 0) return;
    config_.stream = static_cast<Stream>(stream);
    launch(config_, kernel_, resolved_.params);
    if (decision_.choice().splits > 1) launch_reduce(resolved_.params, config_.stream);
  }

  std::string explain() const {
    const GemmChoice& choice = decision_.choice();
    const GemmConfig& c = *choice.config;
    std::ostringstream json;
    json.precision(3);
    json << R"({"variant":")" << c.name << R"(","configuration":")" << name_of(c, choice.splits) << R"(","reason":")"
         << resolved_.reason << decision_.reason(resolved_.sm90_reason) << R"(",)";
    explain_choice(json, choice, resolved_.params, device_);
    json << '}';
    return json.str();
  }

 private:
  static std::string expected(const std::string& what, const std::string& received, const std::string& wanted) {
    return kChooser.expected(what, received, wanted);
  }

  // What no configuration takes.
  static std::string refuses(const GemmArgs& args, const kw_device_info& device) {
    const GemmShape s = resolve(args);
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
    for (const auto& [name, value] : {std::pair{"m", s.m}, {"rows of w", s.rows_w}, {"k", s.k}})
      if (value >= kMostRows) return expected(name, std::to_string(value), "below " + std::to_string(kMostRows));
    return "";
  }

  void choose_and_prepare(const GemmArgs& args, int64_t most_bytes) {
    const std::string wrong = refuses(args, device_);
    if (!wrong.empty()) throw Error(Code::UNSUPPORTED, wrong);
    resolved_ = resolve_problem(args, device_);
    GemmParams& p = resolved_.params;
    decision_.decide(resolved_.problem, most_bytes);
    const GemmChoice& choice = decision_.choice();
    const GemmConfig& c = *choice.config;
    if (c.sm90) return sm90_.bind(*c.sm90, choice.splits, p, device_);
    const Kernel kernel = kernel_of(c, p.s.x.dtype, resolved_.problem.access);
    if (kernel != kernel_) prepare(kernel, static_cast<size_t>(c.smem()));
    if (choice.splits > 1 && !reduce_prepared_) prepare(gemm_reduce, 0), reduce_prepared_ = true;
    kernel_ = kernel;
    config_.grid = grid_of(p, choice, device_);
    config_.block = {static_cast<unsigned>(c.threads())};
    config_.smem = static_cast<size_t>(c.smem());
  }

  kw_device_info device_;
  Resolved resolved_;
  GemmDecision decision_;
  Kernel kernel_ = nullptr;
  Sm90Launch sm90_;
  bool reduce_prepared_ = false;
  int64_t bytes_ = 0;  // of workspace
  LaunchConfig config_;
};

}  // namespace gemm_cuda

KW_REGISTER_OP(GemmArgs, gemm_cuda::GemmCudaPlan, gemm)

}  // namespace kw
