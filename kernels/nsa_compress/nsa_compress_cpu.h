// What nsa_compress_cpu.cc asks of an instruction set: plain data and a plain function, so that nothing compiled for one
// processor is ever linked into code for another. nsa_compress_cpu_kernels.h has it, once for every nsa_compress_cpu_<isa>.cc.
#pragma once
#include "nsa_compress.h"

namespace kw::cpu {

// y = factor * sum over `rows` rows of (x + position), for one window.
struct CompressWindow {
  void* y;
  const char* x;
  const char* position;  // may be null
  DType y_dtype, dtype, position_dtype;
  int64_t step, position_step;  // bytes between rows
  int64_t rows, columns;
  float factor;
};

using CompressKernel = void (*)(const CompressWindow&);

extern const CompressKernel kCompressGeneric, kCompressAvx2, kCompressAvx512;

}  // namespace kw::cpu
