// The kernel of attention_mla for compute capability 9.0 (9.0a code): a warp loads pages by TMA, two warpgroups multiply by wgmma.
// See attention_mla_sm90.cu.
#pragma once
#include "../attention_gqa_paged/attention_gqa_paged_walk.cuh"
#include "attention_mla_sm90.h"

namespace kw::attention_mla_cuda {

using namespace attention_gqa_cuda;

struct Sm90Params {
  PagedParams p;
  TensorMap cache;  // (element, slot, page); boxes of 64 elements by box_rows slots
  int box_rows;     // 8 to 64, which page_size is a multiple of, or itself
};

struct Sm90Shape {
  static constexpr int kSlabs = Sm90Configuration::kDim / 64, kM = Sm90Configuration::kRows;
  static constexpr int kN = Sm90Configuration::kKeys, kStages = Sm90Configuration::kStages, kThreads = 384;
  static constexpr int kColumns = Sm90Configuration::kDimV / 2, kWarpgroupKeys = kN / 2;  // of a warpgroup
  static constexpr uint32_t kSlab = 64 * 128;                                             // 64 elements of 64 rows
  static constexpr uint32_t kStageBytes = kSlabs * kSlab, kRing = kSlabs * kSlab;         // queries come first
  static constexpr uint32_t kWeights = kRing + kStages * kStageBytes, kTops = kWeights + kSlab;
  static constexpr uint32_t kFrame = kTops + 2 * kM * 4, kBarriers = kFrame + 192;
  static_assert(kM == 64 && kN == 64 && sizeof(Frame) <= 192);
  static_assert(kBarriers + 8 * (2 * kStages + 1) <= Sm90Configuration::kSmem);
};

struct Sm90Memory {
  uint32_t base;
  KW_DEVICE uint32_t full(int stage) const { return base + Sm90Shape::kBarriers + 16 * stage; }
  KW_DEVICE uint32_t empty(int stage) const { return full(stage) + 8; }
  KW_DEVICE uint32_t patch() const { return full(Sm90Shape::kStages); }  // rows of which some have to be cleared
  KW_DEVICE uint32_t stage(int stage) const { return base + Sm90Shape::kRing + stage * Sm90Shape::kStageBytes; }
};

// One warp: the rows of every tile of keys, page by page, a slab of 64 columns a lane.
KW_DEVICE void sm90_produce(const Sm90Params& q, const Sm90Memory& memory, const Frame& frame) {
  const PagedParams& p = q.p;
  const int lane = ptx::lane_id();
  uint32_t patches = 0;
#pragma unroll 1
  for (int tile = frame.walk.begin, n = 0; tile < frame.walk.end; ++tile, ++n) {
    const int stage = n % Sm90Shape::kStages, key0 = tile * Sm90Shape::kN;
    const int there = min(frame.place.len_kv - key0, Sm90Shape::kN), boxes = (there + q.box_rows - 1) / q.box_rows;
    // Rows beyond the request have weight 0, and must not hold NaN.
    const bool patched = there < Sm90Shape::kN;
    const uint32_t arrives = patched ? memory.patch() : memory.full(stage);
    if (lane == 0) {
      ptx::mbar_wait(memory.empty(stage), (n / Sm90Shape::kStages & 1) ^ 1);
      ptx::mbar_arrive_expect_tx(arrives, boxes * q.box_rows * 128 * Sm90Shape::kSlabs);
    }
    __syncwarp();
#pragma unroll 1
    for (int box = 0; box < boxes; ++box) {
      const int key = key0 + box * q.box_rows, entry = page_entry(p, key);
      const int named = p.table[frame.place.batch * p.table_batch + entry];
      const int page = static_cast<uint32_t>(named) < static_cast<uint32_t>(p.pages) ? named : p.pages;  // zeros there
      if (lane < Sm90Shape::kSlabs)
        ptx::tma_load_3d(memory.stage(stage) + lane * Sm90Shape::kSlab + box * q.box_rows * 128, &q.cache, arrives,
                         64 * lane, key - entry * p.page_size, page);
    }
    if (!patched) continue;
    __syncwarp();
    ptx::mbar_wait(memory.patch(), patches);
    patches ^= 1;
    uint4* rows = reinterpret_cast<uint4*>(dyn_smem() + (memory.stage(stage) - memory.base) + there * 128);
#pragma unroll 1
    for (int slab = 0; slab < Sm90Shape::kSlabs; ++slab, rows += Sm90Shape::kSlab / 16)
#pragma unroll 1
      for (int i = lane; i < (Sm90Shape::kN - there) * 8; i += 32) rows[i] = make_uint4(0, 0, 0, 0);
    ptx::fence_proxy_async();
    __syncwarp();
    if (lane == 0) ptx::mbar_arrive(memory.full(stage));
  }
}

// A warpgroup: S of the block's 64 rows and its half of a tile's keys, P C of all keys and its half of the columns. Thread (warp,
// lane) holds rows 16 warp + lane / 4 and + 8; element i is row i / 2 % 2 of these, column i / 4 * 8 + lane % 4 * 2 + i % 2.
template <class T>
class Sm90Consumer {
 public:
  KW_DEVICE Sm90Consumer(const Sm90Params& q, const Sm90Memory& memory, const Frame& frame, int consumer)
      : p_(q.p), memory_(memory), frame_(frame), consumer_(consumer) {}

