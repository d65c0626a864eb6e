// The skeleton of gemm-like kernels for compute capability 9.0 (9.0a code): TMA brings tiles of w and x into a ring of
// stages, wgmma multiplies them, an epilogue writes y. Rows of w (features of y) are wgmma's M, rows of x (tokens) its N, so
// that few tokens cost few columns. Weights (how a stage's w arrives, what becomes of it, how it is multiplied) and Epilogue
// are template arguments; the dense ones are below and in gemm_sm90_epilogue.cuh. See gemm_sm90.cu.
#pragma once
#include <memory>

#include "gemm_epilogue.cuh"
#include "gemm_sm90.h"

namespace kw::gemm_cuda {

constexpr int kSm90Depth = Sm90Configuration::kDepth, kSm90Made = Sm90Configuration::kMade;

enum class Sm90Mode {
  stream,          // a block makes tile after tile; loads run ahead into the next one
  stream_share_x,  // the same in clusters of two along rows of w, which bring in x once
  stream_share_w,  // the same along rows of x, which bring in w once
  whole,           // one tile per cluster, whose blocks each take a part of k; the sums meet in shared memory
};

// kSlabs: 64-row slabs of w that a consumer warpgroup multiplies. WeightBits: of an element of w as it arrives; fewer than 16
// are made into 16-bit ones in registers, or in shared memory of the consumer's own.
template <int Slabs, int Consumers, int Tokens, int Stages, Sm90Mode Mode, int Blocks = 1, int WeightBits = 16,
          bool Registers = false>
struct Sm90Shape {
  static constexpr bool kRegisters = Registers;
  static constexpr int kSlabs = Slabs, kConsumers = Consumers, kTokens = Tokens, kStages = Stages, kBlocks = Blocks;
  static constexpr Sm90Mode kMode = Mode;
  static constexpr bool kWhole = Mode == Sm90Mode::whole, kShareX = Mode == Sm90Mode::stream_share_x,
                        kShareW = Mode == Sm90Mode::stream_share_w, kShares = kShareX || kShareW;
  static constexpr int kCluster = kShares ? 2 : 1;  // whole: what the launch says
  static constexpr int kRows = 64 * Slabs * Consumers, kThreads = 128 * (Consumers + 1);
  static constexpr uint32_t kSlabBytes = 64 * kSm90Depth * WeightBits / 8, kWBytes = kRows / 64 * kSlabBytes;
  static constexpr uint32_t kXBytes = Tokens * 128;
  static constexpr uint32_t kStageBytes = kWBytes + kXBytes;
  // With 64 sums or fewer per thread, what the launch gives every thread is enough.
  static constexpr bool kRebalance = Slabs * Tokens / 2 > 64;

  // Strips of tokens on their way out, through a buffer per consumer: f32 sums, or boxes of 16-bit y for TMA.
  static constexpr int kStrip = Tokens < 64 ? Tokens : 64, kGatedStrip = Tokens < 32 ? Tokens : 32;
  static constexpr int kBoxTokens = Tokens < 128 ? Tokens : 128;
  static constexpr int kPitch = 64 + 4, kGatedPitch = 128 + 4;  // floats: a warp's stores touch every bank once
  static constexpr int kWholePitch = kRows + 4;
  static constexpr uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
  static constexpr uint32_t kOutBytes =
      kWhole ? 0
             : (larger(larger(kStrip * kPitch * 4, Slabs > 1 ? kGatedStrip * kGatedPitch * 4 : 0), kBoxTokens * 128) +
                1023) /
                   1024 * 1024;
  static constexpr uint32_t kMadeBytes =
      WeightBits == 16 || Registers ? 0 : kSm90Made * Slabs * 64 * 128;  // of each consumer
  static constexpr uint32_t kMade = Stages * kStageBytes, kOut = kMade + Consumers * kMadeBytes;
  static constexpr uint32_t kBarriers = kOut + Consumers * kOutBytes;
  static constexpr uint32_t kSmem = kBarriers + 16 * Stages;

