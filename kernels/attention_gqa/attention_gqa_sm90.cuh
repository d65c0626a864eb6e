// The kernel of attention_gqa for compute capability 9.0 (9.0a code): a warp loads by TMA, warpgroups multiply by wgmma. See
// attention_gqa_sm90.cu.
#pragma once
#include "attention_gqa_sm90.h"
#include "attention_gqa_walk.cuh"

namespace kw::attention_gqa_cuda {

struct Sm90Params {
  Params p;
  TensorMap q, k,
      v;     // (element, head, row, batch); boxes of 64 elements by `pack` heads by rows / pack, 1 by kN, 1 by kN
  int rows;  // of a tile that are used
  int tiles;
  int section;  // heads, of all batches, whose tiles come before those of the next: their keys stay in L2
};

template <int Dim, int DimV, int Consumers, int Keys, int Stages, bool SharedWeights, bool Simple>
struct Sm90Shape {
  static constexpr int kDim = Dim, kDimV = DimV, kConsumers = Consumers, kN = Keys, kStages = Stages;
  static constexpr int kM = 64 * Consumers, kThreads = 128 * (Consumers + 1);
  static constexpr bool kSharedWeights = SharedWeights, kSimple = Simple;
  // Warpgroups issue their products by turns, so that one's softmax runs beside another's products. With long heads a
  // warpgroup's own products of values cover its softmax. In the simple schedule they take their softmax by turns.
  static constexpr bool kTurns = Dim <= 128 || Simple;
  static constexpr uint32_t kQSlab = kM * 128, kKeySlab = Keys * 128;  // 64 elements of every row
  static constexpr uint32_t kQBytes = Dim / 64 * kQSlab, kKBytes = Dim / 64 * kKeySlab, kVBytes = DimV / 64 * kKeySlab;
  static constexpr uint32_t kWeightBytes = SharedWeights ? (Keys + 63) / 64 * 8192 : 0;  // of a consumer
  static constexpr uint32_t kK = kQBytes, kV = kK + Stages * kKBytes, kWeights = kV + Stages * kVBytes;
  static constexpr uint32_t kFrames = kWeights + Consumers * kWeightBytes;
  static constexpr uint32_t kBarriers = kFrames + 384, kSmem = kFrames + Sm90Configuration::kFrames;
  static_assert(Keys % 16 == 0 && kKeySlab % 1024 == 0 && 24 + 32 * Stages <= 128 && kSmem <= 227 * 1024);
};

// Where a tile of rows lies, in shared memory. Two: the next is written while the last rows of one are on their way out.
struct Sm90Frame {
  Place place;
  Walk walk;
  bool last;  // there is no such tile, and no other
};
static_assert(2 * sizeof(Sm90Frame) <= 384);

template <class Shape>
struct Sm90Memory {
  uint32_t base;
  KW_DEVICE uint32_t bar(int i) const { return base + Shape::kBarriers + 8 * i; }
  KW_DEVICE uint32_t q_full() const { return bar(0); }  // a frame, and its queries where it sees keys
  KW_DEVICE uint32_t q_empty() const {
    return bar(1);
  }  // by every consumer warp: the frame before is done with, and q free
  KW_DEVICE uint32_t patch() const { return bar(2); }  // values that the producer has to patch
  KW_DEVICE uint32_t k_full(int stage) const { return bar(3 + 4 * stage); }
  KW_DEVICE uint32_t k_empty(int stage) const { return bar(4 + 4 * stage); }
  KW_DEVICE uint32_t v_full(int stage) const { return bar(5 + 4 * stage); }
  KW_DEVICE uint32_t v_empty(int stage) const { return bar(6 + 4 * stage); }
  KW_DEVICE uint32_t k(int stage) const { return base + Shape::kK + stage * Shape::kKBytes; }
  KW_DEVICE uint32_t v(int stage) const { return base + Shape::kV + stage * Shape::kVBytes; }
  static KW_DEVICE Sm90Frame& frame(int tile) {
    return reinterpret_cast<Sm90Frame*>(dyn_smem() + Shape::kFrames)[tile & 1];
  }
};

// Where the n-th tile of keys or of values lies in its ring, and which phase its barriers are in.
template <class Shape>
KW_DEVICE int sm90_stage(unsigned n) {
  return static_cast<int>(n % Shape::kStages);
}
template <class Shape>
KW_DEVICE uint32_t sm90_phase(unsigned n) {
  return n / Shape::kStages & 1;
}

// Tile `index`: section by section; within one the longest row tiles (the last, with a causal mask) of every head first.
KW_DEVICE bool sm90_find_place(const Sm90Params& q, int index, Place& place) {
  const Params& p = q.p;
  const int shared = p.pack == 1 ? p.group : 1, heads = p.batch * p.heads_kv * shared;
  const int section = index / (q.section * p.row_tiles), inside = index - section * (q.section * p.row_tiles);
  const int width = min(q.section, heads - section * q.section);
  const int head = section * q.section + inside % width, kv = head / shared;
  place.split = 0;
  place.batch = kv / p.heads_kv;
  place.kv_head = kv - place.batch * p.heads_kv;
  place.head = place.kv_head * p.group + head % shared;
  return find_rows(p, q.rows, p.row_tiles - 1 - inside / width, place);
}

// Every block takes one tile of each round, from the left and from the right by turns, so that all get about as much.
KW_DEVICE int sm90_index(int round) {
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  return round * blocks + (round % 2 ? blocks - 1 - block : block);
}

// One warp: announces each tile and loads its queries, keys and values, the last keys first.
template <class Shape>
KW_DEVICE void sm90_produce(const Sm90Params& q, const Sm90Memory<Shape>& memory) {
  const Params& p = q.p;
  const bool leader = ptx::lane_id() == 0;
  unsigned loaded = 0;  // tiles of keys; values follow, a tile behind
  uint32_t patches = 0;
  int made = 0;
#pragma unroll 1
  for (int round = 0; round * static_cast<int>(gridDim.x) < q.tiles; ++round) {
    const int index = sm90_index(round);
    Place place;
    if (index >= q.tiles || !sm90_find_place(q, index, place)) continue;
    Walk walk;
    walk.begin_tile(p, place, q.rows, Shape::kN);
    Sm90Frame& frame = memory.frame(made);  // from here on, rather than registers: they are few
    if (leader) {
      ptx::mbar_wait(memory.q_empty(), (made & 1) ^ 1);
      frame.place = place;
      frame.walk = walk;
      frame.last = false;
      if (walk.begin < walk.end) {
        ptx::mbar_arrive_expect_tx(memory.q_full(), Shape::kDim / 64 * q.rows * 128);
#pragma unroll 1
        for (int slab = 0; slab < Shape::kDim / 64; ++slab)
          ptx::tma_load_4d(memory.base + slab * Shape::kQSlab, &q.q, memory.q_full(), 64 * slab, place.head,
                           place.first_q + place.row0 / p.pack, place.batch);
      } else {
        ptx::mbar_arrive(memory.q_full());
      }
    }
    __syncwarp();
    const auto load_k = [&](int tile) {
      if (leader) {
        const int stage = sm90_stage<Shape>(loaded);
        const uint32_t full = memory.k_full(stage);
        ptx::mbar_wait(memory.k_empty(stage), sm90_phase<Shape>(loaded) ^ 1);
        ptx::mbar_arrive_expect_tx(full, Shape::kKBytes);
#pragma unroll 1
        for (int slab = 0; slab < Shape::kDim / 64; ++slab)
          ptx::tma_load_4d(memory.k(stage) + slab * Shape::kKeySlab, &q.k, full, 64 * slab, frame.place.kv_head,
                           frame.place.first_kv + tile * Shape::kN, frame.place.batch);
      }
      ++loaded;
    };
    const auto load_v = [&](int tile, unsigned n) {
      // Rows beyond the sequence have weight 0, and must not hold NaN: beyond the tensor TMA fills zeros, else this warp does.
      const int there = frame.place.len_kv - tile * Shape::kN, stage = sm90_stage<Shape>(n);
      const bool patched = there < Shape::kN && frame.place.first_kv + frame.place.len_kv < p.len_kv;
      if (leader) {
        const uint32_t arrives = patched ? memory.patch() : memory.v_full(stage);
        ptx::mbar_wait(memory.v_empty(stage), sm90_phase<Shape>(n) ^ 1);
        ptx::mbar_arrive_expect_tx(arrives, Shape::kVBytes);
#pragma unroll 1
        for (int slab = 0; slab < Shape::kDimV / 64; ++slab)
          ptx::tma_load_4d(memory.v(stage) + slab * Shape::kKeySlab, &q.v, arrives, 64 * slab, frame.place.kv_head,
                           frame.place.first_kv + tile * Shape::kN, frame.place.batch);
      }
      if (!patched) return;
      __syncwarp();
      ptx::mbar_wait(memory.patch(), patches);
      patches ^= 1;
      const int chunks = (Shape::kN - there) * 8;  // of 16 bytes in a slab
      uint4* rows = reinterpret_cast<uint4*>(dyn_smem() + (memory.v(stage) - memory.base) + there * 128);
#pragma unroll 1
      for (int slab = 0; slab < Shape::kDimV / 64; ++slab, rows += Shape::kKeySlab / 16)
#pragma unroll 1
        for (int i = ptx::lane_id(); i < chunks; i += 32) rows[i] = make_uint4(0, 0, 0, 0);
      ptx::fence_proxy_async();
      __syncwarp();
      if (leader) ptx::mbar_arrive(memory.v_full(stage));
    };
#pragma unroll 1
    for (int tile = frame.walk.end; tile > frame.walk.begin; --tile) {
      load_k(tile - 1);
      if (tile < frame.walk.end) load_v(tile, loaded - 2);
    }
    if (frame.walk.begin < frame.walk.end) load_v(frame.walk.begin, loaded - 1);
    ++made;
  }
  if (leader) {
    ptx::mbar_wait(memory.q_empty(), (made & 1) ^ 1);
    memory.frame(made).last = true;
    ptx::mbar_arrive(memory.q_full());
  }
  __syncwarp();
}

// Named barriers have constant ids: 1 + consumer where a consumer waits for its turn, 4 + consumer for itself.
template <int Base, int Threads, bool Sync>
KW_DEVICE void sm90_bar(int consumer) {
  const auto at = [](auto id) {
    if (Sync)
      ptx::named_bar_sync(Base + id, Threads);
    else
      ptx::named_bar_arrive(Base + id, Threads);
  };
  if (consumer == 0)
    at(0);
  else if (consumer == 1)
    at(1);
  else
    at(2);
}

// A warpgroup that makes 64 rows of each tile. Thread (warp, lane) holds rows 16 warp + lane / 4 and + 8; element i of its
// scores and values is row i / 2 % 2 of these, column i / 4 * 8 + lane % 4 * 2 + i % 2.
template <class T, class Shape>
class Sm90Consumer {
 public:
  KW_DEVICE Sm90Consumer(const Sm90Params& q, const Sm90Memory<Shape>& memory, int consumer)
      : q_(q), memory_(memory), consumer_(consumer) {}

