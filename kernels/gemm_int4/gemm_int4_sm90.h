// What is known of gemm_int4's kernels for compute capability 9.0 (gemm_int4_sm90.cu) without CUDA: their configurations,
// what they decline, how one is launched.
#pragma once
#include <memory>
#include <string>

#include "../gemm/gemm_sm90.h"
#include "gemm_int4_shape.h"

namespace kw::gemm_cuda {

inline constexpr Sm90Configuration kSm90Int4Configurations[] = {
    {"sm90_int4_256x128", 256, 128, 4, 1, 1, Sm90Configuration::none, 0, false, 0.66, 4},
    {"sm90_int4_256x128_x", 256, 128, 4, 1, 1, Sm90Configuration::x, 0, false, 0.70, 4},
    {"sm90_int4_128x256", 128, 256, 4, 2, 1, Sm90Configuration::none, 0, true, 0.62, 4},
    {"sm90_int4_128x128", 128, 128, 5, 1, 1, Sm90Configuration::none, 4, true, 0.50, 4},
    {"sm90_int4_64x128", 64, 128, 5, 1, 2, Sm90Configuration::none, 8, true, 0.38, 4},
    {"sm90_int4_32x128", 32, 128, 7, 1, 2, Sm90Configuration::none, 8, true, 0.22, 4},
    {"sm90_int4_16x128", 16, 128, 10, 1, 2, Sm90Configuration::none, 8, true, 0.12, 4},
    {"sm90_int4_r_256x128", 256, 128, 5, 1, 1, Sm90Configuration::none, 0, false, 0.60, 4, true},
    {"sm90_int4_r_128x128", 128, 128, 6, 1, 1, Sm90Configuration::none, 4, true, 0.45, 4, true},
    {"sm90_int4_r_64x128", 64, 128, 12, 1, 1, Sm90Configuration::none, 8, true, 0.38, 4, true},
    {"sm90_int4_r_16x128", 16, 128, 16, 1, 2, Sm90Configuration::none, 8, true, 0.14, 4, true},
};

// Why none of them can compute this; empty when some can. x, whose columns are in order, may be a gathered copy.
inline std::string sm90_int4_declines(const GemmInt4Shape& s) {
  const GemmShape& g = s.gemm;
  if (g.x.dtype != DType::bf16 && g.x.dtype != DType::f16)
    return std::string("x is ") + name(g.x.dtype) + ", expected bf16 or f16";
  if (s.normal_float) return "w is nf4, expected u4";
  if (g.m < 1 || g.n < 1 || g.k < 1 || g.batch < 1) return "there is nothing to multiply";
  if (!tma_takes(g.x, g.m, g.k)) return "rows of x are not contiguous at multiples of 16 bytes";
  if (reinterpret_cast<uintptr_t>(g.w.data) % 16 != 0) return "w does not begin at a multiple of 16 bytes";
  return "";
}

// A launch with its tensor maps. p: as of gemm with s.gemm; tiles_m and tiles_n are not read.
class Sm90Int4Launch {
 public:
  // Prepares the kernel on the current device where it is another than before. Throws UNSUPPORTED with what
  // sm90_int4_declines and sm90_declines say, CUDA when the driver refuses.
  void bind(const Sm90Configuration& configuration, int splits, const GemmInt4Shape& s, const GemmParams& p,
            const kw_device_info& device);
  void enqueue(void* stream) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace kw::gemm_cuda
