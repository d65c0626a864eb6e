// attention_mla of bf16 and f16 on tensor cores, compute capability 8.0 and up. See attention_mla_cuda.cu.
#pragma once
#include "../attention_gqa_paged/attention_gqa_paged_walk.cuh"
#include "../core/cuda/lines.cuh"

namespace kw::attention_mla_cuda {

using namespace attention_gqa_cuda;

// kM rows by kN keys. Warp 16 rows x 1/kColumnWarps of the keys for S, the same rows x 1/kColumnWarps of the columns for P C:
// the weights meet in shared memory in between. A slot holds kN rows of the cache, which are keys and values at once.
template <int Dim, int DimV, int RowWarps, int ColumnWarps, int N, int Slots>
struct LatentShape {
  static constexpr int kDim = Dim, kDimV = DimV, kRowWarps = RowWarps, kColumnWarps = ColumnWarps, kN = N;
  static constexpr int kSlots = Slots, kM = 16 * RowWarps, kThreads = 32 * RowWarps * ColumnWarps;
  static constexpr int kWarpKeys = N / ColumnWarps, kWarpColumns = DimV / ColumnWarps;
  static constexpr int kSlotBytes = N * Dim * 2;
  static constexpr int kRing = kM * Dim * 2, kWeights = kRing + Slots * kSlotBytes, kTops = kWeights + kM * N * 2;
  static constexpr int kFrame = kTops + ColumnWarps * kM * 4, kSmem = kFrame + sizeof(Frame);
  static_assert(kWarpKeys == 8 || kWarpKeys == 16);
  static_assert(Dim % 64 == 0 && kWarpColumns % 16 == 0 && N % 32 == 0 && Slots > 1);
};

template <bool kBf16, class Shape>
static __global__ void __launch_bounds__(Shape::kThreads, 1) attention_mla_mma(const __grid_constant__ PagedParams p) {
  using QueryTile = LineTile<Shape::kDim>;
  using KeyTile = LineTile<Shape::kDim>;
  using WeightTile = LineTile<Shape::kN>;
  constexpr int kM = Shape::kM, kN = Shape::kN, kSlots = Shape::kSlots, kKeys = Shape::kWarpKeys / 8;
  constexpr int kValues = Shape::kWarpColumns / 8;

  unsigned char* smem = dyn_smem();
  Frame& frame = *reinterpret_cast<Frame*>(smem + Shape::kFrame);
  if (!open_frame<uint16_t>(p, kM, kN, frame)) return;
  const Place& place = frame.place;
  const Walk& walk = frame.walk;
  const int tid = static_cast<int>(threadIdx.x), lane = ptx::lane_id();
  const int warp_row = tid / 32 / Shape::kColumnWarps * 16, part = tid / 32 % Shape::kColumnWarps;
  float* tops = reinterpret_cast<float*>(smem + Shape::kTops);

  // ---- copies
  const uint16_t* q = static_cast<const uint16_t*>(p.q.data) + place.batch * p.q.batch;
  copy_lines<QueryTile, kM, Shape::kThreads>(smem, tid, p.dim, p.q_wide, q, [&](int line) {
    const RowPlace row(p, place, line);
    return row.there ? q + row.query * p.q.row + row.head * p.q.head : nullptr;
  });
  int filling = 0, reading = 0;
  const auto fill = [&](int tile) {
    if (tile < walk.end)
      copy_lines<KeyTile, kN, Shape::kThreads>(smem + Shape::kRing + filling * Shape::kSlotBytes, tid, p.dim, p.k_wide,
                                               frame.k, keys_from<uint16_t>(p, frame, tile * kN));
    ptx::cp_async_commit();
    filling = filling + 1 == kSlots ? 0 : filling + 1;
  };
#pragma unroll
  for (int i = 0; i < kSlots - 1; ++i) fill(walk.begin + i);

  // ---- state of this lane's rows, lane / 4 and + 8 of the warp's
  float values[kValues][4] = {};
  float maximum[2] = {negative_infinity(), negative_infinity()}, sum[2] = {};  // maximum as a power of two
  const uint32_t q_tile = ptx::smem_u32(smem), ring = q_tile + Shape::kRing, weights = q_tile + Shape::kWeights;
  const uint32_t q_lane = QueryTile::lane_offset(lane), k_lane = KeyTile::lane_offset(lane);
  const uint32_t k_lane_8 = KeyTile::lane_offset_8(lane), w_lane = WeightTile::lane_offset(lane);
  const float to_log2 = p.scale * kLog2E;

#pragma unroll 1
  for (int tile = walk.begin; tile < walk.end; ++tile) {
    ptx::cp_async_wait<kSlots - 2>();
    __syncthreads();  // the slot is there, and everyone is done with the one before and with the weights
    fill(tile + kSlots - 1);
    const uint32_t slot = ring + reading * Shape::kSlotBytes;
    reading = reading + 1 == kSlots ? 0 : reading + 1;

    // ---- scores of this warp's keys
    float s[kKeys][4] = {};
#pragma unroll 6
    for (int step = 0; step < Shape::kDim / 16; step += 2) {
      uint32_t a[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) QueryTile::fragment(a[i], q_tile, q_lane, warp_row, step + i);
      if constexpr (kKeys == 1) {
        uint32_t b[4];
        KeyTile::fragment_8(b, slot, k_lane_8, 8 * part, step / 2);
        const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
        mma_m16n8k16<kBf16>(s[0], a[0], first);
        mma_m16n8k16<kBf16>(s[0], a[1], second);
      } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          uint32_t b[4];
          KeyTile::fragment(b, slot, k_lane, 16 * part, step + i);
          const uint32_t low[2] = {b[0], b[2]}, high[2] = {b[1], b[3]};
          mma_m16n8k16<kBf16>(s[0], a[i], low);
          mma_m16n8k16<kBf16>(s[1], a[i], high);
        }
      }
    }
    const int key0 = tile * kN, key = key0 + Shape::kWarpKeys * part + lane % 4 * 2;  // of this lane's first column
    const bool edge = walk.edge(p, place, key0, kN);
    float top[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int to = kN;  // columns seen, from `key` on
      if (edge) {
        const int position = (place.row0 + warp_row + lane / 4 + 8 * half) / p.pack + walk.shift;
        to = min(place.len_kv, position + p.right + 1) - key;
      }
      top[half] = negative_infinity();
#pragma unroll
      for (int n = 0; n < kKeys; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[n][2 * half + e];
          x = 8 * n + e < to ? x * to_log2 : negative_infinity();
          top[half] = fmaxf(top[half], x);
        }
      top[half] = lanes_max<4>(top[half]);
      if (lane % 4 == 0) tops[part * kM + warp_row + lane / 4 + 8 * half] = top[half];
    }
    __syncthreads();

