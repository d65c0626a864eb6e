// attention_gqa of f32 with IEEE fma, any compute capability. See attention_gqa_cuda.cu.
#pragma once
#include "attention_gqa_walk.cuh"

namespace kw::attention_gqa_cuda {

// 32 rows by kN keys, 128 threads: thread 16 a + b has rows 4 a to 4 a + 3, keys b + 16 i and four columns of the values
// from 4 b + 64 i. Lines are kDim floats and 4 of padding, so that 16 threads reading neighbouring lines meet no bank twice.
template <int Dim, int N, int Blocks>
struct FmaShape {
  static constexpr int kDim = Dim, kN = N, kM = 32, kThreads = 128, kBlocks = Blocks;
  static constexpr int kPitch = Dim + 4, kScorePitch = N + 4;
  static constexpr int kQ = 0, kK = kQ + kM * kPitch, kV = kK + N * kPitch, kScores = kV + N * kPitch;  // in floats
  static constexpr int kFrame = 4 * (kScores + kM * kScorePitch), kSmem = kFrame + sizeof(Frame);
};

// Lines of floats by cp.async; source(line) is where a line begins, or null for zeros.
template <int kLines, int kDim, int kThreads, class Source>
KW_DEVICE void copy_floats(uint32_t tile, int elements, bool wide, const void* valid, Source source) {
  const int tid = static_cast<int>(threadIdx.x);
  if (wide) {
    constexpr int kChunks = kDim / 4;
#pragma unroll 4
    for (int item = tid; item < kLines * kChunks; item += kThreads) {
      const int line = item / kChunks, e = item % kChunks * 4;
      const float* from = source(line);
      const int bytes = from ? min(max(4 * (elements - e), 0), 16) : 0;
      ptx::cp_async_16(tile + 4 * (line * (kDim + 4) + e), bytes ? from + e : valid, bytes);
    }
  } else {
#pragma unroll 4
    for (int item = tid; item < kLines * kDim; item += kThreads) {
      const int line = item / kDim, e = item % kDim;
      const float* from = source(line);
      const bool there = from && e < elements;
      ptx::cp_async_4(tile + 4 * (line * (kDim + 4) + e), there ? from + e : valid, there ? 4 : 0);
    }
  }
}

template <class Shape, class P = Params>
static __global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) attention_fma(const __grid_constant__ P p) {
  constexpr int kM = Shape::kM, kN = Shape::kN, kDim = Shape::kDim, kKeys = kN / 16, kColumns = kDim / 64;
  unsigned char* smem = dyn_smem();
  Frame& frame = *reinterpret_cast<Frame*>(smem + Shape::kFrame);
  if (!open_frame<float>(p, kM, kN, frame)) return;
  const Place& place = frame.place;
  const Walk& walk = frame.walk;
  float* floats = reinterpret_cast<float*>(smem);
  const uint32_t base = ptx::smem_u32(smem);
  const int row0 = static_cast<int>(threadIdx.x) / 16 * 4, b = static_cast<int>(threadIdx.x) % 16;

  const float* q = static_cast<const float*>(p.q.data) + place.batch * p.q.batch + place.first_q * p.q.row;
  copy_floats<kM, kDim, Shape::kThreads>(base + 4 * Shape::kQ, p.dim, p.q_wide, q, [&](int line) {
    const RowPlace row(p, place, line);
    return row.there ? q + row.query * p.q.row + row.head * p.q.head : nullptr;
  });
  const auto fill_keys = [&](int tile) {
    if (tile < walk.end)
      copy_floats<kN, kDim, Shape::kThreads>(base + 4 * Shape::kK, p.dim, p.k_wide, frame.k,
                                             keys_from<float>(p, frame, tile * kN));
    ptx::cp_async_commit();
  };
  const auto seek = [&](int tile) {
    Stop stop{tile, Visible::all};
    if (!p.mask.data) return stop;
#pragma unroll 1
    for (; stop.tile < walk.end; ++stop.tile) {
      stop.mask = mask_of_tile(p, place, walk, stop.tile * kN, kN);
      if (stop.mask != Visible::none) break;
    }
    return stop;
  };

  float values[4][kColumns][4] = {};
  float maximum[4], sum[4] = {};
#pragma unroll
  for (int r = 0; r < 4; ++r) maximum[r] = negative_infinity();
  Stop stop = seek(walk.begin);
  fill_keys(stop.tile);
#pragma unroll 1
  while (stop.tile < walk.end) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // K is there, and every thread is done with V
    copy_floats<kN, kDim, Shape::kThreads>(base + 4 * Shape::kV, p.dim_v, p.v_wide, frame.v,
                                           values_from<float>(p, frame, stop.tile * kN));
    ptx::cp_async_commit();
    float s[4][kKeys] = {};
#pragma unroll 4
    for (int e = 0; e < kDim; e += 4) {
      float4 key[kKeys];
#pragma unroll
      for (int i = 0; i < kKeys; ++i)
        key[i] = *reinterpret_cast<const float4*>(floats + Shape::kK + (b + 16 * i) * Shape::kPitch + e);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float4 a = *reinterpret_cast<const float4*>(floats + Shape::kQ + (row0 + r) * Shape::kPitch + e);
#pragma unroll
        for (int i = 0; i < kKeys; ++i)
          s[r][i] = fmaf(a.w, key[i].w, fmaf(a.z, key[i].z, fmaf(a.y, key[i].y, fmaf(a.x, key[i].x, s[r][i]))));
      }
    }
    ptx::cp_async_wait<0>();
    __syncthreads();  // V is there, and every thread is done with K
    const Stop next = seek(stop.tile + 1);
    fill_keys(next.tile);

