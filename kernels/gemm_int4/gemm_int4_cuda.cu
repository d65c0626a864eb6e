// gemm_int4 on CUDA, compute capability 8.0 and up.
//
// mode fused:
//   gather_columns  with perm: x in the order of w's columns, into workspace; values outside [0, k) are clamped and raise INDEX
//   gemm_int4_mma   cp.async ring of w as it is stored, x, scales and zeros; ldmatrix, q - zero made in registers, m16n8k16
//   gemm_int4_sm90  on compute capability 9.0: gemm_int4_sm90.cu. Not with batch_invariant: it rounds unlike the others
//   gemm_reduce     gemm's second kernel of a product in parts of k: adds them in their order
// mode dequant: dequantise writes weights of x's dtype into workspace, and gemm multiplies as it does (../gemm/gemm_cuda.cu).
//
// Work: tiles of y, parts of k, order of blocks and epilogue are gemm's. A row of w is a multiple of 16 bytes, so that it
// is copied in whole pieces whatever k is; rows of x that do not begin at multiples of 16 bytes, scales and zeros that do not
// begin at multiples of 4, go through registers in smaller pieces.
//
// Arithmetic: mma multiplies exact small integers q - zero with x; the f32 sum of a group (or of what a part of k holds of it)
// is scaled in f32 and added to the total. No weight is ever rounded: more exact than scales on bf16 weights, and it costs one
// fma for group / 8 of mma's sums. Same operands, same bits: k ascends in steps of 32, then groups, then parts. batch_invariant
// takes one part, and then a row's bits depend on k and group alone: all configurations add alike.
//
// Declined, with the reason: x of f32 (tensor cores have no such product), accuracy int8 (only the CPU backend has it), nf4
// unless mode is dequant (sixteen reals fit no exact 16-bit product).
//
// Limits: as gemm; w begins at a multiple of 16 bytes. KERNWATT_GEMM_INT4=NAME or NAME/PARTS allows one configuration of
// gemm_int4_choose.h alone, for experiments.
//
// Prediction, not measured: bytes r k / 2 (1 + 2 b_s / group) + b_x m k + b_y m n, r = rows of w, b_s bytes of a scale; FLOPs
// 2 m r k. Instructions of a warp for 256 weights: 11 to dequantise (3 shifts, 4 lop3, 4 subtractions), 1/4 ldmatrix, and for every 8
// tokens one mma, 1/4 of a 16-byte load and one permutation: 13.5 up to 8 tokens, 16 up to 16. Few tokens are bound by
// them more than by memory: at 8192 x 8192, 34 MB of w, 7 us of an H200's 4.8 TB/s, the model expects 17 us at m = 1 and 21 at
// m = 16, beside 36 of bf16 weights. Above 64 tokens mma and dequantisation share the slots, 4.2 for each mma of the 8 (A100) or
// 6.5 (H200) clocks that one takes, half of mma.sync's rate is reached, and mode dequant is expected to be faster from 65 tokens on.
#include <cstdlib>
#include <optional>
#include <sstream>

#include "../core/cuda/registry.h"
#include "../core/cuda/sm90.h"
#include "../gemm/gemm_decision.h"
#include "../gemm/gemm_plan.cuh"
#include "gemm_int4_prepare.cuh"
#include "gemm_int4_shape.h"
#include "gemm_int4_variants.cuh"

