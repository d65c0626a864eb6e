// The kernels of attention_gqa_backward by compiled head dimension, each set instantiated in a file of its own.
#pragma once
#include "attention_gqa_backward_kernels.cuh"

namespace kw::attention_gqa_backward_cuda {

using Kernel = void (*)(BackwardParams);

struct Variant {
  const char* name;
  int dim;
  Kernel rows, bias;  // tiles of row_lines rows by row_others keys
  Kernel keys[2];     // dk and dv, or one after the other; tiles of key_lines keys by key_others rows
  int row_lines, row_others, row_threads, row_smem;
  int key_lines, key_others, key_threads, key_smem;
};

// kBlocks: per SM, as registers allow. kTogether: dk and dv have room in registers at the same time.
template <class RowTile, class KeyTile, bool kTogether, int kBlocks>
Variant variant(const char* name) {
  Variant v{name,
            RowTile::kDim,
            backward_rows<RowTile, kBlocks>,
            backward_bias<RowTile, kBlocks>,
            {},
            RowTile::kM,
            RowTile::kN,
            RowTile::kThreads,
            kSmem<RowTile>,
            KeyTile::kM,
            KeyTile::kN,
            KeyTile::kThreads,
            kSmem<KeyTile>};
  if constexpr (kTogether) {
    v.keys[0] = backward_keys<KeyTile, true, true, kBlocks>;
  } else {
    v.keys[0] = backward_keys<KeyTile, true, false, kBlocks>;
    v.keys[1] = backward_keys<KeyTile, false, true, kBlocks>;
  }
  return v;
}

template <int Dim>
Variant mma_variant(bool bf16) {
  constexpr int kKeys = Dim <= 128 ? 64 : 32, kBlocks = Dim <= 64 ? 3 : 2;
  return bf16 ? variant<MmaTile<true, Dim, kKeys>, MmaTile<true, Dim, 32>, Dim <= 128, kBlocks>("mma")
              : variant<MmaTile<false, Dim, kKeys>, MmaTile<false, Dim, 32>, Dim <= 128, kBlocks>("mma");
}

Variant variant_32(bool bf16);
Variant variant_64(bool bf16);
Variant variant_96(bool bf16);
Variant variant_128(bool bf16);
Variant variant_192(bool bf16);
Variant variant_256(bool bf16);

}  // namespace kw::attention_gqa_backward_cuda
