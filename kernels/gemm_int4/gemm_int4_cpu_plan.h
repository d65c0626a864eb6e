// The plan of gemm_int4 on the CPU: how a problem is cut, and by which of its ways it runs (gemm_int4_cpu.cc).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../core/cpu/features.h"
#include "../core/threads.h"
#include "../gemm/gemm_cpu_layout.h"
#include "gemm_int4_cpu.h"

namespace kw::cpu {

enum class Way { stream, stream_int8, blocks, tiles };

// How a problem is cut: a pure function of shape, kernels and machine.
struct Int4Layout {
  Way way = Way::stream;
  int threads = 1;
  int64_t group = 1;    // rows of x arranged at a time
  int64_t columns = 1;  // of y in a task
  GemmLayout blocks;
  Int4TileShape tiles;
  int64_t piece = 1;  // segments of tiles at a time
  // Regions of the workspace in floats.
  int64_t arranged = 0, own_work = 0, own_w = 0, own_sums = 0;
  int64_t own() const { return own_work + own_w + own_sums; }
  int64_t floats() const { return arranged + threads * own(); }
};

// What a configuration asks for: kernels of this instruction set, and the way of few rows of x or of many.
struct Asked {
  Isa isa;
  std::optional<bool> many;  // absent: as m says
};

class GemmInt4CpuPlan {
 public:
  static std::string declines(const GemmInt4Args& args, const kw_device_info&);
  static std::vector<std::string> configurations(const GemmInt4Args& args, const kw_device_info& device);
  static uint64_t format(const kw_device_info&, const char* operand, const TensorView&);
  GemmInt4CpuPlan(const GemmInt4Args& args, const kw_device_info& device, const std::string& configuration = "");
  uint64_t workspace() const { return static_cast<uint64_t>(capacity_) * sizeof(float); }
  void rebind(const GemmInt4Args& args, void* workspace);
  void enqueue(void* stream) const;
  std::string explain() const;

 private:
  GemmInt4CpuPlan(const GemmInt4Args& args, const kw_device_info& device, const Asked& asked);
  static std::vector<std::pair<std::string, Asked>> ways(const GemmInt4Args&, const kw_device_info&);
  static Asked asked_by(const std::string& configuration, const GemmInt4Args&, const kw_device_info&);
  // x is packed here, through perm where there is one, and not by a block's own thread.
  static GemmKernels packing_for_all(GemmKernels);
  std::string name_of(const Int4Layout&) const;
  Int4Layout layout(const GemmInt4Shape&) const;
  void lay_out_stream(const GemmShape&, Int4Layout&) const;
  void lay_out_blocks(const GemmShape&, Int4Layout&) const;
  void lay_out_tiles(const GemmInt4Shape&, const GemmShape&, Int4Layout&) const;
  int64_t capacity(const GemmInt4Shape&) const;
  int most_streamed(int64_t block) const;
  template <class Fn>
  void each(ThreadPool& pool, int64_t n, int64_t grain, Fn&& fn) const;
  Int4Row row_of(int64_t row) const;
  void arrange(int64_t row, float* to, float* own) const;
  void pack_x(int64_t row, int64_t rows, float* to, float* own) const;
  void run_stream(int64_t first, int64_t rows, int64_t task, float* own) const;
  void run_block(int64_t first, int64_t rows, int64_t task, float* own) const;
  void run_tiles(int64_t first, int64_t rows, int64_t task, float* own) const;
  void ask_scales(int64_t row, int64_t rows) const;
  void finish(int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums, int64_t stride,
              int64_t up) const;

  GemmMachine machine_;
  const Int4Kernels& kernels_;
  const std::optional<bool> many_;  // a configuration asks for
  Activation activation_;
  int halves_;  // 2 with a gated activation: the gate's rows of w and the up rows
  bool invariant_, int8_, dequant_, normal_float_;
  bool packed_;   // w is; it stays so for as long as the plan lives
  bool rounded_;  // x is rounded to int8, but multiplied as f32
  bool tiles_;    // there are kernels for tiles, and the problem is one for them
  DType dtype_;   // of x as it is multiplied
  GemmKernels gemm_;
  int64_t capacity_;
  GemmInt4Shape shape_;
  int64_t rows_ = 0;  // of x, over all batches
  Int4Weight w_;
  Int4Layout layout_;
  float* space_ = nullptr;
};

}  // namespace kw::cpu
