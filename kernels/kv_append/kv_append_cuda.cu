// kv_append on CUDA, any compute capability from 8.0.
//
// Work: a thread makes a piece of one head of a token, or of eight heads where tokens are many: eight columns of v, or eight pairs or
// columns of k, by accesses of 16 bytes where every row begins on 16 bytes and its parts are whole pieces; else one. Lengths and tables
// are read where they are used, so that the grid depends on shapes alone and graphs can be captured. Values out of range raise INDEX.
//
// Limits: 512 columns that turn, fewer than 2^31 elements of k and of v. Needs no shared memory.
//
// Prediction, not measured: k and v read and written once: a decode step is launch latency (2-3 us), a prompt of 4096 tokens with 8
// heads of 128 (32 MB of bf16 in all) runs at 70 % of bandwidth.
#include "../core/cuda/registry.h"
#include "../core/cuda/status.cuh"
#include "../rope/rope.cuh"
#include "kv_append.h"

namespace kw {
namespace kv_append_cuda {

constexpr int kThreads = 128;
// From so many heads of tokens on, a thread makes eight: the device is full without.
constexpr int64_t kManyHeads = 1 << 14;

struct Side {
  const void* from;
  void* cache;
  const float* scale;  // may be null
  int64_t batch, row, head, page, slot, cache_head, scale_head;
};

struct Params {
  RopeAnglesCuda angles;  // of k; v has no pairs
  Side k, v;
  DType dtype, cache_dtype;
  const int32_t *page_table, *lens_kv, *lens_q;  // lens_q may be null
  int64_t table_batch, table_entry, lens_kv_batch, lens_q_batch;
  StreamStatus* status;
  const char* const* names;
  unsigned total, pieces_k, pieces, groups, heads_each, heads;
  int rows, pages, page_size, entries;
};

enum Name { kLensQ, kLensKv, kPageTable };
const char* const kNames[] = {"kv_append: lens_q", "kv_append: lens_kv", "kv_append: page_table"};

template <int kV>
__global__ void __launch_bounds__(kThreads, 4) append_rows(const __grid_constant__ Params p) {
  const unsigned item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= p.total) return;
  const int piece = static_cast<int>(item % p.pieces);
  const unsigned group = item / p.pieces % p.groups, token = item / p.pieces / p.groups;
  const int b = static_cast<int>(token / p.rows), i = static_cast<int>(token % p.rows);
  const bool speaks = piece == 0 && group == 0;  // of the threads of a token
  const int given = p.lens_q ? p.lens_q[b * p.lens_q_batch] : p.rows, tokens = p.lens_kv[b * p.lens_kv_batch];
  const int64_t capacity = int64_t{p.entries} * p.page_size;
  if (given < 0 || given > p.rows) {
    if (speaks && i == 0) report_index(p.status, p.names + kLensQ, b, given, 0, p.rows);
    return;
  }
  if (tokens < 0 || tokens > capacity) {
    if (speaks && i == 0) report_index(p.status, p.names + kLensKv, b, tokens, 0, capacity);
    return;
  }
  const int t = i + tokens - given;
  if (i >= given || t < 0) return;
  const int entry = t / p.page_size, slot = t % p.page_size;
  const int page = p.page_table[b * p.table_batch + entry * p.table_entry];
  if (page < 0 || page >= p.pages) {
    if (speaks) report_index(p.status, p.names + kPageTable, b * p.entries + entry, page, 0, p.pages - 1, p.entries);
    return;
  }
  const bool is_k = piece < static_cast<int>(p.pieces_k);
  const Side& side = is_k ? p.k : p.v;
  float cos[kV], sin[kV];
  if (is_k) rope_piece_angles(p.angles, t, piece, cos, sin);
  const int64_t from = b * side.batch + i * side.row, to = page * side.page + slot * side.slot;
  const unsigned end = min(p.heads, (group + 1) * p.heads_each);
  for (unsigned h = group * p.heads_each; h < end; ++h) {
    const float divisor = side.scale ? side.scale[h * side.scale_head] : 1.0f;
    const int64_t source = from + h * side.head, target = to + h * side.cache_head;
    if (is_k) {
      rope_piece(p.angles, piece, cos, sin, side.from, p.dtype, source, side.cache, p.cache_dtype, target, divisor);
    } else {
      float v[kV];
      const int column = (piece - static_cast<int>(p.pieces_k)) * kV;
      load_piece(v, side.from, p.dtype, source + column);
      store_piece(side.cache, p.cache_dtype, target + column, v, divisor);
    }
  }
}

// Dimensions that hold at most one element have no stride.
int64_t stride(const TensorView& t, int dimension) { return t.dim(dimension) > 1 ? t.step(dimension) : 0; }

Side side_of(const TensorView& from, const TensorView& cache, const TensorView& scale) {
  return {.from = from.data,
          .cache = cache.data,
          .scale = scale.present() ? static_cast<const float*>(scale.data) : nullptr,
          .batch = stride(from, 0),
          .row = stride(from, 1),
          .head = stride(from, 2),
          .page = stride(cache, 0),
          .slot = stride(cache, 1),
          .cache_head = stride(cache, 2),
          .scale_head = scale.present() ? stride(scale, 0) : 0};
}

class KvAppendCudaPlan {
 public:
  static std::string declines(const KvAppendArgs& args, const kw_device_info& device) {
    const auto expected = [](const std::string& what, const std::string& received, const std::string& wanted) {
      return "kv_append cuda: " + what + " is " + received + ", expected " + wanted;
    };
    if (device.cc_major < 8)
      return expected("compute capability", std::to_string(device.cc_major) + "." + std::to_string(device.cc_minor),
                      "at least 8.0");
    const struct {
      const char* name;
      const TensorView& view;
      bool f8;
    } tensors[] = {
        {"k", args.k, false}, {"v", args.v, false}, {"k_cache", args.k_cache, true}, {"v_cache", args.v_cache, true}};
    for (const auto& [name, t, f8] : tensors) {
      const bool is = t.dtype == DType::f32 || t.dtype == DType::f16 || t.dtype == DType::bf16;
      if (!is && !(f8 && t.dtype == DType::f8e4m3))
        return expected(std::string("dtype of ") + name, kw::name(t.dtype),
                        f8 ? "f32, f16, bf16 or f8e4m3" : "f32, f16 or bf16");
      if (t.dim(-1) > 1 && t.step(-1) != 1)
        return expected(std::string("the last stride of ") + name, std::to_string(t.step(-1)), "1");
    }
    const int64_t rotary = args.rope ? rotary_columns(args, args.k.dim(3)) : 0;
    if (rotary > 2 * kRopePairs) return expected("dim_rotary", std::to_string(rotary), "at most 512");
    for (const auto& [what, value] : {std::pair{"elements of k and v", args.k.count() + args.v.count()},
                                      {"pages", args.k_cache.dim(0)},
                                      {"page_size", args.k_cache.dim(1)},
                                      {"entries of page_table", args.page_table.count()}})
      if (value >= int64_t{1} << 31) return expected(what, std::to_string(value), "below 2^31");
    return "";
  }

