// gemm_int4 on tensor cores, compute capability 8.0 and up: weights stay four bits wide until they are an operand of mma. See
// gemm_int4_cuda.cu.
//
// Rows of w are mma's M and rows of x, tokens, its N, so that few tokens cost little. A sum may take k in any order: lane t of
// a quad holds eight neighbours of every 32, one word of w and one 16-byte piece of x, and two m16n8k16 take them as
// (0,4) (1,5) and (2,6) (3,7), the pairs that one AND cuts out of a word.
#pragma once
#include "../core/cuda/lines.cuh"
#include "../gemm/gemm_mma.cuh"

namespace kw::gemm_int4_cuda {

using namespace gemm_cuda;

constexpr int kDepth = 128, kChunk = 32;       // elements of k in a stage; in two mma, and never of two groups
constexpr int kStageGroups = kDepth / kChunk;  // at most

struct Int4Params {
  GemmParams p;
  GemmOperand scales;    // [groups, rows_w]
  const uint8_t* zeros;  // [groups, rows_w], two to a byte; null: 8 everywhere
  int group;
  bool scales_wide, zeros_wide;  // whether 4 bytes of them can be copied at once
};

// x in shared memory: a token is a line of kDepth. A quad reads 64 bytes of its token at once, and odd tokens swap their
// neighbouring 64 bytes, so that the eight lanes of a 16-byte access touch every bank once.
struct TokenTile {
  static constexpr int kChunks = kDepth / 8, kPitch = kDepth * 2;
  static KW_DEVICE uint32_t offset(int line, int chunk) { return line * kPitch + ((chunk ^ ((line & 1) << 2)) << 4); }
  static KW_DEVICE uint32_t lane_offset(int lane) { return offset(lane >> 2, lane & 3); }
  // Elements 32 chunk + 8 t .. of token `token` (a multiple of 8) + g, for lane 4 g + t.
  static KW_DEVICE uint4 piece(const unsigned char* tile, uint32_t lane, int token, int chunk) {
    return *reinterpret_cast<const uint4*>(tile + token * kPitch + (lane ^ (chunk << 6)));
  }
};

// One stage of the ring: w, as lines of 32 16-bit elements; x; scales and zeros of the groups that the stage meets.
template <class Shape>
struct Stage {
  using Weights = KContiguousTile<Shape::kN>;
  static_assert(Weights::kBytes == Shape::kN * kDepth / 2);
  static constexpr int kX = Weights::kBytes, kScales = kX + Shape::kM * TokenTile::kPitch;
  static constexpr int kZeros = kScales + kStageGroups * Shape::kN * 4;
  static constexpr int kBytes = kZeros + kStageGroups * Shape::kN / 2;
};

// This thread's share of copying scales and zeros for k0 .. k0 + depth - 1 of the tile's rows from row0 on.
template <class Shape>
KW_DEVICE void copy_groups(const Int4Params& q, unsigned char* stage, int row0, int k0, int depth) {
  const int first = k0 / q.group, groups = (k0 + min(depth, kDepth) - 1) / q.group - first + 1;
  const TileRows rows = rows_of_w(q.p);
  const int tid = static_cast<int>(threadIdx.x);
  const int wide = q.scales.dtype == DType::f32 ? 1 : 2;  // scales in 4 bytes
  const char* scales = static_cast<const char*>(q.scales.data);
#pragma unroll 1
  for (int item = tid; item < groups * (Shape::kN / wide); item += Shape::kThreads) {
    const int line = item * wide % Shape::kN, group = item * wide / Shape::kN, row = row0 + line;
    const int left = min(rows.limit - rows.output(row), wide);  // of them, what exists
    const char* source = scales + ((first + group) * q.scales.row + rows.operand(row)) * (4 / wide);
    unsigned char* target = stage + Stage<Shape>::kScales + item * 4;
    if (q.scales_wide) {
      ptx::cp_async_4(ptx::smem_u32(target), left > 0 ? source : scales, max(left, 0) * (4 / wide));
    } else {
      const uint16_t* pair = reinterpret_cast<const uint16_t*>(source);
      const uint32_t low = left > 0 ? pair[0] : 0, high = left > 1 ? pair[1] : 0;
      *reinterpret_cast<uint32_t*>(target) = low | high << 16;
    }
  }
  if (!q.zeros) return;
#pragma unroll 1
  for (int item = tid; item < groups * (Shape::kN / 8); item += Shape::kThreads) {
    const int line = item * 8 % Shape::kN, group = item * 8 / Shape::kN, row = row0 + line;
    const int left = min(rows.limit - rows.output(row), 8);
    const int64_t from = (first + group) * q.p.s.rows_w + rows.operand(row);
    unsigned char* target = stage + Stage<Shape>::kZeros + item * 4;
    if (q.zeros_wide) {
      ptx::cp_async_4(ptx::smem_u32(target), left > 0 ? q.zeros + from / 2 : q.zeros, left > 0 ? 4 : 0);
    } else {
      uint32_t word = 0;
#pragma unroll 1
      for (int e = 0; e < left; ++e) word |= (q.zeros[(from + e) >> 1] >> ((from + e) % 2 * 4) & 15u) << (4 * e);
      *reinterpret_cast<uint32_t*>(target) = word;
    }
  }
}

// What is subtracted from a pair of biased weights: 128 + zero in bf16, 1024 + zero in f16, where neighbours are 1 apart.
template <bool kBf16>
KW_DEVICE uint32_t biased_pair(uint32_t zero) {
  return ((kBf16 ? 0x4300u : 0x6400u) + zero) * 0x10001u;
}

// Elements i and i + 4 of a word less their zero, exactly: no product of zero and scale is ever rounded.
template <bool kBf16>
KW_DEVICE uint32_t code_pair(uint32_t word, int i, uint32_t zero) {
  const uint32_t biased = (word >> (4 * i) & 0x000f000fu) | (kBf16 ? 0x43004300u : 0x64006400u);
  if constexpr (kBf16) {
    const __nv_bfloat162 code =
        __hsub2(reinterpret_cast<const __nv_bfloat162&>(biased), reinterpret_cast<const __nv_bfloat162&>(zero));
    return reinterpret_cast<const uint32_t&>(code);
  } else {
    const __half2 code = __hsub2(reinterpret_cast<const __half2&>(biased), reinterpret_cast<const __half2&>(zero));
    return reinterpret_cast<const uint32_t&>(code);
  }
}

KW_DEVICE uint32_t low_halves(uint32_t a, uint32_t b) { return (a & 0xffffu) | b << 16; }
KW_DEVICE uint32_t high_halves(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000u); }

