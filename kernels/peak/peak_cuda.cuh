// What the CUDA kernels of peak share: parameters, and the place of a fragment's elements in memory.
#pragma once
#include "../core/cuda/elements.cuh"
#include "../core/cuda/ptx.cuh"
#include "../core/cuda/sm90.h"
#include "peak.h"

namespace kw::peak_cuda {

struct PeakParams {
  const void* x;
  const void* w;
  float* y;
  DType dtype;                  // of x and w
  int64_t x_row, w_row, y_row;  // elements between rows
  int64_t rows, columns, width, rounds;
  bool wide;  // rows of x, and of y where they are as long, begin at multiples of 16 bytes
};

// A tile of y, for every kernel that multiplies.
constexpr int kTileRows = 64, kTileWidth = 256;

// Elements k and k + 1 of a line as one register, zeros outside.
KW_DEVICE uint32_t pair_at(const void* data, int64_t line, int64_t lines, int64_t pitch, int64_t k, int64_t columns) {
  const auto* from = static_cast<const uint16_t*>(data) + line * pitch + k;
  const uint32_t low = line < lines && k < columns ? from[0] : 0;
  const uint32_t high = line < lines && k + 1 < columns ? from[1] : 0;
  return low | high << 16;
}

// peak_sm90.cu: multiply for 16-bit operands on compute capability 9.0. The emulator runs it unasked: there it is the only
// multiplication that proves the instruction.
inline bool wgmma_runs(const kw_device_info& device) {
  return is_sm90(device) && (device.emulated || sm90_unavailable(device).empty());
}
void prepare_wgmma(DType dtype);
void launch_wgmma(const PeakParams& params, Stream stream);

}  // namespace kw::peak_cuda
