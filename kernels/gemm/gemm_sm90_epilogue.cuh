// How sums leave the dense kernels for compute capability 9.0. Register 4 j + i of thread (warp, lane) of a warpgroup is the
// sum of row 16 warp + lane / 4 + 8 (i / 2) of a slab and token 8 j + lane % 4 * 2 + i % 2, the transpose of y, so all of them
// pass through shared memory:
//   store   alpha, bias, relu in registers, then stmatrix.trans and TMA, which runs on under the next tile
//   strips  anything else: f32 sums, some tokens at a time, then gemm_epilogue.cuh in 16-byte pieces of y
//   whole   f32 sums of the tile; each block of the cluster adds up its share of the tokens in order of k, and finishes it
#pragma once
#include "gemm_sm90.cuh"

namespace kw::gemm_cuda {

template <class T>
KW_DEVICE uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

// Meets the threads of one consumer.
KW_DEVICE void sm90_consumer_sync(int consumer) {
  if (consumer == 0)
    ptx::named_bar_sync(1, 128);
  else
    ptx::named_bar_sync(2, 128);
}

template <class T, class Shape>
class Sm90Stream {
 public:
  KW_DEVICE Sm90Stream(const Sm90Params& q, int consumer, int)
      : q_(q),
        consumer_(consumer),
        warp_(static_cast<int>(threadIdx.x) / 32 % 4),
        lane_(ptx::lane_id()),
        out_(dyn_smem() + Shape::kOut + consumer * Shape::kOutBytes) {}

  KW_DEVICE void operator()(const float (&sums)[Shape::kSlabs][Shape::kTokens / 2], const Sm90Place& at) {
    const int column = at.column + consumer_ * 64 * Shape::kSlabs / (q_.p.gated ? 2 : 1);
    if (q_.store)
      store(sums, at, column);
    else
      strips(sums, at, column);
  }

  KW_DEVICE void finish() {  // the last boxes must have left shared memory before the block does
    if (q_.store && threadIdx.x % 128 == 0) ptx::bulk_wait_read<0>();
  }
  static KW_DEVICE void meet() {}

 private:
  KW_DEVICE void store(const float (&sums)[Shape::kSlabs][Shape::kTokens / 2], const Sm90Place& at, int column) {
    const GemmParams& p = q_.p;
    const uint32_t out = ptx::smem_u32(out_);
    const bool leader = threadIdx.x % 128 == 0, relu = p.activation == Activation::relu;
    // This lane's row of a stmatrix: of token `line`, features 16 warp + 8 (lane / 8 % 2) .. + 7.
    const int line = lane_ / 16 * 8 + lane_ % 8, chunk = 2 * warp_ + lane_ / 8 % 2;
    const uint32_t address = out + line * 128 + ((chunk ^ (line & 7)) << 4);
#pragma unroll
    for (int slab = 0; slab < Shape::kSlabs; ++slab) {
      float bias[2] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int feature = column + slab * 64 + 16 * warp_ + lane_ / 4 + 8 * half;
        if (p.s.bias.data && feature < p.s.n) bias[half] = load1(p.s.bias.data, p.s.bias.dtype, feature);
      }
#pragma unroll
      for (int box = 0; box < Shape::kTokens / Shape::kBoxTokens; ++box) {
        if (leader) ptx::bulk_wait_read<0>();  // the box before
        sm90_consumer_sync(consumer_);
#pragma unroll
        for (int t = 0; t < Shape::kBoxTokens; t += 16) {
          uint32_t r[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float v[2];
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              v[e] = fmaf(p.alpha, sums[slab][(box * Shape::kBoxTokens + t) / 2 + 2 * i + e], bias[i % 2]);
              v[e] = relu && v[e] < 0 ? 0.0f : v[e];
            }
            r[i] = pack_pair<T>(v[0], v[1]);
          }
          ptx::stmatrix_x4_trans(address + t * 128, r);
        }
        ptx::fence_proxy_async();
        sm90_consumer_sync(consumer_);
        if (leader) {
          ptx::tma_store_3d(&q_.y, out, column + slab * 64, at.token + box * Shape::kBoxTokens, at.batch);
          ptx::bulk_commit();
        }
      }
    }
  }

  KW_DEVICE void strips(const float (&sums)[Shape::kSlabs][Shape::kTokens / 2], const Sm90Place& at, int column) {
    if constexpr (Shape::kSlabs > 1) {
      if (q_.p.gated) return strips_of<true>(sums, at, column);
    }
    strips_of<false>(sums, at, column);
  }

  // Gated: gate rows and their up rows, slabs 0 and 1, lie in turns of eight, as gemm_epilogue.cuh wants them.
  template <bool kGated>
  KW_DEVICE void strips_of(const float (&sums)[Shape::kSlabs][Shape::kTokens / 2], const Sm90Place& at, int column) {
    constexpr int kTokens = kGated ? Shape::kGatedStrip : Shape::kStrip, kColumns = kGated ? 128 : 64;
    constexpr int kPitch = kGated ? Shape::kGatedPitch : Shape::kPitch, kStrips = Shape::kTokens / kTokens;
    constexpr int kRounds = kGated ? kStrips : kStrips * Shape::kSlabs;
    float* staged = reinterpret_cast<float*>(out_);
    float* mine = staged + lane_ % 4 * 2 * kPitch + lane_ / 4 + (kGated ? 32 : 16) * warp_;
#pragma unroll 1
    for (int round = 0; round < kRounds; ++round) {
      sm90_consumer_sync(consumer_);  // the round before has been read
#pragma unroll
      for (int slab = 0; slab < Shape::kSlabs; ++slab)
#pragma unroll
        for (int strip = 0; strip < kStrips; ++strip) {
          if ((kGated ? strip : slab * kStrips + strip) != round) continue;
#pragma unroll
          for (int j = 0; j < kTokens / 8; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i)
              mine[(8 * j + i % 2) * kPitch + (kGated ? i / 2 * 16 + slab * 8 : i / 2 * 8)] =
                  sums[slab][strip * kTokens / 2 + 4 * j + i];
        }
      sm90_consumer_sync(consumer_);
      constexpr int kRows = kTokens / 4;
      const int token = at.token + round % kStrips * kTokens + warp_ * kRows;
      const int first = kGated ? 2 * column : column + round / kStrips * 64;
      finish_rows<kColumns, kRows, kPitch>(q_.p, staged + warp_ * kRows * kPitch, at.batch, token, first);
    }
  }

  const Sm90Params& q_;
  int consumer_, warp_, lane_;
  unsigned char* out_;
};

