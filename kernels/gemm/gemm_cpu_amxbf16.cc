// gemm of bf16 with AMX: tdpbf16ps on tiles, sums in f32 (to nearest even, denormals as 0, see gemm.h). Panels of w are
// those of vdpbf16ps, which also takes the few rows that are bound by memory.
#include "../core/cpu/amx.h"
#include "../core/cpu/simd_pairs.h"
#include "gemm_cpu_kernels.h"
#include "gemm_cpu_tiles.h"

namespace kw::cpu {

const GemmKernels kGemmAmxBf16 = {.isa = "amx_bf16",
                                  .mr = 2 * kTile,
                                  .mr_step = kTile,
                                  .nr = kTileColumns,
                                  .per_cell = 2,
                                  .cell_step = kTile,
                                  .depth = kDepth,
                                  .stream_m = 8,
                                  .stored_m = CellPanel::kStoredM,
                                  .pack = pack<Bf16Pairs>,
                                  .pack_x = pack_tiles,
                                  .pack_piece = pack_piece,
                                  .flatten = flatten<Bf16Pairs>,
                                  .block = block_of_tiles<AmxTiles, pack<Bf16Pairs>>,
                                  .block_stored = block_of_tiles<AmxTiles, pack<Bf16Pairs>>,
                                  .stream = stream<Bf16Pairs, DotBf16, 4, 6>,
                                  .stream_stored = streams_stored<Bf16Pairs, DotBf16, CellPanel>(),
                                  .finish = finish};

}  // namespace kw::cpu
