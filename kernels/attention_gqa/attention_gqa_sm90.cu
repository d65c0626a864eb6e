// attention_gqa of bf16 and f16 for compute capability 9.0: TMA, wgmma, warpgroups with tasks of their own. The kernel is
// attention_gqa_sm90.cuh; configurations, what they decline and the choice among them are attention_gqa_sm90.h. It takes causal
// and windowed masks, sinks, lengths, packed sequences and any y; what it declines (bias, mask, ALiBi, softcap, a scale that is
// not positive, batch_invariant, rows that TMA cannot walk, too few rows) is attention_gqa_cuda.cu's.
//
// Work: as many blocks as SMs, each making tile after tile of rows of one head (or, with few queries, of all heads of a group),
// the longest first, from the left and from the right by turns; heads whose keys fit half of L2 come together. One warp loads
// queries, keys and values through rings of two stages, the last keys first. Each consumer warpgroup makes 64 rows. P stays in
// registers as wgmma's A; they are rewritten only after every wgmma is done, because ptxas before 13.3 may overwrite them sooner.
// Two schedules:
//   simple        S = Q K, wait, softmax, O += P V, wait. The warpgroups take their softmax by turns (named barriers), so that one's
//                 runs beside the others' products. By name alone, to be measured against the other one.
//   overlapping   a warpgroup begins S = Q K of the next tile of keys and O += P V of the one before, and while these run takes
//                 the softmax: only the maximum and the exponentials of S wait for S, only the rescaling of O waits for O. Up to
//                 128 columns the warpgroups issue their products by turns, so that one's softmax runs beside the others' too.
// Both, and _ss, whose P goes through shared memory, give the same bits.
//
//             rows x keys  consumers  stages  shared memory  registers
//   64            192 x 128          3       2        88.5 KB   32 / 160
//   128           128 x 128          2       2         161 KB   40 / 232
//   128_full      128 x 176          2       2         209 KB   40 / 232   where nothing cuts the keys
//   192_128       128 x 128          2       2         209 KB   40 / 232
//   256           128 x  80          2       2         225 KB   40 / 232
//   _ss           the same, P 48, 32, 48, 32, 32 KB more; 128_full, 192_128 and 256 with one stage
//   _simple       the same; none of 128_full
//
// Predictions; measured: not yet on a GPU. 2 (dim + dim_v) FLOPs and one power of two for each head and each pair of a row and a
// key it sees; a multiprocessor's cycle does 4096 FLOPs and 16 powers of two, so the two take 1 : 1 at 64, 2 : 1 at 128, 2.5 : 1
// at 192/128 and 4 : 1 at 256. Bytes as the contract counts: above 300 keys memory never bounds it. Shared memory is read at 96 of
// 128 bytes a cycle while S is made, 64 while O is. Cycles of a tile of keys for one warpgroup: products m, powers of two e, and
// softmax x, which is e and 3.5 other instructions for each pair at 128 a cycle. n warpgroups share the tensor cores, which are busy
//   n m / max(n m, n x, m + x)       in the simple schedule: softmax comes by turns, and everything after what it needs
//   n m / max(n m, n e, m / 2 + x)   in the overlapping one: softmax waits for about half of the products
// of the time, and in the cycles that n m leaves over in the last term latencies hide: two waits for products to drain, two for
// loads and one turn, about 300 a tile; what does not fit is lost.
//              n     m     e     x   neither   simple (left)   overlapping (left)   H200, causal, 8192 keys: simple, overlapping
//   64         3   512   512   736      41 %     69 %  (none)     100 %   (540)      300-350, 380-440 TFLOP/s
//   128        2  1024   512   736      58 %    100 %   (290)     100 %   (800)      490-550, 560-620
//   192/128    2  1280   512   736      63 %    100 %   (540)     100 %  (1180)      490-560, 540-600
//   256        2  1280   320   460      74 %    100 %   (820)     100 %  (1460)      500-580, 540-600
// The last column is of 989 TFLOP/s: at 128 published kernels of the second kind reach 65-70 % of peak, of the first kind 12 % less
// (arXiv 2407.08608); at 64 powers of two and products would both have to run without a gap. The ends of a causal tile and the
// uneven end of the grid cost 5 % at 8192 keys, so that seeing all keys brings 5-8 % more; power holds long runs below all of it.
// First to measure: the schedules against each other; tiles given out by a counter instead of by turns; y by TMA (it leaves in
// 16-byte pieces of a row now).
#include <algorithm>
#include <iterator>
#include <utility>

