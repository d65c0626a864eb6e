// What attention_merge_cpu.cc asks of an instruction set: plain data and a plain function, so that nothing compiled for one
// processor is ever linked into code for another. attention_merge_cpu_kernels.h has it, once for every attention_merge_cpu_<isa>.cc.
#pragma once
#include "attention_merge.h"

namespace kw::cpu {

// y = sum over parts of weights[n] * part n / divisor, for one row. Parts of weight 0 are not read.
struct MergeRow {
  void* y;
  DType y_dtype, dtype;  // of y, of the parts
  const char* parts;
  int64_t step;  // bytes between parts
  const float* weights;
  int64_t count, columns;
  float divisor;
};

using MergeKernel = void (*)(const MergeRow&);

extern const MergeKernel kMergeGeneric, kMergeAvx2, kMergeAvx512;

}  // namespace kw::cpu