  KW_DEVICE void run() {
    float scores[kKeys / 2], values[kColumns / 2];
#pragma unroll
    for (float& v : values) v = 0;
    const Walk& walk = frame_.walk;
    if (walk.begin < walk.end) {
      ptx::mbar_wait(memory_.full(0), 0);
      score(scores, 0);
      ptx::wgmma_wait<0>(scores);
      int n = 0;
#pragma unroll 1
      for (int tile = walk.begin; tile + 1 < walk.end; ++tile, ++n) {
        soften(scores, values, tile * Sm90Shape::kN);
        weigh(values, n);
        ptx::mbar_wait(memory_.full((n + 1) % kStages), (n + 1) / kStages & 1);
        score(scores, n + 1);
        ptx::wgmma_wait<1>(values);
        __syncwarp();
        if (ptx::lane_id() == 0) ptx::mbar_arrive(memory_.empty(n % kStages));
        ptx::wgmma_wait<0>(scores);
      }
      soften(scores, values, (walk.end - 1) * Sm90Shape::kN);
      weigh(values, n);
      ptx::wgmma_wait<0>(values);
    }
    finish(values);
  }

 private:
  static constexpr int kKeys = Sm90Shape::kWarpgroupKeys, kColumns = Sm90Shape::kColumns;
  static constexpr int kStages = Sm90Shape::kStages;
  static constexpr bool kBf16 = std::is_same_v<T, __nv_bfloat16>;

  // scores = q c of the n-th tile, begun.
  KW_DEVICE void score(float (&scores)[kKeys / 2], int n) const {
    const uint32_t rows = memory_.stage(n % kStages) + consumer_ * (kKeys * 128);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4 * Sm90Shape::kSlabs; ++step) {
      const uint32_t at = step / 4 * Sm90Shape::kSlab + step % 4 * 32;
      ptx::wgmma_ss<T, kKeys>(scores, ptx::wgmma_desc(memory_.base + at, 16, 1024, Swizzle::b128),
                              ptx::wgmma_desc(rows + at, 16, 1024, Swizzle::b128), step > 0);
    }
    ptx::wgmma_commit();
  }

  // values += weights c of the n-th tile, begun.
  KW_DEVICE void weigh(float (&values)[kColumns / 2], int n) const {
    const uint32_t weights = memory_.base + Sm90Shape::kWeights;
    const uint32_t columns = memory_.stage(n % kStages) + consumer_ * (kColumns / 64 * Sm90Shape::kSlab);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < Sm90Shape::kN / 16; ++step)
      ptx::wgmma_ss<T, kColumns, 0, 1>(values, ptx::wgmma_desc(weights + step * 32, 16, 1024, Swizzle::b128),
                                       ptx::wgmma_desc(columns + step * 2048, Sm90Shape::kSlab, 1024, Swizzle::b128),
                                       1);
    ptx::wgmma_commit();
  }

  // Scores become weights relative to the running maximum, which both warpgroups find alike, and go to shared memory; values
  // fade with the maximum before.
  KW_DEVICE void soften(float (&scores)[kKeys / 2], float (&values)[kColumns / 2], int key0) {
    const int lane = ptx::lane_id(), key = key0 + kKeys * consumer_ + lane % 4 * 2;
    const bool edge = frame_.walk.edge(p_, frame_.place, key0, Sm90Shape::kN);
    const float to_log2 = p_.scale * kLog2E;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int to = Sm90Shape::kN;
      if (edge) {
        const int position = (frame_.place.row0 + row(half)) / p_.pack + frame_.walk.shift;
        to = min(frame_.place.len_kv, position + p_.right + 1) - key;
      }
      float top = negative_infinity();
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& s = scores[4 * n + 2 * half + e];
          s = 8 * n + e < to ? s * to_log2 : negative_infinity();
          top = fmaxf(top, s);
        }
      top = lanes_max<4>(top);
      if (lane % 4 == 0) tops()[consumer_ * Sm90Shape::kM + row(half)] = top;
    }
    ptx::named_bar_sync(1, 256);
    float decay[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float highest = fmaxf(maximum_[half], fmaxf(tops()[row(half)], tops()[Sm90Shape::kM + row(half)]));
      const float base = finite_or_zero(highest);
      decay[half] = ptx::ex2(maximum_[half] - base);
      maximum_[half] = highest;
      float added = 0;
#pragma unroll
      for (int i = 2 * half; i < kKeys / 2; i += 4)
#pragma unroll
        for (int e = i; e < i + 2; ++e) added += scores[e] = ptx::ex2(scores[e] - base);
      sum_[half] = fmaf(sum_[half], decay[half], added);
    }
    const int line = warp() * 16 + lane % 16;
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      uint32_t weights[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) weights[i] = pack2<kBf16>(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
      const int chunk = consumer_ * (kKeys / 8) + step * 2 + lane / 16;
      ptx::stmatrix_x4(memory_.base + Sm90Shape::kWeights + line * 128 + (chunk ^ (line & 7)) * 16, weights);
    }
    ptx::fence_proxy_async();
    if (__any_sync(0xffffffffu, decay[0] != 1 || decay[1] != 1)) {
#pragma unroll
      for (int i = 0; i < kColumns / 2; ++i) values[i] *= decay[i / 2 % 2];
    }
    ptx::named_bar_sync(2, 256);
  }

  KW_DEVICE void finish(const float (&values)[kColumns / 2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum_[half] = lanes_sum<4>(sum_[half]);
      if (ptx::lane_id() % 4 == 0) tops()[consumer_ * Sm90Shape::kM + row(half)] = sum_[half];
    }
    ptx::named_bar_sync(1, 256);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const RowPlace at(p_, frame_.place, row(half));
      if (!at.inside) continue;
      const RowEnd end(p_, at, maximum_[half] * kLn2, tops()[row(half)] + tops()[Sm90Shape::kM + row(half)]);
      if (consumer_ == 0 && ptx::lane_id() % 4 == 0) store_lse(p_, frame_.place, at, end.lse);
      if (!at.whole && end.factor == 0) continue;
      const RowTarget target(p_, frame_.place, at);
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n)
        target.store(p_, consumer_ * kColumns + 8 * n + ptx::lane_id() % 4 * 2, end.scaled(values[4 * n + 2 * half]),
                     end.scaled(values[4 * n + 2 * half + 1]));
    }
  }

  static KW_DEVICE float* tops() { return reinterpret_cast<float*>(dyn_smem() + Sm90Shape::kTops); }
  static KW_DEVICE int warp() { return static_cast<int>(threadIdx.x) % 128 / 32; }
  KW_DEVICE int row(int half) const { return 16 * warp() + ptx::lane_id() / 4 + 8 * half; }

  const PagedParams& p_;
  const Sm90Memory& memory_;
  const Frame& frame_;
  int consumer_;
  float maximum_[2] = {negative_infinity(), negative_infinity()}, sum_[2] = {};  // maximum as a power of two
};