  static_assert(Tokens % 16 == 0 && Tokens <= 256 && Slabs * Tokens <= 256, "sums must fit a thread's registers");
  static_assert(Consumers <= 2, "named barriers have constant ids");
  static_assert(!kShareW || Slabs * Consumers % kCluster == 0);
  static_assert(!kWhole || Tokens * kWholePitch * 4 <= Stages * kStageBytes, "a whole tile of sums reuses the ring");
  static_assert(kSmem <= 227 * 1024);
};

struct Sm90Params {
  GemmParams p;
  TensorMap w, x, y;  // boxes of 64 x 64, 64 x tokens (a cluster's share of them), 64 x kBoxTokens; y only with `store`
  int tiles_rows, tiles_tokens;  // in units of a cluster
  int units;                     // times the batch
  int splits;                    // whole: parts of k, blocks of a cluster
  bool store;                    // y leaves by TMA: 16-bit like x, aligned, and nothing but alpha, bias and relu
};

struct Sm90Place {
  int column, token, batch;  // first column of y, first row of x
};

// Neighbours in time share tiles in L2: walks 2048 tokens, then the next tile of w.
template <class Shape>
KW_DEVICE Sm90Place sm90_place(const Sm90Params& q, int unit, int rank) {
  const int span = min(2048 / Shape::kTokens / (Shape::kShareW ? Shape::kCluster : 1), q.tiles_tokens);
  const int per_matrix = q.tiles_rows * q.tiles_tokens, batch = unit / per_matrix, tile = unit - batch * per_matrix;
  const int width = span * q.tiles_rows, group = tile / width, inside = tile - group * width;
  const int tokens = min(span, q.tiles_tokens - group * span);
  int token = group * span + inside % tokens, row = inside / tokens;
  if (Shape::kShareX) row = row * Shape::kCluster + rank;
  if (Shape::kShareW) token = token * Shape::kCluster + rank;
  return {row * (q.p.gated ? Shape::kRows / 2 : Shape::kRows), token * Shape::kTokens, batch};
}

// Where a producer or consumer is in the ring, and the addresses of it. A stage holds the slabs of w, then x.
template <class Shape>
struct Sm90Ring {
  uint32_t base;
  int stage = 0;
  uint32_t phase = 0;

  KW_DEVICE uint32_t data() const { return base + stage * Shape::kStageBytes; }
  KW_DEVICE uint32_t full(int of) const { return base + Shape::kBarriers + of * 16; }
  KW_DEVICE uint32_t empty(int of) const { return base + Shape::kBarriers + of * 16 + 8; }
  KW_DEVICE int before() const { return stage == 0 ? Shape::kStages - 1 : stage - 1; }
  KW_DEVICE void advance() {
    if (++stage == Shape::kStages) stage = 0, phase ^= 1;
  }
};

// The stages of k that a block multiplies.
struct Sm90Range {
  int begin, end;
};
template <class Shape>
KW_DEVICE Sm90Range sm90_range(const Sm90Params& q, int rank) {
  const int stages = static_cast<int>((q.p.s.k + kSm90Depth - 1) / kSm90Depth);
  if (!Shape::kWhole) return {0, stages};
  return {static_cast<int>(int64_t{stages} * rank / q.splits),
          static_cast<int>(int64_t{stages} * (rank + 1) / q.splits)};
}

// Row of w where a slab of the tile begins: of a gated weight gate and up rows by turns.
KW_DEVICE int sm90_slab_row(const Sm90Params& q, const Sm90Place& at, int slab) {
  return q.p.gated ? at.column + slab / 2 * 64 + slab % 2 * static_cast<int>(q.p.s.n) : at.column + slab * 64;
}

// A stage's slabs of w, in order.
template <class Shape>
KW_DEVICE void sm90_load_w(const Sm90Params& q, uint32_t stage, uint32_t full, int k, const Sm90Place& at, int rank) {
  const int batch = q.p.s.w.batch ? at.batch : 0;
#pragma unroll
  for (int slab = 0; slab < Shape::kSlabs * Shape::kConsumers; ++slab) {
    const int row = sm90_slab_row(q, at, slab);
    const uint32_t target = stage + slab * Shape::kSlabBytes;
    if (!Shape::kShareW)
      ptx::tma_load_3d(target, &q.w, full, k, row, batch);
    else if (slab % Shape::kCluster == rank)
      ptx::tma_load_3d_multicast(target, &q.w, full, k, row, batch, (1 << Shape::kCluster) - 1);
  }
}

// sums[slab] (+)= w x for one stage of slabs at w, 8 KB each as TMA swizzles them; begins a sum when fresh.
template <class T, class Shape>
KW_DEVICE void sm90_multiply(float (&sums)[Shape::kSlabs][Shape::kTokens / 2], uint32_t w, uint32_t x, bool fresh) {
  constexpr uint32_t kSlab = 64 * 128;
#pragma unroll
  for (uint32_t step = 0; step < kSm90Depth / 16; ++step)
#pragma unroll
    for (int slab = 0; slab < Shape::kSlabs; ++slab)
      ptx::wgmma_ss<T, Shape::kTokens>(sums[slab],
                                       ptx::wgmma_desc(w + slab * kSlab + step * 32, 16, 1024, Swizzle::b128),
                                       ptx::wgmma_desc(x + step * 32, 16, 1024, Swizzle::b128), !fresh || step > 0);
}

// Weights: load() is the producer's; every consumer has one, told where a tile lies and its first stage, then asked to multiply
// each stage once it has arrived, and when all but kInFlight of these products are done.
//
// w in memory as it is multiplied.
template <class T, class Shape>
class Sm90Weights {
 public:
  using Params = Sm90Params;
  static constexpr int kInFlight = 1;

