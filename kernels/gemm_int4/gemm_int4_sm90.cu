// gemm_int4 for compute capability 9.0: gemm_sm90.cuh with weights that arrive in 4 bits and become 16-bit ones in shared
// memory. For bf16 and f16 x that TMA can walk, u4 weights in the plain layout, scales of any dtype, zeros or none; any y, bias,
// residual and activation. Everything else is gemm_int4_cuda.cu's.
//
// TMA brings 32 bytes of every row of w per stage. Each consumer warpgroup reads those of its slabs, a thread half a row, 32
// weights of one group: exact (magic | q) - (magic + zero) in pairs, times the scale, rounded once, stored as 128-byte
// swizzled rows. One of three such buffers is written while wgmma reads the one before. Scales and zeros come straight from
// memory, a stage ahead.
//
// 384 threads each; everything else as in gemm_sm90.cu:
//
//             tokens x rows  slabs  stages  shared memory  blocks per SM
//   256x128, _x   256 x 128      1       4         226 KB              1
//   128x256       128 x 256      2       4         226 KB              1   gated too
//   128x128       128 x 128      1       5         148 KB              1   gated too, 1-4 parts
//   64x128         64 x 128      1       5         108 KB              2   gated too, 1-8 parts
//   32x128         32 x 128      1       7         104 KB              2   gated too, 1-8 parts
//   16x128         16 x 128      1      10         108 KB              2   gated too, 1-8 parts
//
// Prediction, not measured: bytes r k / 2 + r k / group (scale 2 + zero 0.5) + 2 m k + b_y m n, FLOPs 2 m r k. Per 8 weights
// 19 instructions (3 shifts, 4 and-or, 4 subtractions, 4 products, 4 permutations) and 3/8 of a shared access: 64 rows of a
// stage are some 80 issue cycles of a multiprocessor's four schedulers, beside 256 cycles of wgmma at 256 tokens (30 %, hidden
// behind the other warpgroup's), 64 at 64 tokens (then conversion is the longer), 16 at 16. At m = 16, 8192 x 8192, group
// 128: 34.6 MB are 7.2 us at 4.8 TB/s, conversion 6.9 us of issue: 12-14 us with ramps. m >= 1024: 60-70 % of peak where the
// dense kernel reaches 70-76 %. 32-byte boxes may cost TMA more than wide ones: the first thing to measure.
#include "../gemm/gemm_sm90_epilogue.cuh"
#include "../gemm/gemm_sm90_launch.cuh"
#include "gemm_int4_sm90.h"

namespace kw::gemm_cuda {

struct Sm90Int4Params : Sm90Params {
  const void* scales;
  int64_t scales_row;  // elements between groups
  DType scales_type;
  const void* zeros;  // u4, without gaps; null: 8
  int half_groups;    // halves of a stage, 32 of k, in a group
  int halves;         // of all of k
};

// Row of w that is row `row` of a slab; those beyond the last are multiplied, and never stored.
KW_DEVICE int sm90_int4_feature(const Sm90Params& q, const Sm90Place& at, int slab, int row) {
  return min(sm90_slab_row(q, at, slab) + row, static_cast<int>(q.p.s.rows_w) - 1);
}

// Pairs of 4-bit weights as 16-bit floats, exactly, then scaled.
template <class T>
struct Int4Pair {
  static constexpr bool kHalf = std::is_same_v<T, __half>;
  using Pair = std::conditional_t<kHalf, __half2, __nv_bfloat162>;
  static constexpr DType kType = kHalf ? DType::f16 : DType::bf16;
  static constexpr uint32_t kMagic = kHalf ? 0x64006400 : 0x43004300;  // 1024 and 128, whose last bit counts ones

  // What a row's weights in 32 neighbours along k share.
  struct Scale {
    float scale;
    uint32_t zero;  // twice kMagic plus it
  };

  static KW_DEVICE Scale fetch(const Sm90Int4Params& q, int half, int feature) {
    if (half >= q.halves) return {0, kMagic};  // x is zero beyond k, and w must be finite there
    const int64_t group = half / q.half_groups;
    uint32_t zero = 8;
    if (q.zeros) {
      const int64_t at = group * q.p.s.rows_w + feature;
      zero = static_cast<const uint8_t*>(q.zeros)[at >> 1] >> ((at & 1) * 4) & 15;
    }
    return {load1(q.scales, q.scales_type, group * q.scales_row + feature), kMagic + zero * 0x00010001u};
  }

  // Of the low four bits of each half of `bits`. With a scale of T one rounding in 16 bits; else in f32, and one to T.
  static KW_DEVICE uint32_t scaled(uint32_t bits, const Scale& s, bool in_t) {
    const Pair exact = __hsub2_rn(pair_of((bits & 0x000f000fu) | kMagic), pair_of(s.zero));
    if (!in_t) return pack_pair<T>(__low2float(exact) * s.scale, __high2float(exact) * s.scale);
    if constexpr (kHalf)
      return bits_of(__hmul2_rn(exact, __float2half2_rn(s.scale)));
    else
      return bits_of(__hmul2_rn(exact, __float2bfloat162_rn(s.scale)));
  }