// The rows of the block into slabs, by all threads; rows that are not there are zeros.
KW_DEVICE void sm90_load_queries(const PagedParams& p, const Place& place) {
  const uint16_t* q = static_cast<const uint16_t*>(p.q.data) + place.batch * p.q.batch;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < Sm90Shape::kM * Sm90Shape::kSlabs * 8; i += Sm90Shape::kThreads) {
    const int line = i / (Sm90Shape::kSlabs * 8), chunk = i % (Sm90Shape::kSlabs * 8);
    const RowPlace row(p, place, line);
    const uint16_t* from = q + row.query * p.q.row + row.head * p.q.head + 8 * chunk;
    const int count = row.there ? p.dim - 8 * chunk : 0;
    uint4 words = make_uint4(0, 0, 0, 0);
    if (p.q_wide && count >= 8) {
      words = *reinterpret_cast<const uint4*>(from);
    } else if (count > 0) {
      const auto pair = [&](int e) {
        return (e < count ? uint32_t{from[e]} : 0) | (e + 1 < count ? uint32_t{from[e + 1]} : 0) << 16;
      };
      words = make_uint4(pair(0), pair(2), pair(4), pair(6));
    }
    *reinterpret_cast<uint4*>(dyn_smem() + chunk / 8 * Sm90Shape::kSlab + line * 128 +
                              ((chunk % 8) ^ (line & 7)) * 16) = words;
  }
}

template <class T>
static __global__ void __launch_bounds__(Sm90Shape::kThreads, 1)
    attention_mla_sm90(const __grid_constant__ Sm90Params q) {
  const Sm90Memory memory{ptx::smem_u32(dyn_smem())};
  Frame& frame = *reinterpret_cast<Frame*>(dyn_smem() + Sm90Shape::kFrame);
  if (!open_frame<uint16_t>(q.p, Sm90Shape::kM, Sm90Shape::kN, frame)) return;
  const int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0);  // known to be one for a warp
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Sm90Shape::kStages; ++stage) {
      ptx::mbar_init(memory.full(stage), 1);
      ptx::mbar_init(memory.empty(stage), 8);
    }
    ptx::mbar_init(memory.patch(), 1);
    ptx::fence_mbar_init();
  }
  sm90_load_queries(q.p, frame.place);
  ptx::fence_proxy_async();
  __syncthreads();
  if (group == 2) {
    ptx::reg_dec<40>();
    if (threadIdx.x / 32 == 8) sm90_produce(q, memory, frame);
  } else {
    ptx::reg_inc<232>();
    Sm90Consumer<T>(q, memory, frame, group).run();
  }
}

}  // namespace kw::attention_mla_cuda
