// gemm_int4 with AMX: tdpbf16ps and tdpbssd on tiles for more than a few rows, for those what AVX-512 has.
#include "../core/cpu/nibbles_avx512.h"
// The above has to come first: it silences a mistake of GCC's in the header of the intrinsics.
#include "../core/cpu/amx.h"
#include "gemm_int4_cpu_kernels.h"
#include "gemm_int4_cpu_tiles.h"

namespace kw::cpu {
namespace {

constexpr Int4TileKernels kTiles = {.splits = true, .arrange = arrange_tiles, .multiply = task_of_tiles<AmxTiles>};

}  // namespace

const Int4Kernels kInt4Amx = int4_kernels<4, 4, 5, 8, 10, 4>("amx_bf16", &kTiles);

}  // namespace kw::cpu