  KW_DEVICE void run() {
    if (Shape::kTurns && consumer_ == 0) sm90_bar<1, 256, false>(0);
#pragma unroll 1
    for (int made = 0;; ++made) {
      ptx::mbar_wait(memory_.q_full(), made & 1);
      const Sm90Frame& frame = memory_.frame(made);
      if (frame.last) break;
      one(frame);
    }
  }

 private:
  static constexpr int kN = Shape::kN, kSteps = kN / 16;
  static constexpr bool kBf16 = std::is_same_v<T, __nv_bfloat16>;

  KW_DEVICE void one(const Sm90Frame& frame) {
    float scores[kN / 2], values[Shape::kDimV / 2];
    uint32_t weights[kSteps][4];
    maximum_[0] = maximum_[1] = negative_infinity();
    sum_[0] = sum_[1] = 0;
#pragma unroll
    for (float& v : values) v = 0;
    if (frame.walk.begin >= frame.walk.end) {
      release(memory_.q_empty());
    } else if constexpr (Shape::kSimple) {
      walk_simply(frame, scores, weights, values);
    } else {
      walk_overlapping(frame, scores, weights, values);
    }
    finish(values, frame);
  }

  // Scores of the next tile of keys and values of the one before are in flight at a time, beside the softmax between them.
  KW_DEVICE void walk_overlapping(const Sm90Frame& frame, float (&scores)[kN / 2], uint32_t (&weights)[kSteps][4],
                                  float (&values)[Shape::kDimV / 2]) {
    int tile = frame.walk.end - 1;
    ptx::mbar_wait(memory_.k_full(sm90_stage<Shape>(walked_)), sm90_phase<Shape>(walked_));
    score(scores);
    ptx::wgmma_wait<0>(scores);
    release(memory_.k_empty(sm90_stage<Shape>(walked_)));
    ++walked_;
    float decay[2];
    soften(scores, frame, tile * kN, decay);
    pack(weights, scores);
#pragma unroll 1
    for (--tile; tile >= frame.walk.begin; --tile) {
      ptx::mbar_wait(memory_.k_full(sm90_stage<Shape>(walked_)), sm90_phase<Shape>(walked_));
      if (Shape::kTurns) sm90_bar<1, 256, true>(consumer_);
      score(scores);
      weigh(values, weights);
      if (Shape::kTurns) sm90_bar<1, 256, false>(next());
      ptx::wgmma_wait<1>(scores);
      release(memory_.k_empty(sm90_stage<Shape>(walked_)));
      const bool rescale = soften(scores, frame, tile * kN, decay);
      weighed(values, weights);
      ++walked_;
      pack(weights, scores);
      fade(values, rescale, decay);
    }
    release(memory_.q_empty());
    weigh(values, weights);
    weighed(values, weights);
  }