  KW_DEVICE Sm90Weights(const Params&, int consumer) : offset_(consumer * Shape::kSlabs * Shape::kSlabBytes) {}
  static KW_DEVICE void load(const Params& q, uint32_t stage, uint32_t full, int k, const Sm90Place& at, int rank) {
    sm90_load_w<Shape>(q, stage, full, k * kSm90Depth, at, rank);
  }
  KW_DEVICE void begin(const Sm90Place&, int) {}
  KW_DEVICE void multiply(float (&sums)[Shape::kSlabs][Shape::kTokens / 2], uint32_t stage, int, bool fresh) {
    ptx::wgmma_fence();
    sm90_multiply<T, Shape>(sums, stage + offset_, stage + Shape::kWBytes, fresh);
  }
  KW_DEVICE void waited() {}

 private:
  uint32_t offset_;
};

template <class Shape>
KW_DEVICE void sm90_load_x(const Sm90Params& q, uint32_t stage, uint32_t full, int k, const Sm90Place& at, int rank) {
  const int batch = q.p.s.x.batch ? at.batch : 0;
  const uint32_t target = stage + Shape::kWBytes;
  if constexpr (Shape::kShareX) {
    constexpr int kPart = Shape::kTokens / Shape::kCluster;
    ptx::tma_load_3d_multicast(target + rank * kPart * 128, &q.x, full, k, at.token + rank * kPart, batch,
                               (1 << Shape::kCluster) - 1);
  } else {
    ptx::tma_load_3d(target, &q.x, full, k, at.token, batch);
  }
}

// One thread: every stage of every tile of this block, as soon as the consumers have left its place in the ring.
template <class Shape, class Weights>
KW_DEVICE void sm90_produce(const typename Weights::Params& q, uint32_t smem, int rank, int first, int step) {
  Sm90Ring<Shape> ring{smem};
  const Sm90Range range = sm90_range<Shape>(q, rank);
#pragma unroll 1
  for (int unit = first; unit < q.units; unit += step) {
    const Sm90Place at = sm90_place<Shape>(q, unit, rank);
#pragma unroll 1
    for (int k = range.begin; k < range.end; ++k, ring.advance()) {
      const uint32_t full = ring.full(ring.stage);
      ptx::mbar_wait(ring.empty(ring.stage), ring.phase ^ 1);
      ptx::mbar_arrive_expect_tx(full, Shape::kStageBytes);
      Weights::load(q, ring.data(), full, k, at, rank);
      sm90_load_x<Shape>(q, ring.data(), full, k * kSm90Depth, at, rank);
    }
  }
}

// Every wgmma but the newest N groups is done; pins all sums, see ptx::wgmma_wait.
template <int N, int Slabs, int R>
KW_DEVICE void sm90_wait(float (&sums)[Slabs][R]) {
#pragma unroll
  for (int slab = 0; slab < Slabs; ++slab) ptx::wgmma_wait<N>(sums[slab]);
}

// A consumer warpgroup's sums over its range of k.
template <class Shape, class Weights>
KW_DEVICE void sm90_consume(float (&sums)[Shape::kSlabs][Shape::kTokens / 2], Sm90Ring<Shape>& ring,
                            const Sm90Range& range, Weights& weights) {
  const auto release = [&](int stage) {  // this warp's arrival, at every block that loads into this one's ring
    const int lane = ptx::lane_id();
    if (Shape::kShares) {
      if (lane < Shape::kCluster) ptx::mbar_arrive_cluster(ring.empty(stage), lane);
    } else if (lane == 0) {
      ptx::mbar_arrive(ring.empty(stage));
    }
  };
#pragma unroll 1
  for (int k = range.begin; k < range.end; ++k, ring.advance()) {
    ptx::mbar_wait(ring.full(ring.stage), ring.phase);
    weights.multiply(sums, ring.data(), k, k == range.begin);
    ptx::wgmma_commit();
    sm90_wait<Weights::kInFlight>(sums);
    weights.waited();
    if (Weights::kInFlight == 0) release(ring.stage);
    if (Weights::kInFlight == 1 && k > range.begin) release(ring.before());
  }
  if constexpr (Weights::kInFlight == 1) {
    sm90_wait<0>(sums);
    release(ring.before());
  }
}

// Epilogue: constructed by every consumer warpgroup, called with the sums of each tile, then finished; meet() is the
// producer's part in the cluster barriers of both. Every block must have stages of k to multiply.
template <class Shape, class Weights, class Epilogue>
KW_DEVICE void sm90_gemm(const typename Weights::Params& q) {
  const uint32_t smem = ptx::smem_u32(dyn_smem());
  const int group = static_cast<int>(threadIdx.x) / 128;
  const bool clustered = Shape::kShares || Shape::kWhole;
  const int rank = clustered ? static_cast<int>(ptx::cluster_rank()) : 0;
  const int blocks = Shape::kWhole ? q.splits : Shape::kCluster;
  const int first = static_cast<int>(blockIdx.x) / blocks, step = static_cast<int>(gridDim.x) / blocks;
  if (threadIdx.x == 0) {
    const Sm90Ring<Shape> ring{smem};
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      ptx::mbar_init(ring.full(stage), 1);
      ptx::mbar_init(ring.empty(stage), 4 * Shape::kConsumers * Shape::kCluster);
    }
    ptx::fence_mbar_init();
  }
  if constexpr (Shape::kShares)
    ptx::cluster_sync();
  else
    __syncthreads();