namespace kw {
namespace gemm_int4_cuda {

const char* const kPermName = "gemm_int4: perm";

constexpr gemm_cuda::Chooser kChooser{"gemm_int4 cuda", "KERNWATT_GEMM_INT4", "kernels/gemm_int4/gemm_int4_choose.h",
                                      "58 KB", kInt4Choices};

std::string expected(const std::string& what, const std::string& received, const std::string& wanted) {
  return kChooser.expected(what, received, wanted);
}

int64_t rounded_up(int64_t bytes) { return gemm_cuda::divided(bytes, 256) * 256; }

// Another operator of this library as a part of a plan.
class InnerPlan {
 public:
  // configuration: one of its configurations(), or empty.
  template <class Args>
  InnerPlan(std::string_view name, const kw_device_info& device, const Args& args, const std::string& configuration)
      : op_(op(name)) {
    must(configuration.empty() ? op_.plan_create(&device, &args, &plan_)
                               : op_.plan_create_as(&device, &args, configuration.c_str(), &plan_));
  }
  InnerPlan(const InnerPlan&) = delete;
  InnerPlan& operator=(const InnerPlan&) = delete;
  ~InnerPlan() { op_.plan_destroy(plan_); }
  static const kw_op& op(std::string_view name) {
    for (const kw_op* o : registered_ops())
      if (name == o->name) return *o;
    throw Error(Code::INTERNAL, "the library has no " + std::string(name));
  }
  // Empty: it takes these arguments.
  template <class Args>
  static std::string declines(std::string_view name, const kw_device_info& device, const Args& args) {
    return op(name).supports(&device, &args) ? last_error() : "";
  }
  template <class Args>
  static std::vector<std::string> configurations(std::string_view name, const kw_device_info& device,
                                                 const Args& args) {
    const char* lines = nullptr;
    must(op(name).configurations(&device, &args, &lines));
    std::vector<std::string> names;
    std::istringstream text{std::string(lines)};
    for (std::string line; std::getline(text, line);) names.push_back(line);
    return names;
  }
  uint64_t workspace() const { return op_.plan_workspace(plan_); }
  template <class Args>
  void rebind(const Args& args, void* workspace) {
    must(op_.plan_rebind(plan_, &args, workspace));
  }
  void enqueue(void* stream) { must(op_.plan_enqueue(plan_, stream)); }
  std::string explain() const { return op_.plan_explain(plan_); }
  // The one that it takes, as explain() has it.
  std::string configuration() const {
    const std::string all = explain(), key = R"("configuration":")";
    const size_t from = all.find(key) + key.size();
    return all.substr(from, all.find('"', from) - from);
  }

 private:
  static void must(int32_t status) {
    if (status) throw Error(static_cast<Code>(status), last_error());
  }
  const kw_op& op_;
  kw_plan* plan_ = nullptr;
};

GemmOperand gathered_x(const GemmShape& s) {
  GemmOperand x;
  x.dtype = s.x.dtype;
  x.row = s.k, x.batch = s.m * s.k;
  return x;
}

struct Resolved {
  Int4Params params{};
  GemmProblem problem;
  GemmInt4Shape shape;      // folded as params are
  std::string sm90_reason;  // why no kernel for compute capability 9.0 can run; empty when some can
};

Resolved resolve_problem(const GemmInt4Args& args, const kw_device_info& device) {
  Resolved r;
  Int4Params& q = r.params;
  GemmParams& p = q.p;
  const GemmInt4Shape shape = resolve(args);
  p.s = shape.gemm;
  if (shape.perm) p.s.x = gathered_x(p.s);
  if (const GemmShape folded = fold_batch(p.s); folded.m < kMostRows) p.s = folded;  // w is read once for all
  p.alpha = 1;
  p.activation = args.activation;
  p.gated = is_gated(args.activation);
  p.x_wide = lines_aligned(p.s.x, p.s.x.row, p.s.x.column);
  p.w_wide = true;
  q.scales = shape.scales;
  q.zeros = static_cast<const uint8_t*>(shape.zeros);
  q.group = static_cast<int>(shape.group);
  const auto at = [](const void* data, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(data) % bytes == 0; };
  const bool halves = p.gated && p.s.n % 2, eighths = p.gated && p.s.n % 8;
  q.scales_wide = at(q.scales.data, 4) && (q.scales.dtype == DType::f32 || !(q.scales.row % 2 || halves));
  q.zeros_wide = at(q.zeros, 4) && !(p.s.rows_w % 8 || eighths);

  GemmProblem& g = r.problem;
  g.configs = kInt4Choices;
  g.epilogue_bytes = resolve_epilogue(p);
  g.batch = p.s.batch, g.m = p.s.m, g.k = p.s.k;
  g.columns = p.gated ? 2 * divided(p.s.n, 8) * 8 : p.s.n;
  g.access = Access::k_k;
  g.invariant = args.batch_invariant;
  g.gated = p.gated;
  g.w_shared = true;
  r.shape = shape, r.shape.gemm = p.s;
  r.sm90_reason = sm90_unavailable(device);
  if (r.sm90_reason.empty()) r.sm90_reason = sm90_int4_declines(r.shape);
  if (r.sm90_reason.empty() && g.invariant) r.sm90_reason = "batch_invariant: they round unlike the others";
  g.sm90 = r.sm90_reason.empty();
  g.w_element = weight_bytes(shape.group, bits(q.scales.dtype) / 8, q.zeros != nullptr);
  return r;
}

// mode dequant: gemm's arguments, with weights and gathered x where the caller says. Before there is a workspace, w stands for
// both: as well aligned, and not read.
GemmArgs dense_args(const GemmInt4Args& args, void* weights, void* gathered) {
  GemmArgs dense;
  const GemmShape s = resolve(args).gemm;
  static_cast<TensorView&>(dense.x) = args.x;
  if (args.perm.present()) {
    TensorView& x = dense.x;
    x.data = gathered;
    x.stride[x.rank - 1] = 1, x.stride[x.rank - 2] = s.k;
    if (x.rank > 2) x.stride[x.rank - 3] = s.m * s.k;
  }
  TensorView& w = dense.w;
  w.data = weights;
  w.dtype = args.x.dtype;
  w.rank = 2, w.shape[0] = s.rows_w, w.shape[1] = s.k, w.stride[0] = s.k, w.stride[1] = 1;
  dense.bias = args.bias, dense.residual = args.residual, dense.y = args.y;
  dense.activation = args.activation;
  dense.batch_invariant = args.batch_invariant;
  return dense;
}

class GemmInt4CudaPlan {
 public:
  static std::string declines(const GemmInt4Args& args, const kw_device_info& device) {
    const std::string reason = refuses(args, device);
    if (!reason.empty()) return reason;
    if (args.mode == Int4Mode::dequant)
      return InnerPlan::declines("gemm", device, dense_args(args, args.w.data, args.w.data));
    return kChooser.declines(resolve_problem(args, device).problem, device);
  }

