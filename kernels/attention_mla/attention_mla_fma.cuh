// attention_mla of f32 with IEEE fma, any compute capability. See attention_mla_cuda.cu.
#pragma once
#include "../attention_gqa/attention_gqa_fma.cuh"
#include "../attention_gqa_paged/attention_gqa_paged_walk.cuh"

namespace kw::attention_mla_cuda {

using namespace attention_gqa_cuda;

// 16 rows by 16 keys, 128 threads: thread 16 a + b has rows 2 a and 2 a + 1, key b, and four columns of y from 4 b + 64 i.
// Rows of the cache lie in shared memory once: they are keys, then values.
template <int Dim, int DimV>
struct LatentFmaShape {
  static constexpr int kDim = Dim, kDimV = DimV, kM = 16, kN = 16, kThreads = 128;
  static constexpr int kPitch = Dim + 4, kScorePitch = kN + 4;
  static constexpr int kQ = 0, kK = kM * kPitch, kScores = kK + kN * kPitch;  // in floats
  static constexpr int kFrame = 4 * (kScores + kM * kScorePitch), kSmem = kFrame + sizeof(Frame);
  static_assert(Dim % 64 == 0 && DimV % 64 == 0);
};

template <class Shape>
static __global__ void __launch_bounds__(Shape::kThreads, 1) attention_mla_fma(const __grid_constant__ PagedParams p) {
  constexpr int kM = Shape::kM, kN = Shape::kN, kDim = Shape::kDim, kColumns = Shape::kDimV / 64;
  unsigned char* smem = dyn_smem();
  Frame& frame = *reinterpret_cast<Frame*>(smem + Shape::kFrame);
  if (!open_frame<float>(p, kM, kN, frame)) return;
  const Place& place = frame.place;
  const Walk& walk = frame.walk;
  float* floats = reinterpret_cast<float*>(smem);
  const uint32_t base = ptx::smem_u32(smem);
  const int row0 = static_cast<int>(threadIdx.x) / 16 * 2, b = static_cast<int>(threadIdx.x) % 16;

  const float* q = static_cast<const float*>(p.q.data) + place.batch * p.q.batch;
  copy_floats<kM, kDim, Shape::kThreads>(base + 4 * Shape::kQ, p.dim, p.q_wide, q, [&](int line) {
    const RowPlace row(p, place, line);
    return row.there ? q + row.query * p.q.row + row.head * p.q.head : nullptr;
  });
  ptx::cp_async_commit();

  float values[2][kColumns][4] = {};
  float maximum[2] = {negative_infinity(), negative_infinity()}, sum[2] = {};
#pragma unroll 1
  for (int tile = walk.begin; tile < walk.end; ++tile) {
    __syncthreads();  // everyone is done with the rows before
    copy_floats<kN, kDim, Shape::kThreads>(base + 4 * Shape::kK, p.dim, p.k_wide, frame.k,
                                           keys_from<float>(p, frame, tile * kN));
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();
    float s[2] = {};
#pragma unroll 8
    for (int e = 0; e < kDim; e += 4) {
      const float4 k = *reinterpret_cast<const float4*>(floats + Shape::kK + b * Shape::kPitch + e);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float4 a = *reinterpret_cast<const float4*>(floats + Shape::kQ + (row0 + r) * Shape::kPitch + e);
        s[r] = fmaf(a.w, k.w, fmaf(a.z, k.z, fmaf(a.y, k.y, fmaf(a.x, k.x, s[r]))));
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const RowPlace row(p, place, row0 + r);
      const int key = tile * kN + b;
      const bool seen = row.there && key < place.len_kv && key <= row.query + walk.shift + p.right;
      const float t = seen ? s[r] * p.scale : negative_infinity();
      const float top = fmaxf(maximum[r], lanes_max<16>(t));
      const float shift = finite_or_zero(top), decay = expf(maximum[r] - shift), w = expf(t - shift);
      maximum[r] = top;
      floats[Shape::kScores + (row0 + r) * Shape::kScorePitch + b] = w;
      sum[r] = fmaf(sum[r], decay, w);
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) values[r][c][e] *= decay;
    }
    __syncwarp();  // a row's weights come from half of one warp
#pragma unroll 1
    for (int key = 0; key < kN; ++key) {
      const float w[2] = {floats[Shape::kScores + row0 * Shape::kScorePitch + key],
                          floats[Shape::kScores + (row0 + 1) * Shape::kScorePitch + key]};
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const float4 v = *reinterpret_cast<const float4*>(floats + Shape::kK + key * Shape::kPitch + 4 * b + 64 * c);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          values[r][c][0] = fmaf(w[r], v.x, values[r][c][0]);
          values[r][c][1] = fmaf(w[r], v.y, values[r][c][1]);
          values[r][c][2] = fmaf(w[r], v.z, values[r][c][2]);
          values[r][c][3] = fmaf(w[r], v.w, values[r][c][3]);
        }
      }
    }
  }
  ptx::cp_async_wait<0>();

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float total = lanes_sum<16>(sum[r]);
    const RowPlace row(p, place, row0 + r);
    if (!row.inside) continue;
    const RowEnd end(p, row, maximum[r], total);
    if (b == 0) store_lse(p, place, row, end.lse);
    if (!row.whole && end.factor == 0) continue;
    const RowTarget target(p, place, row);
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int e = 0; e < 4; e += 2)
        target.store(p, 4 * b + 64 * c + e, end.scaled(values[r][c][e]), end.scaled(values[r][c][e + 1]));
  }
}

}  // namespace kw::attention_mla_cuda