constexpr int kSm90MostSplits = 8;  // blocks of a cluster on any device

template <class Shape>
class Sm90Whole {
 public:
  KW_DEVICE Sm90Whole(const Sm90Params& q, int consumer, int rank) : q_(q), consumer_(consumer), rank_(rank) {}

  KW_DEVICE void operator()(const float (&sums)[Shape::kSlabs][Shape::kTokens / 2], const Sm90Place& at) {
    constexpr int kPitch = Shape::kWholePitch, kThreads = 128 * Shape::kConsumers;
    float* tile = reinterpret_cast<float*>(dyn_smem());
    const int warp = static_cast<int>(threadIdx.x) / 32 % 4, lane = ptx::lane_id();
    ptx::named_bar_sync(3, kThreads);  // every consumer is done with the ring, whose memory this reuses
#pragma unroll
    for (int slab = 0; slab < Shape::kSlabs; ++slab) {
      const int all = consumer_ * Shape::kSlabs + slab;
      const int column = q_.p.gated ? all / 2 * 128 + 32 * warp + all % 2 * 8 : all * 64 + 16 * warp;
      float* mine = tile + lane % 4 * 2 * kPitch + lane / 4 + column;
      const int step = q_.p.gated ? 16 : 8;
#pragma unroll
      for (int j = 0; j < Shape::kTokens / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) mine[(8 * j + i % 2) * kPitch + i / 2 * step] = sums[slab][4 * j + i];
    }
    ptx::cluster_sync();
    const int columns = q_.p.gated ? 16 : 8, groups = Shape::kRows / columns, tokens = Shape::kTokens / q_.splits;
#pragma unroll 1
    for (int item = static_cast<int>(threadIdx.x); item < tokens * groups; item += kThreads) {
      const int token = rank_ * tokens + item / groups, group = item % groups;
      const int row = at.token + token, column = at.column + 8 * group;
      if (row >= q_.p.s.m || column >= q_.p.s.n) continue;
      float* place = tile + token * kPitch + group * columns;
#pragma unroll 1
      for (int e = 0; e < columns; e += 4) {
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 1
        for (int first = 0; first < q_.splits; first += 4) {
          float4 part[4];  // all on their way at once
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            part[i] = make_float4(0, 0, 0, 0);
            if (first + i < q_.splits)
              part[i] = *reinterpret_cast<const float4*>(ptx::map_shared_rank(place + e, first + i));
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) sum.x += part[i].x, sum.y += part[i].y, sum.z += part[i].z, sum.w += part[i].w;
        }
        *reinterpret_cast<float4*>(place + e) = sum;  // tokens of this block: nobody else reads them
      }
      finish8(q_.p, place, at.batch, row, column);
    }
  }

  KW_DEVICE void finish() { ptx::cluster_sync(); }  // no block leaves while another reads its sums
  static KW_DEVICE void meet() {                    // the producer's part in both
    ptx::cluster_sync();
    ptx::cluster_sync();
  }

 private:
  const Sm90Params& q_;
  int consumer_, rank_;
};

}  // namespace kw::gemm_cuda