  // In mode dequant gemm's.
  static std::vector<std::string> configurations(const GemmInt4Args& args, const kw_device_info& device) {
    if (args.mode == Int4Mode::dequant)
      return InnerPlan::configurations("gemm", device, dense_args(args, args.w.data, args.w.data));
    return kChooser.configurations(resolve_problem(args, device).problem, device);
  }

  GemmInt4CudaPlan(const GemmInt4Args& args, const kw_device_info& device, const std::string& configuration = "")
      : device_(device),
        decision_(kChooser, device, resolve_problem(args, device).problem,
                  args.mode == Int4Mode::fused ? configuration : "") {
    const GemmShape s = resolve(args).gemm;
    if (args.perm.present()) gathered_bytes_ = rounded_up(s.batch * s.m * s.k * 2);
    if (args.mode == Int4Mode::dequant) {
      refuse(args);
      dense_.emplace("gemm", device_, dense_args(args, args.w.data, args.w.data), configuration);
      weight_bytes_ = rounded_up(s.rows_w * s.k * 2);
      bytes_ = static_cast<int64_t>(dense_->workspace());
      prepare(dequantise, 0);
    } else {
      choose_and_prepare(args, INT64_MAX);
      bytes_ = decision_.partial_bytes();
    }
    if (gathered_bytes_) prepare(gather_columns, 0);
  }

  uint64_t workspace() const { return static_cast<uint64_t>(gathered_bytes_ + weight_bytes_ + bytes_); }

