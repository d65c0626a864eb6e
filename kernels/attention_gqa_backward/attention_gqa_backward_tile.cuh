// The arithmetic of attention_gqa_backward's CUDA kernels on a pair of tiles, once with tensor cores and once with fma. A block has
// kM lines of its own (rows of q and dy, or keys and values) and goes over kN lines of the other kind at a time:
//   scores    own x . other x' and own z . other z' for each pair of lines
//   add       sums += weights * other x' (or z'), the weights being scores in the place where products left them
// Which lane has which pair of lines, and which element of a sum, only each() says.
#pragma once
#include "../attention_gqa/attention_gqa_fma.cuh"
#include "../core/cuda/lines.cuh"

namespace kw::attention_gqa_backward_cuda {

// bf16 and f16: m16n8k16, a warp has 16 own lines. The accumulators of scores, rounded, are operand A of the sums.
template <bool kBf16, int Dim, int N>
struct MmaTile {
  static constexpr int kDim = Dim, kM = 64, kN = N, kThreads = 128;
  static constexpr bool kMma = true;
  using Element = uint16_t;
  using Lines = LineTile<Dim>;
  static constexpr int kOwnX = 0, kOwnZ = kOwnX + kM * Dim * 2, kX = kOwnZ + kM * Dim * 2, kZ = kX + N * Dim * 2,
                       kBytes = kZ + N * Dim * 2;
  struct Scores {
    float v[N / 8][4];
  };
  struct Sums {
    float v[Dim / 8][4];
  };

  template <int kLines, class Source>
  static KW_DEVICE void load(unsigned char* smem, int tile, int elements, bool wide, const void* valid, Source source) {
    copy_lines<Lines, kLines, kThreads>(smem + tile, static_cast<int>(threadIdx.x), elements, wide, valid, source);
  }

  static KW_DEVICE void products(unsigned char* smem, int own, int other, Scores& s) {
    const uint32_t lane = Lines::lane_offset(ptx::lane_id());
    const uint32_t a_tile = ptx::smem_u32(smem + own), b_tile = ptx::smem_u32(smem + other);
    const int line = static_cast<int>(threadIdx.x) / 32 * 16;
#pragma unroll
    for (int n = 0; n < N / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) s.v[n][e] = 0;
#pragma unroll
    for (int step = 0; step < Dim / 16; ++step) {
      uint32_t a[4];
      Lines::fragment(a, a_tile, lane, line, step);
#pragma unroll
      for (int n = 0; n < N / 16; ++n) {
        uint32_t b[4];
        Lines::fragment(b, b_tile, lane, 16 * n, step);
        const uint32_t low[2] = {b[0], b[2]}, high[2] = {b[1], b[3]};
        mma_m16n8k16<kBf16>(s.v[2 * n], a, low);
        mma_m16n8k16<kBf16>(s.v[2 * n + 1], a, high);
      }
    }
  }

  static KW_DEVICE void add(unsigned char* smem, int other, const Scores& w, Sums& sums) {
    const uint32_t lane = Lines::lane_offset(ptx::lane_id()), tile = ptx::smem_u32(smem + other);
#pragma unroll
    for (int step = 0; step < N / 16; ++step) {
      uint32_t a[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float(&s)[4] = w.v[2 * step + e / 2];
        a[e] = pack2<kBf16>(s[e % 2 * 2], s[e % 2 * 2 + 1]);
      }
#pragma unroll
      for (int n = 0; n < Dim / 16; ++n) {
        uint32_t b[4];
        Lines::fragment_trans(b, tile, lane, 16 * step, n);
        const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
        mma_m16n8k16<kBf16>(sums.v[2 * n], a, low);
        mma_m16n8k16<kBf16>(sums.v[2 * n + 1], a, high);
      }
    }
  }