// A warp's part of a tile: sums, and the sums of the group that is being taken, still without their scale.
template <bool kBf16, class Shape>
struct Warp {
  using St = Stage<Shape>;
  static constexpr int kSlabs = Shape::kWarpN / 16, kTokens = Shape::kWarpM / 8, kPitch = Shape::kWarpN + 8;
  static constexpr int kStaged = Shape::kWarpM < 16 ? 8 : 16;  // tokens that leave at a time
  static_assert(Shape::kWarpM % kStaged == 0 && Shape::kWarpN % 16 == 0);
  static_assert(Shape::kThreads / 32 * kStaged * kPitch * 4 <= Shape::kStages * St::kBytes, "epilogue reuses the ring");

  float sum[kSlabs][kTokens][4], part[kSlabs][kTokens][4];
  uint32_t zero[kSlabs][2];  // of rows g and g + 8 of each slab, as biased_pair
  int row, token;            // of the warp within the tile
  uint32_t w_lane, x_lane;
  int chunks, chunks_left;  // of kChunk: in a group, of this one
  int remaining;            // of them in this block's part of k
  bool fresh;               // a group begins: its zeros are to be read

  KW_DEVICE Warp() {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = ptx::lane_id();
    token = warp / Shape::kWarpsN * Shape::kWarpM;
    row = warp % Shape::kWarpsN * Shape::kWarpN;
    w_lane = St::Weights::lane_offset(lane);
    x_lane = TokenTile::lane_offset(lane);
  }

  KW_DEVICE void begin(const Int4Params& q, DepthRange depth) {
    remaining = depth.size / kChunk;
    chunks = q.group / kChunk;
    chunks_left = remaining ? chunks - depth.begin / kChunk % chunks : 0;
    fresh = true;
#pragma unroll
    for (int s = 0; s < kSlabs; ++s)
#pragma unroll
      for (int j = 0; j < kTokens; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[s][j][e] = part[s][j][e] = 0.0f;
  }

  // Line g of slab s in the stage's scales and zeros; g + 8 is 8 further.
  KW_DEVICE int line(int slot, int s) const { return slot * Shape::kN + row + 16 * s + (ptx::lane_id() >> 2); }

  KW_DEVICE void read_zeros(const Int4Params& q, const unsigned char* stage, int slot) {
#pragma unroll
    for (int s = 0; s < kSlabs; ++s)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int at = line(slot, s) + 8 * h;
        zero[s][h] = biased_pair<kBf16>(q.zeros ? stage[St::kZeros + at / 2] >> (at % 2 * 4) & 15u : 8u);
      }
  }

  KW_DEVICE void finish_group(const Int4Params& q, const unsigned char* stage, int slot) {
#pragma unroll
    for (int s = 0; s < kSlabs; ++s) {
      const int at = line(slot, s);
      const float scale[2] = {load1(stage + St::kScales, q.scales.dtype, at),
                              load1(stage + St::kScales, q.scales.dtype, at + 8)};
#pragma unroll
      for (int j = 0; j < kTokens; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sum[s][j][e] = fmaf(part[s][j][e], scale[e / 2], sum[s][j][e]);
          part[s][j][e] = 0.0f;
        }
    }
  }