  void rebind(const GemmInt4Args& args, void* workspace) {
    auto* gathered = static_cast<char*>(workspace);
    char* weights = gathered + gathered_bytes_;
    void* rest = weights + weight_bytes_;
    const GemmInt4Shape shape = resolve(args);
    gather_ = {.x = shape.gemm.x,
               .perm = static_cast<const int32_t*>(shape.perm),
               .to = reinterpret_cast<uint32_t*>(gathered),
               .batch = shape.gemm.batch,
               .m = shape.gemm.m,
               .k = static_cast<int>(shape.gemm.k),
               .status = nullptr,
               .what = &kPermName};
    if (dense_) {
      refuse(args);
      dequant_ = {.w = static_cast<const uint32_t*>(shape.gemm.w.data),
                  .scales = shape.scales,
                  .zeros = static_cast<const uint8_t*>(shape.zeros),
                  .to = weights,
                  .dtype = shape.gemm.x.dtype,
                  .rows = shape.gemm.rows_w,
                  .k = static_cast<int>(shape.gemm.k),
                  .group = static_cast<int>(shape.group),
                  .normal_float = shape.normal_float,
                  .values = {}};
      std::copy_n(kNormalFloat4, 16, dequant_.values);
      dense_->rebind(dense_args(args, weights, gathered), rest);
      return;
    }
    choose_and_prepare(args, bytes_);
    const GemmChoice& choice = decision_.choice();
    GemmParams& p = resolved_.params.p;
    if (shape.perm) p.s.x.data = resolved_.shape.gemm.x.data = gathered;
    if (choice.config->sm90) return sm90_.bind(*choice.config->sm90, choice.splits, resolved_.shape, p, device_);
    p.partial = choice.partial_bytes ? static_cast<float*>(rest) : nullptr;
  }

  void enqueue(void* stream) {
    const auto at = static_cast<Stream>(stream);
    const int64_t tokens = gather_.batch * gather_.m;
    if (gather_.perm && tokens > 0 && gather_.k > 0) {
      gather_.status = status_of(stream);
      launch({.grid = columns_by_rows(gather_.k / 2, tokens), .block = {kPrepareThreads}, .stream = at}, gather_columns,
             gather_);
    }
    if (dense_) {
      if (tokens > 0 && dequant_.rows > 0 && dequant_.k > 0)
        launch({.grid = columns_by_rows(dequant_.k / 8, dequant_.rows), .block = {kPrepareThreads}, .stream = at},
               dequantise, dequant_);
      dense_->enqueue(stream);
      return;
    }
    if (decision_.choice().config->sm90) return sm90_.enqueue(stream);
    if (config_.grid.x == 0 || config_.grid.z == 0) return;
    config_.stream = at;
    launch(config_, kernel_, resolved_.params);
    if (decision_.choice().splits > 1) launch_reduce(resolved_.params.p, at);
  }

