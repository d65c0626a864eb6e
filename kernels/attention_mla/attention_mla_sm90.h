// What is known of attention_mla's kernel for compute capability 9.0 (attention_mla_sm90.cu) without CUDA: its tile, and what it declines.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "../core/abi.h"
#include "attention_mla.h"

namespace kw {
struct LaunchConfig;
}
namespace kw::attention_gqa_cuda {
struct PagedParams;
}

namespace kw::attention_mla_cuda {

struct Sm90Configuration {
  static constexpr const char* kName = "sm90_mla_64";
  static constexpr int kDim = 576, kDimV = 512, kRows = 64, kKeys = 64, kStages = 2, kThreads = 384;
  // Queries, the ring, weights, two times 64 maxima, where the block's rows are, barriers.
  static constexpr int kSmem = (kRows + kStages * kKeys) * kDim * 2 + kRows * kKeys * 2 + 2 * kRows * 4 + 192 + 64;
};

// Slots of a box of TMA, for pages that a tile of keys consists of or lies in; 0: there is none.
inline int sm90_box_rows(int64_t page_size) {
  for (int rows = Sm90Configuration::kKeys; rows >= 8; rows /= 2)
    if (page_size == rows || (rows == Sm90Configuration::kKeys && page_size % rows == 0)) return rows;
  return 0;
}

// Why it cannot compute this, or should not; empty when it should.
inline std::string sm90_declines(const AttentionMlaArgs& a, const kw_device_info& device) {
  constexpr int64_t kLeastRows = 32, kLeastDim = 320, kMost = int64_t{1} << 40;
  const auto text = [](int64_t value) { return std::to_string(value); };
  if (a.q.dtype != DType::bf16 && a.q.dtype != DType::f16)
    return std::string("q is ") + name(a.q.dtype) + ", expected bf16 or f16";
  if (a.q.dim(3) <= kLeastDim) return "rows of " + text(a.q.dim(3)) + " would be padded to 576";
  const int64_t rows = a.q.dim(1) * a.q.dim(2), page_size = a.c_cache.dim(1);
  if (rows <= kLeastRows) return text(rows) + " rows would be padded to 64";
  if (a.c_cache.dim(0) < 1) return "there are no pages";
  if (!sm90_box_rows(page_size))
    return "pages hold " + text(page_size) + " rows, expected 8, 16, 32 or a multiple of 64";
  bool walks = reinterpret_cast<uintptr_t>(a.c_cache.data) % 16 == 0;
  for (int i = 0; i < 2; ++i) {
    const int64_t bytes = a.c_cache.step(i) * 2;
    walks &= a.c_cache.dim(i) == 1 || (bytes % 16 == 0 && a.c_cache.step(i) >= a.c_cache.dim(2) && bytes < kMost);
  }
  if (!walks) return "rows of c_cache do not lie apart at multiples of 16 bytes";
  if (device.smem_bytes < static_cast<uint64_t>(Sm90Configuration::kSmem))
    return "shared memory per block is " + text(static_cast<int64_t>(device.smem_bytes)) + " bytes";
  return "";
}

// A launch with its tensor map.
class Sm90Launch {
 public:
  // Prepares the kernel on the current device. Throws CUDA when the driver refuses.
  void bind(const attention_gqa_cuda::PagedParams& p);
  void enqueue(const LaunchConfig& config, const attention_gqa_cuda::PagedParams& p) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace kw::attention_mla_cuda
