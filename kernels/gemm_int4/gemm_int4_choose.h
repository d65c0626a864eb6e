// The configurations of gemm_int4's CUDA kernels, of which gemm's cost model (../gemm/gemm_choose.h) chooses one: a pure function
// of the problem and the device's limits. Host code without CUDA; gemm_int4_emu_test runs every configuration.
#pragma once
#include "../gemm/gemm_choose.h"
#include "gemm_int4_sm90.h"

namespace kw::gemm_int4_cuda {

using gemm_cuda::GemmConfig;

constexpr GemmConfig int4_config(const char* name, int tokens, int rows, int warp_tokens, int warp_rows, int stages,
                                 int blocks, double efficiency) {
  using namespace gemm_cuda;
  return {name,   Family::int4, tokens,           rows,       128, warp_tokens, warp_rows,
          stages, blocks,       bit(Access::k_k), efficiency, 2,   128};
}

// Tokens x rows of w. Efficiency: mma's share of what a warp issues, by count of instructions (gemm_int4_cuda.cu), less what
// gemm's own tiles of that size lose. Stages keep two blocks or more within 163 KB (A100), one within 99 KB.
inline constexpr GemmConfig kInt4Configs[] = {
    int4_config("int4_8x64", 8, 64, 8, 16, 8, 3, 0.13),        int4_config("int4_8x128", 8, 128, 8, 32, 6, 3, 0.15),
    int4_config("int4_16x64", 16, 64, 16, 16, 8, 3, 0.22),     int4_config("int4_16x128", 16, 128, 16, 32, 5, 3, 0.25),
    int4_config("int4_32x128", 32, 128, 32, 32, 4, 2, 0.38),   int4_config("int4_64x128", 64, 128, 64, 32, 3, 2, 0.48),
    int4_config("int4_128x128", 128, 128, 64, 32, 2, 1, 0.52), sm90_config(gemm_cuda::kSm90Int4Configurations[0]),
    sm90_config(gemm_cuda::kSm90Int4Configurations[1]),        sm90_config(gemm_cuda::kSm90Int4Configurations[2]),
    sm90_config(gemm_cuda::kSm90Int4Configurations[3]),        sm90_config(gemm_cuda::kSm90Int4Configurations[4]),
    sm90_config(gemm_cuda::kSm90Int4Configurations[5]),        sm90_config(gemm_cuda::kSm90Int4Configurations[6]),
    sm90_config(gemm_cuda::kSm90Int4Configurations[7]),        sm90_config(gemm_cuda::kSm90Int4Configurations[8]),
    sm90_config(gemm_cuda::kSm90Int4Configurations[9]),        sm90_config(gemm_cuda::kSm90Int4Configurations[10]),
};

inline constexpr gemm_cuda::GemmConfigs kInt4Choices{kInt4Configs, std::size(kInt4Configs)};

// Bytes of a weight with its share of scales and zeros.
inline double weight_bytes(int64_t group, int scale_bytes, bool zeros) {
  return 0.5 + (scale_bytes + (zeros ? 0.5 : 0)) / static_cast<double>(std::max<int64_t>(group, 1));
}

}  // namespace kw::gemm_int4_cuda