  // visit(own line, other line, s, d)
  template <class Visit>
  static KW_DEVICE void each(Scores& s, Scores& d, Visit visit) {
    const int lane = ptx::lane_id(), line = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
#pragma unroll
    for (int n = 0; n < N / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) visit(line + e / 2 * 8, 8 * n + lane % 4 * 2 + e % 2, s.v[n][e], d.v[n][e]);
  }
  // visit(own line, column, value, value of the next column)
  template <class Visit>
  static KW_DEVICE void each(const Sums& sums, Visit visit) {
    const int lane = ptx::lane_id(), line = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
#pragma unroll
    for (int n = 0; n < Dim / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; e += 2) visit(line + e * 4, 8 * n + lane % 4 * 2, sums.v[n][e], sums.v[n][e + 1]);
  }
};

// f32 with IEEE fma: thread 16 a + b has own lines 4 a to 4 a + 3, other lines b + 16 i, columns of sums from 4 b + 64 i. Weights
// go through shared memory, between the half warps that share lines.
template <int Dim, int M, int N>
struct FmaTile {
  static constexpr int kDim = Dim, kM = M, kN = N, kThreads = 4 * M, kPitch = Dim + 4, kWeightPitch = N + 4;
  static constexpr bool kMma = false;
  using Element = float;
  static constexpr int kOwnX = 0, kOwnZ = kOwnX + 4 * M * kPitch, kX = kOwnZ + 4 * M * kPitch, kZ = kX + 4 * N * kPitch,
                       kWeights = kZ + 4 * N * kPitch, kBytes = kWeights + 4 * M * kWeightPitch;
  struct Scores {
    float v[4][N / 16];
  };
  struct Sums {
    float v[4][Dim / 64][4];
  };

  template <int kLines, class Source>
  static KW_DEVICE void load(unsigned char* smem, int tile, int elements, bool wide, const void* valid, Source source) {
    attention_gqa_cuda::copy_floats<kLines, Dim, kThreads>(ptx::smem_u32(smem + tile), elements, wide, valid, source);
  }
  static KW_DEVICE int line() { return static_cast<int>(threadIdx.x) / 16 * 4; }
  static KW_DEVICE int lane() { return static_cast<int>(threadIdx.x) % 16; }

  static KW_DEVICE void products(unsigned char* smem, int own, int other, Scores& s) {
    const float* a = reinterpret_cast<const float*>(smem + own) + line() * kPitch;
    const float* b = reinterpret_cast<const float*>(smem + other) + lane() * kPitch;
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int i = 0; i < N / 16; ++i) s.v[r][i] = 0;
#pragma unroll 4
    for (int e = 0; e < Dim; e += 4) {
#pragma unroll
      for (int i = 0; i < N / 16; ++i) {
        const float4 y = *reinterpret_cast<const float4*>(b + 16 * i * kPitch + e);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const float4 x = *reinterpret_cast<const float4*>(a + r * kPitch + e);
          s.v[r][i] = fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, s.v[r][i]))));
        }
      }
    }
  }

  static KW_DEVICE void add(unsigned char* smem, int other, const Scores& w, Sums& sums) {
    float* weights = reinterpret_cast<float*>(smem + kWeights) + line() * kWeightPitch;
    const float* x = reinterpret_cast<const float*>(smem + other) + 4 * lane();
    __syncwarp();  // the weights before these are used
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int i = 0; i < N / 16; ++i) weights[r * kWeightPitch + lane() + 16 * i] = w.v[r][i];
    __syncwarp();
#pragma unroll 2
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int c = 0; c < Dim / 64; ++c) {
        const float4 v = *reinterpret_cast<const float4*>(x + j * kPitch + 64 * c);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const float weight = weights[r * kWeightPitch + j];
          sums.v[r][c][0] = fmaf(weight, v.x, sums.v[r][c][0]);
          sums.v[r][c][1] = fmaf(weight, v.y, sums.v[r][c][1]);
          sums.v[r][c][2] = fmaf(weight, v.z, sums.v[r][c][2]);
          sums.v[r][c][3] = fmaf(weight, v.w, sums.v[r][c][3]);
        }
      }
  }

  template <class Visit>
  static KW_DEVICE void each(Scores& s, Scores& d, Visit visit) {
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int i = 0; i < N / 16; ++i) visit(line() + r, lane() + 16 * i, s.v[r][i], d.v[r][i]);
  }
  template <class Visit>
  static KW_DEVICE void each(const Sums& sums, Visit visit) {
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int c = 0; c < Dim / 64; ++c)
#pragma unroll
        for (int e = 0; e < 4; e += 2) visit(line() + r, 4 * lane() + 64 * c + e, sums.v[r][c][e], sums.v[r][c][e + 1]);
  }
};

}  // namespace kw::attention_gqa_backward_cuda
