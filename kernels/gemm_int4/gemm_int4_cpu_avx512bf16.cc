// gemm_int4 with AVX-512 and what came with vdpbf16ps: vpdpbusd for x in int8, alone and in the layout of tiles, and panels of
// bf16 for the micro-kernels of bf16.
#include "../core/cpu/nibbles_avx512.h"
#include "gemm_int4_cpu_kernels.h"
#include "gemm_int4_cpu_tiles.h"

namespace kw::cpu {
namespace {

// The tiles of int8 (core/cpu/amx.h) out of vector registers: sums of 16 rows stay in sixteen of them over a tile's products,
// 256 vpdpbusd for 48 loads and stores.
class VectorTiles {
 public:
  static constexpr bool kSigned = false;
  template <int Tile>
  void zero() {
    for (__m512i& row : sums_[Tile]) row = _mm512_setzero_si512();
  }
  // Rows of 64 bytes, one after the other; they are read when they are multiplied.
  template <int Tile>
  void load(const float* from, int64_t) {
    from_[Tile - 4] = from;
  }
  template <int Tile>
  void store(float* to, int64_t) {
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * 16, sums_[Tile][i]);
  }
  template <int Sums, int A, int B>
  void dot_bytes() {
    const float *x = from_[A - 4], *w = from_[B - 4];
    __m512i s[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) s[i] = sums_[Sums][i];
    for (int q = 0; q < 16; ++q) {
      const __m512i four = _mm512_loadu_si512(w + q * 16);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        s[i] = _mm512_dpbusd_epi32(s[i], four, _mm512_castps_si512(_mm512_set1_ps(x[i * 16 + q])));
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) sums_[Sums][i] = s[i];
  }

 private:
  __m512i sums_[4][16];
  const float* from_[4];
};

constexpr Int4TileKernels kTiles = {.splits = false,
                                    .arrange = arrange_tiles,
                                    .panel = tile_panel<VectorTiles::kSigned>,
                                    .block = multiply_tiles<VectorTiles, true>};

}  // namespace

const Int4Kernels kInt4Avx512Bf16 = int4_kernels<4, 4, 12, 6>("avx512_bf16", &kTiles);

}  // namespace kw::cpu