    // ---- running maximum and sum, the same in all warps of a row; weights to shared memory
    float decay[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + lane / 4 + 8 * half;
      float highest = maximum[half];
#pragma unroll
      for (int i = 0; i < Shape::kColumnWarps; ++i) highest = fmaxf(highest, tops[i * kM + row]);
      const float base = finite_or_zero(highest);
      decay[half] = ptx::ex2(maximum[half] - base);
      maximum[half] = highest;
      float added = 0;
#pragma unroll
      for (int n = 0; n < kKeys; ++n) {
        const float low = ptx::ex2(s[n][2 * half] - base), high = ptx::ex2(s[n][2 * half + 1] - base);
        added += low + high;
        const int at = WeightTile::offset(row, kKeys * part + n) + lane % 4 * 4;
        *reinterpret_cast<uint32_t*>(smem + Shape::kWeights + at) = pack2<kBf16>(low, high);
      }
      sum[half] = fmaf(sum[half], decay[half], added);
    }
    if (__any_sync(0xffffffffu, decay[0] != 1 || decay[1] != 1)) {
#pragma unroll
      for (int n = 0; n < kValues; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) values[n][e] *= decay[e / 2];
    }
    __syncthreads();

    // ---- this warp's columns
#pragma unroll
    for (int step = 0; step < kN / 16; ++step) {
      uint32_t a[4];
      WeightTile::fragment(a, weights, w_lane, warp_row, step);
#pragma unroll
      for (int n = 0; n < kValues / 2; ++n) {
        uint32_t b[4];
        KeyTile::fragment_trans(b, slot, k_lane, 16 * step, kValues / 2 * part + n);
        const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
        mma_m16n8k16<kBf16>(values[2 * n], a, low);
        mma_m16n8k16<kBf16>(values[2 * n + 1], a, high);
      }
    }
  }
  ptx::cp_async_wait<0>();

  // ---- finished rows: the warps' sums, in order
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] = lanes_sum<4>(sum[half]);
    if (lane % 4 == 0) tops[part * kM + warp_row + lane / 4 + 8 * half] = sum[half];
  }
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int line = warp_row + lane / 4 + 8 * half;
    const RowPlace row(p, place, line);
    if (!row.inside) continue;
    float total = 0;
#pragma unroll
    for (int i = 0; i < Shape::kColumnWarps; ++i) total += tops[i * kM + line];
    const RowEnd end(p, row, maximum[half] * kLn2, total);
    if (part == 0 && lane % 4 == 0) store_lse(p, place, row, end.lse);
    if (!row.whole && end.factor == 0) continue;
    const RowTarget target(p, place, row);
#pragma unroll
    for (int n = 0; n < kValues; ++n)
      target.store(p, Shape::kWarpColumns * part + 8 * n + lane % 4 * 2, end.scaled(values[n][2 * half]),
                   end.scaled(values[n][2 * half + 1]));
  }
}

}  // namespace kw::attention_mla_cuda