#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const RowPlace row(p, place, row0 + r);
      const int position = row.query + walk.shift;
      float top = maximum[r];
#pragma unroll
      for (int i = 0; i < kKeys; ++i) {
        const int key = stop.tile * kN + b + 16 * i;
        float t = s[r][i] * p.scale;
        if (p.softcap != 0) t = p.softcap * tanhf(t / p.softcap);
        const bool exists = row.there && key < place.len_kv;
        if (p.bias.data && exists)
          t += load1(p.bias.data, p.bias.dtype,
                     place.batch * p.bias.batch + row.head * p.bias.head + row.query * p.bias.row + key);
        if (p.alibi) t = fmaf(-p.alibi[row.head], fabsf(static_cast<float>(position - key)), t);
        if (!exists || key < position - p.left || key > position + p.right) t = negative_infinity();
        if (stop.mask == Visible::some && exists && MaskedKeys(p, place, row.head, row.query, key).hidden(p, 0))
          t = negative_infinity();
        s[r][i] = t;
        top = fmaxf(top, t);
      }
      top = lanes_max<16>(top);
      const float shift = finite_or_zero(top), decay = expf(maximum[r] - shift);
      maximum[r] = top;
      float added = 0;
#pragma unroll
      for (int i = 0; i < kKeys; ++i) {
        const float w = expf(s[r][i] - shift);
        added += w;
        floats[Shape::kScores + (row0 + r) * Shape::kScorePitch + b + 16 * i] = w;
      }
      sum[r] = fmaf(sum[r], decay, added);
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) values[r][c][e] *= decay;
    }
    __syncwarp();  // a row's weights come from half of one warp
#pragma unroll 1
    for (int key = 0; key < kN; key += 4) {
      float4 w[4];
#pragma unroll
      for (int r = 0; r < 4; ++r)
        w[r] = *reinterpret_cast<const float4*>(floats + Shape::kScores + (row0 + r) * Shape::kScorePitch + key);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const float4 v =
              *reinterpret_cast<const float4*>(floats + Shape::kV + (key + i) * Shape::kPitch + 4 * b + 64 * c);
#pragma unroll
          for (int r = 0; r < 4; ++r) {
            const float weight = i == 0 ? w[r].x : i == 1 ? w[r].y : i == 2 ? w[r].z : w[r].w;
            values[r][c][0] = fmaf(weight, v.x, values[r][c][0]);
            values[r][c][1] = fmaf(weight, v.y, values[r][c][1]);
            values[r][c][2] = fmaf(weight, v.z, values[r][c][2]);
            values[r][c][3] = fmaf(weight, v.w, values[r][c][3]);
          }
        }
    }
    __syncwarp();  // the next weights overwrite these
    stop = next;
  }
  ptx::cp_async_wait<0>();

#pragma unroll
  for (int r = 0; r < 4; ++r) {
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

}  // namespace kw::attention_gqa_cuda