  // One thing after the other; the softmax by turns, beside the products of the other warpgroups.
  KW_DEVICE void walk_simply(const Sm90Frame& frame, float (&scores)[kN / 2], uint32_t (&weights)[kSteps][4],
                             float (&values)[Shape::kDimV / 2]) {
#pragma unroll 1
    for (int tile = frame.walk.end - 1; tile >= frame.walk.begin; --tile) {
      ptx::mbar_wait(memory_.k_full(sm90_stage<Shape>(walked_)), sm90_phase<Shape>(walked_));
      score(scores);
      ptx::wgmma_wait<0>(scores);
      release(memory_.k_empty(sm90_stage<Shape>(walked_)));
      if (tile == frame.walk.begin) release(memory_.q_empty());
      ++walked_;
      sm90_bar<1, 256, true>(consumer_);
      float decay[2];
      const bool rescale = soften(scores, frame, tile * kN, decay);
      pack(weights, scores);
      fade(values, rescale, decay);
      sm90_bar<1, 256, false>(next());
      weigh(values, weights);
      weighed(values, weights);
    }
  }

  KW_DEVICE int next() const { return consumer_ + 1 == Shape::kConsumers ? 0 : consumer_ + 1; }

  // By one lane, after all of the warp are done.
  KW_DEVICE void release(uint32_t bar) const {
    __syncwarp();
    if (ptx::lane_id() == 0) ptx::mbar_arrive(bar);
  }