 private:
  static KW_DEVICE uint32_t bits_of(const Pair& pair) { return reinterpret_cast<const uint32_t&>(pair); }
  static KW_DEVICE Pair pair_of(const uint32_t& bits) { return reinterpret_cast<const Pair&>(bits); }
};

// Slabs of u4 made into T in shared memory. Thread t of a consumer has columns 32 (t % 2) .. + 31 of row t / 2 of each.
template <class T, class Shape>
class Sm90Int4Weights {
 public:
  using Params = Sm90Int4Params;
  static constexpr int kInFlight = 1;

  KW_DEVICE Sm90Int4Weights(const Params& q, int consumer)
      : q_(q),
        consumer_(consumer),
        row_(static_cast<int>(threadIdx.x) % 128 / 2),
        half_(static_cast<int>(threadIdx.x) % 2),
        in_t_(q.scales_type == Int4Pair<T>::kType) {}

  static KW_DEVICE void load(const Params& q, uint32_t stage, uint32_t full, int k, const Sm90Place& at, int rank) {
    sm90_load_w<Shape>(q, stage, full, k * (kSm90Depth / 2), at, rank);
  }

  KW_DEVICE void begin(const Sm90Place& at, int stage) {
#pragma unroll
    for (int slab = 0; slab < Shape::kSlabs; ++slab)
      feature_[slab] = sm90_int4_feature(q_, at, consumer_ * Shape::kSlabs + slab, row_);
    fetch(stage);
  }

  KW_DEVICE void multiply(float (&sums)[Shape::kSlabs][Shape::kTokens / 2], uint32_t stage, int k, bool fresh) {
    const uint32_t base = ptx::smem_u32(dyn_smem());
    const uint32_t made = Shape::kMade + consumer_ * Shape::kMadeBytes + turn_ * (Shape::kSlabs * 64 * 128);
#pragma unroll
    for (int slab = 0; slab < Shape::kSlabs; ++slab) {
      const uint32_t from = stage - base + (consumer_ * Shape::kSlabs + slab) * Shape::kSlabBytes;
      const uint4 words = *reinterpret_cast<const uint4*>(dyn_smem() + from + row_ * 32 + half_ * 16);
      unsigned char* to = dyn_smem() + made + slab * (64 * 128) + row_ * 128;
      const uint32_t each[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
        *reinterpret_cast<uint4*>(to + (((half_ * 4 + i) ^ (row_ & 7)) << 4)) = eight(each[i], scale_[slab]);
    }
    fetch(k + 1);
    ptx::fence_proxy_async();
    // Three buffers and one meeting: a warp that writes this one again has met the others after their wgmma that reads it.
    sm90_consumer_sync(consumer_);
    turn_ = turn_ == kSm90Made - 1 ? 0 : turn_ + 1;
    ptx::wgmma_fence();
    sm90_multiply<T, Shape>(sums, base + made, stage + Shape::kWBytes, fresh);
  }
  KW_DEVICE void waited() {}

 private:
  KW_DEVICE void fetch(int stage) {
#pragma unroll
    for (int slab = 0; slab < Shape::kSlabs; ++slab)
      scale_[slab] = Int4Pair<T>::fetch(q_, 2 * stage + half_, feature_[slab]);
  }

  // Eight neighbours along k; they come out in pairs i, i + 4.
  KW_DEVICE uint4 eight(uint32_t word, const typename Int4Pair<T>::Scale& scale) const {
    uint32_t p[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) p[i] = Int4Pair<T>::scaled(word >> (4 * i), scale, in_t_);
    const auto low = [](uint32_t a, uint32_t b) { return (a & 0xffffu) | b << 16; };
    const auto high = [](uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000u); };
    return make_uint4(low(p[0], p[1]), low(p[2], p[3]), high(p[0], p[1]), high(p[2], p[3]));
  }

  const Params& q_;
  int consumer_, row_, half_;
  bool in_t_;
  int turn_ = 0;
  int feature_[Shape::kSlabs];
  typename Int4Pair<T>::Scale scale_[Shape::kSlabs];
};

// Slabs of u4 made into wgmma's A fragments: thread (warp, lane) has rows 16 warp + lane / 4 and + 8, and of every 16 along k
// those in bytes lane % 4 and + 4 of the 8 that hold them. Its registers are rewritten only after every wgmma is done.
template <class T, class Shape>
class Sm90Int4RegisterWeights {
 public:
  using Params = Sm90Int4Params;
  static constexpr int kInFlight = 0;