  std::string explain() const {
    std::ostringstream json;
    json.precision(3);
    const char* gathers = gathered_bytes_ ? R"(,"gathered":true)" : R"(,"gathered":false)";
    if (dense_) {
      json
          << R"({"variant":"dequant","configuration":")" << dense_->configuration()
          << R"(","reason":"mode is dequant: weights of x's dtype are written to workspace, and gemm multiplies","weightBytes":)"
          << weight_bytes_ << gathers << R"(,"gemm":)" << dense_->explain() << '}';
      return json.str();
    }
    const Int4Params& q = resolved_.params;
    const GemmChoice& choice = decision_.choice();
    json << R"({"variant":")" << choice.config->name << R"(","configuration":")"
         << name_of(*choice.config, choice.splits) << R"(","reason":")"
         << (q.p.x_wide ? "rows of x start at multiples of 16 bytes"
                        : "x has rows that do not start at multiples of 16 bytes: slower copies")
         << decision_.reason(resolved_.sm90_reason) << R"(",)";
    explain_choice(json, choice, q.p, device_);
    json << R"(,"group":)" << q.group << R"(,"wideX":)" << (q.p.x_wide ? "true" : "false") << gathers << '}';
    return json.str();
  }

 private:
  static Dim columns_by_rows(int64_t columns, int64_t rows) {
    return {static_cast<unsigned>(divided(columns, kPrepareThreads)),
            static_cast<unsigned>(std::min<int64_t>(rows, 65535))};
  }

  static std::string refuses(const GemmInt4Args& args, const kw_device_info& device) {
    const GemmInt4Shape shape = resolve(args);
    const GemmShape& s = shape.gemm;
    const auto text = [](int64_t value) { return std::to_string(value); };
    if (device.cc_major < 8)
      return expected("compute capability", text(device.cc_major) + "." + text(device.cc_minor), "at least 8.0");
    if (s.x.dtype != DType::bf16 && s.x.dtype != DType::f16)
      return expected("dtype of x", name(s.x.dtype), "bf16 or f16: tensor cores multiply nothing wider");
    if (args.accuracy == Int4Accuracy::int8)
      return expected("accuracy", "int8", "exact: rounding x to int8 is for the CPU");
    if (s.w.format != 0) return expected("w", "packed for another backend", "plain");
    if (args.w.dtype != DType::u4 && args.w.dtype != DType::nf4)
      return expected("dtype of w", name(args.w.dtype), "u4 or nf4");
    if (shape.normal_float && args.mode == Int4Mode::fused)
      return expected("dtype of w", "nf4",
                      "u4, or mode dequant: its values are no integers that mma multiplies exactly");
    if (shape.normal_float && shape.zeros) return expected("zeros", "given", "none with nf4");
    for (const GemmOperand* o : {&shape.scales, &s.bias, &s.residual, &s.y})
      if (!is_float(o->dtype)) return expected("a dtype", name(o->dtype), "f32, f16 or bf16");
    const struct {
      const char* name;
      const GemmOperand& operand;
    } rows[] = {{"x", s.x}, {"scales", shape.scales}, {"y", s.y}, {"bias", s.bias}, {"residual", s.residual}};
    for (const auto& row : rows)
      if (row.operand.column != 1)
        return expected(std::string("the last stride of ") + row.name, text(row.operand.column), "1");
    for (const auto& [name, value] : {std::pair{"m", s.m}, {"rows of w", s.rows_w}, {"k", s.k}})
      if (value >= kMostRows) return expected(name, text(value), "below " + text(kMostRows));
    if (s.k > 0 && (shape.group < 32 || shape.group % 32 || shape.group * shape.groups != s.k))
      return expected("k / groups", text(s.k) + " / " + text(shape.groups), "a multiple of 32");
    if (reinterpret_cast<uintptr_t>(s.w.data) % 16)
      return expected(
          "the address of w",
          "a multiple of " + text(reinterpret_cast<uintptr_t>(s.w.data) & -reinterpret_cast<uintptr_t>(s.w.data)),
          "a multiple of 16");
    return "";
  }

  void refuse(const GemmInt4Args& args) const {
    const std::string wrong = refuses(args, device_);
    if (!wrong.empty()) throw Error(Code::UNSUPPORTED, wrong);
  }

  void choose_and_prepare(const GemmInt4Args& args, int64_t most_bytes) {
    refuse(args);
    resolved_ = resolve_problem(args, device_);
    decision_.decide(resolved_.problem, most_bytes);
    const GemmChoice& choice = decision_.choice();
    const GemmConfig& c = *choice.config;
    if (c.sm90) return;  // bound with its pointers
    const Kernel kernel = resolved_.params.p.s.x.dtype == DType::bf16 ? bf16_kernel(c) : f16_kernel(c);
    if (kernel != kernel_) prepare(kernel, static_cast<size_t>(c.smem()));
    if (choice.splits > 1 && !reduce_prepared_) prepare(gemm_reduce, 0), reduce_prepared_ = true;
    kernel_ = kernel;
    config_.grid = grid_of(resolved_.params.p, choice, device_);
    config_.block = {static_cast<unsigned>(c.threads())};
    config_.smem = static_cast<size_t>(c.smem());
  }

  kw_device_info device_;
  Resolved resolved_;
  gemm_cuda::GemmDecision decision_;
  Kernel kernel_ = nullptr;
  Sm90Int4Launch sm90_;
  LaunchConfig config_;
  bool reduce_prepared_ = false;
  GatherParams gather_{};
  DequantParams dequant_{};
  std::optional<InnerPlan> dense_;  // mode dequant
  // Of workspace, in this order: gathered x, weights of mode dequant, what the product needs.
  int64_t gathered_bytes_ = 0, weight_bytes_ = 0, bytes_ = 0;
};

}  // namespace gemm_int4_cuda

KW_REGISTER_OP(GemmInt4Args, gemm_int4_cuda::GemmInt4CudaPlan, gemm_int4)

}  // namespace kw
