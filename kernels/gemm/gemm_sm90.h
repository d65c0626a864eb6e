// What is known of gemm's kernels for compute capability 9.0 (gemm_sm90.cu) without CUDA: their configurations, what each
// declines, how one is launched.
#pragma once
#include <algorithm>
#include <memory>
#include <string>

#include "../core/abi.h"
#include "gemm_shape.h"

namespace kw::gemm_cuda {

struct Sm90Configuration {
  enum Share : int { none, x, w };

  const char* name;   // m x n of the tile, and what a cluster shares
  int tokens, rows;   // tile: rows of x, rows of w (of a gated one half are gate rows, half up rows)
  int stages;         // of the ring
  int slabs;          // of 64 rows of w that a warpgroup multiplies; there are two warpgroups
  int blocks_per_sm;  // for which it is compiled
  Share share;      // operand tile that clusters of two bring in once; the grid is rounded up to pairs along the other
  int most_splits;  // k may be cut in 1, 2, 4 ... parts, one per block of a cluster; 0: a block makes tile after tile
  bool gated;       // takes gated activations as well
  double efficiency;  // share of the tensor cores' peak on a full multiprocessor: a guess that ranks, not a measurement
  int weight_bits = 16;  // of an element of w as it arrives
  // Fewer bits become 16 in registers, not in shared memory. By name alone: ptxas before 13.3 may overwrite registers that
  // wgmma still reads, so a GPU has to prove each.
  bool registers = false;

  static constexpr int kDepth = 64;  // elements of k in a stage: 128 bytes, one span of the swizzle
  static constexpr int kMade = 3;    // stages of 16-bit w made of fewer bits: being read, read next, being written
  constexpr bool streams() const { return most_splits == 0; }
  constexpr int threads() const { return 3 * 128; }
  constexpr int stage_bytes() const { return rows * kDepth * weight_bits / 8 + tokens * 128; }
  constexpr int smem() const {
    return stages * (stage_bytes() + 16) + (weight_bits == 16 || registers ? 0 : kMade * rows * 128) +
           (streams() ? 2 * 17 * 1024 : 0);
  }
  constexpr int cluster(int splits) const { return share == none ? splits : 2; }
};

inline constexpr Sm90Configuration kSm90Configurations[] = {
    {"sm90_256x128", 256, 128, 4, 1, 1, Sm90Configuration::none, 0, false, 0.74},
    {"sm90_256x128_x", 256, 128, 4, 1, 1, Sm90Configuration::x, 0, false, 0.78},
    {"sm90_128x256", 128, 256, 4, 2, 1, Sm90Configuration::none, 0, true, 0.73},
    {"sm90_128x256_w", 128, 256, 4, 2, 1, Sm90Configuration::w, 0, true, 0.77},
    {"sm90_128x128", 128, 128, 6, 1, 1, Sm90Configuration::none, 4, true, 0.62},
    {"sm90_64x128", 64, 128, 4, 1, 2, Sm90Configuration::none, 8, true, 0.50},
    {"sm90_32x128", 32, 128, 5, 1, 2, Sm90Configuration::none, 8, true, 0.30},
    {"sm90_16x128", 16, 128, 6, 1, 2, Sm90Configuration::none, 8, true, 0.16},
};

// Tiles of y, in units that one cluster makes.
struct Sm90Tiles {
  int64_t rows, tokens, units;
};
inline Sm90Tiles sm90_tiles(const Sm90Configuration& c, const GemmShape& s, bool gated) {
  const auto divided = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t rows = divided(s.n, (gated ? c.rows / 2 : c.rows) * (c.share == Sm90Configuration::x ? 2 : 1));
  const int64_t tokens = divided(s.m, c.tokens * (c.share == Sm90Configuration::w ? 2 : 1));
  return {rows, tokens, rows * tokens * s.batch};
}

// Whether TMA can walk the operand's rows, of `length` elements: contiguous, rows and matrices at multiples of 16 bytes.
inline bool tma_takes(const GemmOperand& o, int64_t rows, int64_t length) {
  const int64_t size = bits(o.dtype) / 8;
  constexpr int64_t kMost = int64_t{1} << 40;
  return o.column == 1 && reinterpret_cast<uintptr_t>(o.data) % 16 == 0 && o.row * size % 16 == 0 &&
         o.batch * size % 16 == 0 && (rows == 1 || o.row >= length) && o.row * size < kMost && o.batch * size < kMost;
}

// Why none of them can compute this; empty when some can.
inline std::string sm90_declines(const GemmShape& s) {
  if (s.x.dtype != DType::bf16 && s.x.dtype != DType::f16)
    return std::string("x is ") + name(s.x.dtype) + ", expected bf16 or f16";
  if (s.m < 1 || s.n < 1 || s.k < 1 || s.batch < 1) return "there is nothing to multiply";
  if (!tma_takes(s.x, s.m, s.k)) return "rows of x are not contiguous at multiples of 16 bytes";
  if (!tma_takes(s.w, s.rows_w, s.k)) return "rows of w are not contiguous at multiples of 16 bytes";
  return "";
}

// Why the configuration cannot compute what some can, with k in `splits` parts; empty when it can.
inline std::string sm90_declines(const Sm90Configuration& c, int splits, int64_t k, bool gated) {
  if (gated && !c.gated) return "the activation is gated";
  if (splits < 1 || splits > std::max(c.most_splits, 1) || (splits & (splits - 1)))
    return "k cannot be cut in " + std::to_string(splits) + " parts";
  if ((k + c.kDepth - 1) / c.kDepth < splits) return "k is " + std::to_string(k) + ", too short for its parts";
  return "";
}

struct GemmParams;

// A launch with its tensor maps.
class Sm90Launch {
 public:
  // Prepares the kernel on the current device where it is another than before; p.tiles_m and p.tiles_n are not read. Throws
  // UNSUPPORTED with what sm90_declines says or from 2^31 tiles of y on, CUDA when the driver refuses.
  void bind(const Sm90Configuration& configuration, int splits, const GemmParams& p, const kw_device_info& device);
  void enqueue(void* stream) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace kw::gemm_cuda