  KW_DEVICE Sm90Int4RegisterWeights(const Params& q, int consumer)
      : q_(q),
        consumer_(consumer),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + ptx::lane_id() / 4),
        place_(8 * (ptx::lane_id() % 4)),
        in_t_(q.scales_type == Int4Pair<T>::kType) {
    static_assert(Shape::kSlabs == 1, "fragments of one slab");
  }

  static KW_DEVICE void load(const Params& q, uint32_t stage, uint32_t full, int k, const Sm90Place& at, int rank) {
    sm90_load_w<Shape>(q, stage, full, k * (kSm90Depth / 2), at, rank);
  }

  KW_DEVICE void begin(const Sm90Place& at, int stage) {
#pragma unroll
    for (int r = 0; r < 2; ++r) feature_[r] = sm90_int4_feature(q_, at, consumer_, row_ + 8 * r);
    fetch(stage);
  }

  KW_DEVICE void multiply(float (&sums)[1][Shape::kTokens / 2], uint32_t stage, int k, bool fresh) {
    const uint32_t from = stage - ptx::smem_u32(dyn_smem()) + consumer_ * Shape::kSlabBytes;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint4* line = reinterpret_cast<const uint4*>(dyn_smem() + from + (row_ + 8 * r) * 32);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 words = line[half];
        const uint32_t each[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          // Byte lane % 4: k in its low four bits, k + 1 in its high ones.
          const uint32_t byte = each[i] >> place_, pair = (byte & 0xfu) | (byte << 12 & 0xf0000u);
          a_[2 * half + i / 2][r + i % 2 * 2] = Int4Pair<T>::scaled(pair, scale_[r][half], in_t_);
        }
      }
    }
    fetch(k + 1);
    ptx::wgmma_fence();
#pragma unroll
    for (uint32_t step = 0; step < kSm90Depth / 16; ++step)
      ptx::wgmma_rs<T, Shape::kTokens>(sums[0], a_[step],
                                       ptx::wgmma_desc(stage + Shape::kWBytes + step * 32, 16, 1024, Swizzle::b128),
                                       !fresh || step > 0);
  }
  KW_DEVICE void waited() {
#pragma unroll
    for (auto& fragment : a_) ptx::wgmma_release(fragment);
    __syncwarp();  // one lane tells the producer that all have read the stage
  }

 private:
  KW_DEVICE void fetch(int stage) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) scale_[r][half] = Int4Pair<T>::fetch(q_, 2 * stage + half, feature_[r]);
  }

  const Params& q_;
  int consumer_, row_, place_;
  bool in_t_;
  int feature_[2];
  typename Int4Pair<T>::Scale scale_[2][2];
  uint32_t a_[kSm90Depth / 16][4];  // a stage's fragments; wgmma reads them until it has been waited for
};

template <class T, class Shape>
static __global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    gemm_int4_sm90(const __grid_constant__ Sm90Int4Params q) {
  using Weights = std::conditional_t<Shape::kRegisters, Sm90Int4RegisterWeights<T, Shape>, Sm90Int4Weights<T, Shape>>;
  sm90_gemm<Shape, Weights, Sm90Epilogue<T, Shape>>(q);
}

namespace {

struct Kernels {
  template <class T, class Shape>
  static constexpr auto of() {
    return gemm_int4_sm90<T, Shape>;
  }
};

}  // namespace

struct Sm90Int4Launch::State : Sm90Bound<Sm90Int4Params> {};

void Sm90Int4Launch::bind(const Sm90Configuration& c, int splits, const GemmInt4Shape& s, const GemmParams& p,
                          const kw_device_info& device) {
  std::string reason = sm90_int4_declines(s);
  if (reason.empty()) reason = sm90_declines(c, splits, s.gemm.k, p.gated);
  if (!reason.empty()) throw Error(Code::UNSUPPORTED, std::string("gemm_int4 cuda: ") + c.name + ": " + reason);
  if (!state_) state_ = std::make_shared<State>();
  Sm90Int4Params& q = state_->params;
  q.w = make_tensor_map_3d(DType::u8, s.gemm.w.data, s.gemm.k / 2, s.gemm.rows_w, 1, s.gemm.k / 2, s.gemm.k / 2,
                           Sm90Configuration::kDepth / 2, 64, Swizzle::none);
  q.scales = s.scales.data, q.scales_row = s.scales.row, q.scales_type = s.scales.dtype;
  q.zeros = s.zeros;
  q.half_groups = static_cast<int>(s.group / 32), q.halves = static_cast<int>(s.gemm.k / 32);
  state_->bind<kSm90Int4Configurations, Kernels>("gemm_int4", c, splits, p, device);
}

void Sm90Int4Launch::enqueue(void* stream) const { state_->enqueue(stream); }

}  // namespace kw::gemm_cuda