  // scores = q k of tile walked_, begun.
  KW_DEVICE void score(float (&scores)[kN / 2]) const {
    const uint32_t q = memory_.base + consumer_ * 8192, k = memory_.k(sm90_stage<Shape>(walked_));
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < Shape::kDim / 16; ++step)
      ptx::wgmma_ss<T, kN>(
          scores, ptx::wgmma_desc(q + step / 4 * Shape::kQSlab + step % 4 * 32, 16, 1024, Swizzle::b128),
          ptx::wgmma_desc(k + step / 4 * Shape::kKeySlab + step % 4 * 32, 16, 1024, Swizzle::b128), step > 0);
    ptx::wgmma_commit();
  }

  // values += weights v of the tile before walked_, begun once these have arrived.
  KW_DEVICE void weigh(float (&values)[Shape::kDimV / 2], uint32_t (&weights)[kSteps][4]) const {
    const int stage = sm90_stage<Shape>(walked_ - 1);
    const uint32_t v = memory_.v(stage), shared = shared_weights();
    ptx::mbar_wait(memory_.v_full(stage), sm90_phase<Shape>(walked_ - 1));
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const uint64_t b = ptx::wgmma_desc(v + step * 2048, Shape::kKeySlab, 1024, Swizzle::b128);
      if constexpr (Shape::kSharedWeights)
        ptx::wgmma_ss<T, Shape::kDimV, 0, 1>(
            values, ptx::wgmma_desc(shared + step / 4 * 8192 + step % 4 * 32, 16, 1024, Swizzle::b128), b, 1);
      else
        ptx::wgmma_rs<T, Shape::kDimV, 1>(values, weights[step], b, 1);
    }
    ptx::wgmma_commit();
  }

  // Waits for them; weights may be written again.
  KW_DEVICE void weighed(float (&values)[Shape::kDimV / 2], uint32_t (&weights)[kSteps][4]) {
    ptx::wgmma_wait<0>(values);
    if constexpr (!Shape::kSharedWeights) {
#pragma unroll
      for (auto& fragment : weights) ptx::wgmma_release(fragment);
    }
    release(memory_.v_empty(sm90_stage<Shape>(walked_ - 1)));
  }

  // Scores become weights relative to the running maximum. decay: of what was summed before; true when that is not 1.
  KW_DEVICE bool soften(float (&scores)[kN / 2], const Sm90Frame& frame, int key0, float (&decay)[2]) {
    const Params& p = q_.p;
    if (frame.walk.edge(p, frame.place, key0, kN)) {
      const int key = key0 + ptx::lane_id() % 4 * 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int position = (frame.place.row0 + row(half)) / p.pack + frame.walk.shift;
        const int from = position - p.left - key, to = min(frame.place.len_kv, position + p.right + 1) - key;
#pragma unroll
        for (int n = 0; n < kN / 8; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (8 * n + e < from || 8 * n + e >= to) scores[4 * n + 2 * half + e] = negative_infinity();
      }
    }
    const float to_log2 = p.scale * kLog2E;
    bool rescale = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = maximum_[half];
#pragma unroll
      for (int i = 2 * half; i < kN / 2; i += 4) top = fmaxf(top, fmaxf(scores[i], scores[i + 1]));
      top = lanes_max<4>(top);
      const float base = finite_or_zero(top), shift = base * to_log2;
      decay[half] = ptx::ex2((maximum_[half] - base) * to_log2);  // exactly 1 where the maximum stays
      rescale |= top != maximum_[half];
      maximum_[half] = top;
      float added = 0;
#pragma unroll
      for (int i = 2 * half; i < kN / 2; i += 4)
#pragma unroll
        for (int e = i; e < i + 2; ++e) added += scores[e] = ptx::ex2(fmaf(scores[e], to_log2, -shift));
      sum_[half] = fmaf(sum_[half], decay[half], added);
    }
    return rescale;
  }

  KW_DEVICE void fade(float (&values)[Shape::kDimV / 2], bool rescale, const float (&decay)[2]) const {
    if (!__any_sync(0xffffffffu, rescale)) return;
#pragma unroll
    for (int i = 0; i < Shape::kDimV / 2; ++i) values[i] *= decay[i / 2 % 2];
  }

  // To the operands' dtype: as fragments of A, or from there to this warp's rows in shared memory.
  KW_DEVICE void pack(uint32_t (&weights)[kSteps][4], const float (&scores)[kN / 2]) const {
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        weights[step][i] = pack2<kBf16>(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
    if constexpr (Shape::kSharedWeights) {
      const int lane = ptx::lane_id(), line = warp() * 16 + lane % 16;
#pragma unroll
      for (int step = 0; step < kSteps; ++step)
        ptx::stmatrix_x4(
            shared_weights() + step / 4 * 8192 + line * 128 + ((step % 4 * 2 + lane / 16) ^ (line & 7)) * 16,
            weights[step]);
      ptx::fence_proxy_async();
      sm90_bar<4, 128, true>(consumer_);
    }
  }

  KW_DEVICE void finish(const float (&values)[Shape::kDimV / 2], const Sm90Frame& frame) const {
    const Params& p = q_.p;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = lanes_sum<4>(sum_[half]);
      const RowPlace at(p, frame.place, row(half));
      if (row(half) >= q_.rows || !at.inside) continue;
      const RowEnd end(p, at, maximum_[half] * p.scale, sum);
      if (ptx::lane_id() % 4 == 0) store_lse(p, frame.place, at, end.lse);
      const RowTarget target(p, frame.place, at);
#pragma unroll
      for (int n = 0; n < Shape::kDimV / 8; ++n)
        target.store(p, 8 * n + ptx::lane_id() % 4 * 2, end.scaled(values[4 * n + 2 * half]),
                     end.scaled(values[4 * n + 2 * half + 1]));
    }
  }

  KW_DEVICE uint32_t shared_weights() const { return memory_.base + Shape::kWeights + consumer_ * Shape::kWeightBytes; }
  static KW_DEVICE int warp() { return static_cast<int>(threadIdx.x) % 128 / 32; }
  KW_DEVICE int row(int half) const { return 64 * consumer_ + 16 * warp() + ptx::lane_id() / 4 + 8 * half; }

  const Sm90Params& q_;
  const Sm90Memory<Shape>& memory_;
  int consumer_;
  unsigned walked_ = 0;  // tiles of keys multiplied; values follow, one tile behind
  float maximum_[2], sum_[2];
};