  KW_DEVICE void multiply(const Int4Params& q, const unsigned char* stage) {
    const uint32_t weights = ptx::smem_u32(stage);
    const unsigned char* x = stage + St::kX + token * TokenTile::kPitch;
    int slot = 0;  // of the group within the stage
#pragma unroll
    for (int step = 0; step < kStageGroups / 2; ++step) {
      uint32_t words[kSlabs][4];  // chunk 2 step of rows g and g + 8, then the next chunk
#pragma unroll
      for (int s = 0; s < kSlabs; ++s) St::Weights::fragment(words[s], weights, w_lane, row + 16 * s, step);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (remaining == 0) return;
        if (fresh) read_zeros(q, stage, slot);
        uint32_t a[kSlabs][2][4];
#pragma unroll
        for (int s = 0; s < kSlabs; ++s)
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int h = 0; h < 2; ++h)
              a[s][i / 2][i % 2 * 2 + h] = code_pair<kBf16>(words[s][2 * half + h], i, zero[s][h]);
#pragma unroll
        for (int j = 0; j < kTokens; ++j) {
          const uint4 v = TokenTile::piece(x, x_lane, 8 * j, 2 * step + half);
          const uint32_t b[2][2] = {{low_halves(v.x, v.z), high_halves(v.x, v.z)},
                                    {low_halves(v.y, v.w), high_halves(v.y, v.w)}};
#pragma unroll
          for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int s = 0; s < kSlabs; ++s) mma<kBf16>(part[s][j], a[s][i], b[i]);
        }
        --remaining;
        fresh = --chunks_left == 0;
        if (fresh || remaining == 0) finish_group(q, stage, slot++);
        if (fresh) chunks_left = chunks;
      }
    }
  }

  // Every warp must be done with the ring, whose memory `staged` reuses.
  KW_DEVICE void leave(const GemmParams& p, unsigned char* smem, int64_t batch, TilePlace place) {
    const int lane = ptx::lane_id();
    float* staged = reinterpret_cast<float*>(smem) + threadIdx.x / 32 * kStaged * kPitch;
    float* mine = staged + (lane & 3) * 2 * kPitch + (lane >> 2);
#pragma unroll 1
    for (int first = 0; first < kTokens; first += kStaged / 8) {
#pragma unroll
      for (int j = 0; j < kTokens; ++j) {
        const int at = 8 * (j - first);
        if (at < 0 || at >= kStaged) continue;
#pragma unroll
        for (int s = 0; s < kSlabs; ++s)
#pragma unroll
          for (int e = 0; e < 4; ++e) mine[(at + e % 2) * kPitch + 16 * s + 8 * (e / 2)] = sum[s][j][e];
      }
      __syncwarp();
      leave_rows<Shape::kWarpN, kStaged>(p, staged, batch, place.row + token + 8 * first, place.column + row);
      __syncwarp();
    }
  }
};

template <bool kBf16, class Shape>
static __global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    gemm_int4_mma(const __grid_constant__ Int4Params q) {
  using St = Stage<Shape>;
  constexpr int kStages = Shape::kStages;
  const GemmParams& p = q.p;
  unsigned char* smem = dyn_smem();
  const DepthRange depth = depth_range(p);
  const int tiles = (depth.size + kDepth - 1) / kDepth;
  const TilePlace place = tile_place(p, Shape::kM, Shape::kN);
  Warp<kBf16, Shape> warp;
  for (int64_t batch = blockIdx.z; batch < p.s.batch; batch += gridDim.z) {
    TileLoader<typename St::Weights, Shape::kThreads> w(static_cast<const uint8_t*>(p.s.w.data) + depth.begin / 2,
                                                        p.s.k / 4, 1, rows_of_w(p), place.column, depth.size / 4);
    const uint16_t* x = batch_data(p.s.x, batch, depth.begin);
    int loaded = 0, filling = 0;
    const auto fill = [&] {  // one group per call, empty once every tile is on its way
      if (loaded < tiles) {
        unsigned char* stage = smem + filling * St::kBytes;
        const int k0 = loaded * kDepth;
        w.copy(ptx::smem_u32(stage));
        copy_lines<TokenTile, Shape::kM, Shape::kThreads>(
            stage + St::kX, static_cast<int>(threadIdx.x), depth.size - k0, p.x_wide, x,
            [&](int line) { return place.row + line < p.s.m ? x + (place.row + line) * p.s.x.row + k0 : nullptr; });
        copy_groups<Shape>(q, stage, place.column, depth.begin + k0, depth.size - k0);
        ++loaded;
        filling = filling + 1 == kStages ? 0 : filling + 1;
      }
      ptx::cp_async_commit();
    };
    warp.begin(q, depth);
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) fill();
    int reading = 0;
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
      ptx::cp_async_wait<kStages - 2>();
      __syncthreads();  // also: every warp is done with the stage that the next fill overwrites
      fill();
      warp.multiply(q, smem + reading * St::kBytes);
      reading = reading + 1 == kStages ? 0 : reading + 1;
    }
    __syncthreads();
    warp.leave(p, smem, batch, place);
    __syncthreads();
  }
}

}  // namespace kw::gemm_int4_cuda