#include "attention_gqa_sm90.cuh"

namespace kw::attention_gqa_cuda {

namespace {

struct Sm90Compiled {
  void (*bf16)(Sm90Params);
  void (*f16)(Sm90Params);
};

template <size_t I>
constexpr Sm90Compiled sm90_compiled() {
  constexpr const Sm90Configuration& c = kSm90Configurations[I];
  using Shape = Sm90Shape<c.dim, c.dim_v, c.consumers, c.keys, c.stages, c.shared_weights, c.simple>;
  static_assert(Shape::kM == c.rows() && Shape::kThreads == c.threads() && Shape::kSmem == c.smem());
  return {attention_sm90<__nv_bfloat16, Shape>, attention_sm90<__half, Shape>};
}

template <size_t... I>
Sm90Compiled sm90_compiled_of(ptrdiff_t index, std::index_sequence<I...>) {
  static constexpr Sm90Compiled kAll[] = {sm90_compiled<I>()...};
  return kAll[index];
}

// Boxes of `heads` heads by `rows` rows. A dimension of one needs a pitch all the same.
TensorMap sm90_map_of(const Operand& o, int dim, int heads, int rows, int batch, int box_heads, int box_rows) {
  const uint64_t row = (static_cast<uint64_t>(dim) * 2 + 15) / 16 * 16;
  const auto pitch = [&](int64_t elements) { return elements ? static_cast<uint64_t>(elements) * 2 : row; };
  const auto size = [](int x) { return static_cast<uint64_t>(x); };
  return make_tensor_map_4d(o.dtype, o.data, {size(dim), size(heads), size(rows), size(batch)},
                            {pitch(o.head), pitch(o.row), pitch(o.batch)},
                            {64, static_cast<uint32_t>(box_heads), static_cast<uint32_t>(box_rows), 1}, Swizzle::b128);
}

}  // namespace

struct Sm90Launch::State {
  Sm90Params params;
  LaunchConfig config;
  void (*kernel)(Sm90Params) = nullptr;
};

void Sm90Launch::bind(const Sm90Choice& choice, const Params& given, const kw_device_info& device) {
  const Sm90Configuration& c = *choice.configuration;
  if (!state_) state_ = std::make_shared<State>();
  Sm90Params& q = state_->params;
  q.p = given;
  Params& p = q.p;
  p.pack = choice.pack;
  p.row_tiles = static_cast<int>(choice.row_tiles);
  p.splits = 1;
  q.rows = choice.rows;
  q.tiles = static_cast<int>(choice.tiles);
  q.q = sm90_map_of(p.q, p.dim, p.heads_q, p.len_q, p.batch, p.pack, choice.rows / p.pack);
  q.k = sm90_map_of(p.k, p.dim, p.heads_kv, p.len_kv, p.batch, 1, c.keys);
  q.v = sm90_map_of(p.v, p.dim_v, p.heads_kv, p.len_kv, p.batch, 1, c.keys);
  // Half of the last-level cache for the keys and values that a section's heads share.
  const int shared = p.pack == 1 ? p.group : 1;
  const int64_t bytes = int64_t{p.len_kv} * (p.dim + p.dim_v) * 2, heads_kv = int64_t{p.batch} * p.heads_kv;
  q.section =
      static_cast<int>(shared * std::clamp<int64_t>(static_cast<int64_t>(device.llc_bytes / 2) / bytes, 1, heads_kv));

  state_->config.grid = {static_cast<unsigned>(std::min<int64_t>(choice.tiles, std::max(device.sm_count, 1)))};
  state_->config.block = {static_cast<unsigned>(c.threads())};
  state_->config.smem = static_cast<size_t>(c.smem());
  const Sm90Compiled compiled =
      sm90_compiled_of(&c - kSm90Configurations, std::make_index_sequence<std::size(kSm90Configurations)>());
  const auto chosen = p.q.dtype == DType::bf16 ? compiled.bf16 : compiled.f16;
  if (chosen != state_->kernel) prepare(chosen, state_->config.smem);
  state_->kernel = chosen;
}

void Sm90Launch::enqueue(void* stream, StreamStatus* status) const {
  LaunchConfig config = state_->config;
  config.stream = static_cast<Stream>(stream);
  Sm90Params q = state_->params;
  q.p.status = status;
  launch(config, state_->kernel, q);
}

int64_t Sm90Launch::blocks() const { return state_->config.grid.x; }

}  // namespace kw::attention_gqa_cuda