template <class T, class Shape>
static __global__ void __launch_bounds__(Shape::kThreads, 1) attention_sm90(const __grid_constant__ Sm90Params q) {
  const Sm90Memory<Shape> memory{ptx::smem_u32(dyn_smem())};
  const int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0);  // known to be one for a warp
  check_lengths(q.p);
  if (threadIdx.x == 0) {
    ptx::mbar_init(memory.q_full(), 1);
    ptx::mbar_init(memory.q_empty(), 4 * Shape::kConsumers);
    ptx::mbar_init(memory.patch(), 1);
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      ptx::mbar_init(memory.k_full(stage), 1);
      ptx::mbar_init(memory.k_empty(stage), 4 * Shape::kConsumers);
      ptx::mbar_init(memory.v_full(stage), 1);
      ptx::mbar_init(memory.v_empty(stage), 4 * Shape::kConsumers);
    }
    ptx::fence_mbar_init();
  }
  // Rows that no box of queries reaches are multiplied too.
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kDim / 64 * (Shape::kM - q.rows) * 8; i += Shape::kThreads) {
    const int slab = i / ((Shape::kM - q.rows) * 8), chunk = i - slab * ((Shape::kM - q.rows) * 8);
    *reinterpret_cast<uint4*>(dyn_smem() + slab * Shape::kQSlab + q.rows * 128 + chunk * 16) = make_uint4(0, 0, 0, 0);
  }
  ptx::fence_proxy_async();
  __syncthreads();
  if (group == Shape::kConsumers) {
    ptx::reg_dec<Shape::kConsumers == 2 ? 40 : 32>();
    if (threadIdx.x / 32 == 4 * Shape::kConsumers) sm90_produce<Shape>(q, memory);
  } else {
    ptx::reg_inc<Shape::kConsumers == 2 ? 232 : 160>();
    Sm90Consumer<T, Shape>(q, memory, group).run();
  }
}

}  // namespace kw::attention_gqa_cuda