  KvAppendCudaPlan(const KvAppendArgs& args, const kw_device_info& device) : device_(device) { rebind(args, nullptr); }

  uint64_t workspace() const { return 0; }

  void rebind(const KvAppendArgs& args, void*) {
    const std::string reason = declines(args, device_);
    if (!reason.empty()) throw Error(Code::UNSUPPORTED, reason);
    const int64_t dim = args.k.dim(3), dim_v = args.v.dim(3);
    Params& p = params_;
    p = {};
    p.angles = rope_angles_cuda(args.rope ? rope_turns(args, dim) : RopeTurns{}, dim, args.interleaved);
    const bool wide = p.angles.pairs % 8 == 0 && dim % 8 == 0 && dim_v % 8 == 0 && rows_aligned(args.k) &&
                      rows_aligned(args.v) && rows_aligned(args.k_cache) && rows_aligned(args.v_cache);
    width_ = wide ? 8 : 1;
    p.k = side_of(args.k, args.k_cache, args.k_scale), p.v = side_of(args.v, args.v_cache, args.v_scale);
    p.dtype = args.k.dtype, p.cache_dtype = args.k_cache.dtype;
    const auto numbers = [](const TensorView& t) {
      return t.present() ? static_cast<const int32_t*>(t.data) : nullptr;
    };
    p.page_table = numbers(args.page_table), p.lens_kv = numbers(args.lens_kv), p.lens_q = numbers(args.lens_q);
    p.table_batch = stride(args.page_table, 0), p.table_entry = stride(args.page_table, 1);
    p.lens_kv_batch = stride(args.lens_kv, 0);
    p.lens_q_batch = args.lens_q.present() ? stride(args.lens_q, 0) : 0;
    p.names = kNames;
    p.rows = static_cast<int>(args.k.dim(1)), p.heads = static_cast<unsigned>(args.k.dim(2));
    p.pages = static_cast<int>(args.k_cache.dim(0)), p.page_size = static_cast<int>(args.k_cache.dim(1));
    p.entries = static_cast<int>(args.page_table.dim(1));
    const int64_t tokens = args.k.dim(0) * args.k.dim(1);
    p.heads_each = tokens * p.heads >= kManyHeads ? 8 : 1;
    p.groups = (p.heads + p.heads_each - 1) / p.heads_each;
    p.pieces_k = static_cast<unsigned>(rope_pieces(p.angles.pairs, dim, width_));
    p.pieces = p.pieces_k + static_cast<unsigned>(dim_v / width_);
    p.total = static_cast<unsigned>(tokens) * p.groups * p.pieces;
  }

  void enqueue(void* stream) {
    if (params_.total == 0) return;
    params_.status = status_of(stream);
    launch({.grid = {(params_.total + kThreads - 1) / kThreads},
            .block = {kThreads},
            .stream = static_cast<Stream>(stream)},
           width_ == 8 ? append_rows<8> : append_rows<1>, params_);
  }

  std::string explain() const {
    return "{\"variant\":\"append_rows\",\"reason\":\"rows are turned and rounded on their way to their "
           "pages\",\"width\":" +
           std::to_string(width_) + ",\"heads\":" + std::to_string(params_.heads_each) +
           ",\"threads\":" + std::to_string(kThreads) +
           ",\"grid\":" + std::to_string((params_.total + kThreads - 1) / kThreads) + "}";
  }

 private:
  kw_device_info device_;
  Params params_;
  int width_ = 1;
};

}  // namespace kv_append_cuda

KW_REGISTER_OP(KvAppendArgs, kv_append_cuda::KvAppendCudaPlan, kv_append)

}  // namespace kw
