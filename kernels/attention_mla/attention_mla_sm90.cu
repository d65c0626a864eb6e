// attention_mla of bf16 and f16 for compute capability 9.0: TMA, wgmma, two warpgroups that share the columns of y. The kernel is
// attention_mla_sm90.cuh; what it declines is attention_mla_sm90.h.
//
// A block makes 64 rows, (query, head) pairs of one request, over a part of its keys, 64 at a time. One warp loads rows of the cache by
// TMA through a ring of two stages, page by page, nine boxes of 64 columns each: they are keys (K-major) and values (MN-major)
// at once. Each of two consumer warpgroups makes S of half of the keys, they tell each other their maxima and weights through
// shared memory, and each adds P C of its half of the columns to 64 x 256 sums in registers. S of the next tile is issued behind
// P C of this one, so that the tensor cores wait only for the softmax of 16 scores a thread and for two meetings.
//
//             rows x keys  consumers  stages  shared memory  registers
//   64              64 x 64         2       2        225 KB   40 / 232
//
// Prediction; measured: not yet on a GPU. 2176 FLOPs for each row and key, 1152 bytes for each key: 64 rows do 121 FLOPs a byte, 128
// heads in two blocks that share keys in L2 twice that, where an H200's ridge is 206. Cycles of a tile: S 36 products of 64 x 32
// x 16 for each warpgroup, 1152 by the tensor cores, 1730 by shared memory (3 KB for each, at 128 bytes a cycle); P C 1024; softmax
// and two meetings 350: 3100 for 2176 of work, 70 %, some 600 TFLOP/s less ramps and the uneven end of the grid: 430-520 at 128 heads, 4096 keys
// and more. Up to 64 heads memory bounds it: one block on an SM has 74 to 147 KB on their way, 75-80 % of 4.8 TB/s. S of whole
// tiles by turns (64 x 64 x 16, balanced) would take a fourth slot that shared memory does not have; first to measure: whether
// queries as wgmma's A from registers (the rotated slab) pay.
#include <memory>

#include "attention_mla_sm90.cuh"

namespace kw::attention_mla_cuda {

static_assert(Sm90Shape::kThreads == Sm90Configuration::kThreads);

struct Sm90Launch::State {
  Sm90Params params{};
  void (*kernel)(Sm90Params) = nullptr;
};

void Sm90Launch::bind(const PagedParams& p) {
  if (!state_) state_ = std::make_shared<State>();
  Sm90Params& q = state_->params;
  q.box_rows = sm90_box_rows(p.page_size);
  const auto size = [](int64_t x) { return static_cast<uint64_t>(x); };
  // A dimension of one needs a pitch all the same.
  const uint64_t row = (size(p.dim) * 2 + 15) / 16 * 16, slot = p.k.row ? size(p.k.row) * 2 : row;
  const uint64_t page = p.k_page ? size(p.k_page) * 2 : slot * size(p.page_size);
  q.cache = make_tensor_map_3d(p.k.dtype, p.k.data, size(p.dim), size(p.page_size), size(p.pages), slot, page, 64,
                               static_cast<uint32_t>(q.box_rows), Swizzle::b128);
  const auto kernel = p.q.dtype == DType::bf16 ? attention_mla_sm90<__nv_bfloat16> : attention_mla_sm90<__half>;
  if (kernel != state_->kernel) prepare(kernel, Sm90Configuration::kSmem);
  state_->kernel = kernel;
}

void Sm90Launch::enqueue(const LaunchConfig& config, const PagedParams& p) const {
  Sm90Params q = state_->params;
  q.p = p;
  launch(config, state_->kernel, q);
}

}  // namespace kw::attention_mla_cuda