  if (group == Shape::kConsumers) {
    if constexpr (Shape::kRebalance) ptx::reg_dec<24>();
    if (threadIdx.x / 32 == 4 * Shape::kConsumers) {
      if (ptx::elect_one()) sm90_produce<Shape, Weights>(q, smem, rank, first, step);
      __syncwarp();
    }
    Epilogue::meet();
  } else {
    if constexpr (Shape::kRebalance) ptx::reg_inc<240>();
    Sm90Ring<Shape> ring{smem};
    const Sm90Range range = sm90_range<Shape>(q, rank);
    Epilogue epilogue(q, group, rank);
    Weights weights(q, group);
    float sums[Shape::kSlabs][Shape::kTokens / 2];
#pragma unroll 1
    for (int unit = first; unit < q.units; unit += step) {
      const Sm90Place at = sm90_place<Shape>(q, unit, rank);
      weights.begin(at, range.begin);
      sm90_consume<Shape, Weights>(sums, ring, range, weights);
      epilogue(sums, at);
      if (Shape::kWhole) break;  // the grid has a cluster for each
    }
    epilogue.finish();
  }
  // No block leaves while the other may still load into it or arrive at its barriers.
  if constexpr (Shape::kShares) ptx::cluster_sync();
}

}  // namespace kw::gemm_cuda
