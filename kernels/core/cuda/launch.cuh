// What a CUDA source includes instead of anything from CUDA: launching, shared memory and tensor maps.
//   nvcc            the CUDA runtime
//   g++ -DKW_EMU    the emulator (docs/gpu.md): the same kernel source, a thread is a fiber
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "../error.h"
#include "../tensor.h"

#if defined(KW_EMU)
#include <tuple>

#include "../emu/shim.h"
#include "../emu/submit.h"
#else
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <mutex>

#include "check.h"
#include "trace.h"
#endif

#define KW_DEVICE __device__ __forceinline__

namespace kw {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

#if defined(KW_EMU)
using Stream = void*;  // see emu/submit.h
using TensorMap = emu::TensorMap;
#else
using Stream = cudaStream_t;
using TensorMap = CUtensorMap;
#endif

// kw::launch({.grid = {n}, .block = {256}, .smem = kSmem, .stream = stream}, kernel, args...);
struct LaunchConfig {
  Dim grid, block;
  size_t smem = 0;  // bytes of dynamic shared memory; above 48 KB the kernel must have been prepared
  Dim cluster{};    // sm_90: blocks per cluster
  Stream stream = {};
};

// Pattern of 16-byte chunks in shared memory; the span of one row is 32, 64 or 128 bytes.
enum class Swizzle : uint32_t { none, b32, b64, b128 };

namespace detail {
template <class T>
struct Same {
  using type = T;
};
}  // namespace detail

// ---- shared memory -----------------------------------------------------------------------------
//   KW_SHARED(float[32][33], tile);                 static, at function scope of a kernel
//   unsigned char* base = kw::dyn_smem();           the launch's dynamic part, aligned to 1024 bytes
#if defined(KW_EMU)
#define KW_SHARED(TYPE, NAME)                                                                                   \
  auto& NAME = *static_cast<typename ::kw::detail::Same<TYPE>::type*>(::kw::emu::static_smem(                   \
      [] {                                                                                                      \
        static char tag;                                                                                        \
        return static_cast<const void*>(&tag);                                                                  \
      }(),                                                                                                      \
      sizeof(typename ::kw::detail::Same<TYPE>::type), alignof(typename ::kw::detail::Same<TYPE>::type), #NAME, \
      ::kw::emu::Loc{__FILE__, __LINE__, nullptr}))
inline unsigned char* dyn_smem() { return static_cast<unsigned char*>(emu::dyn_smem()); }
#else
#define KW_SHARED(TYPE, NAME) __shared__ typename ::kw::detail::Same<TYPE>::type NAME
KW_DEVICE unsigned char* dyn_smem() {
  extern __shared__ __align__(1024) unsigned char kw_dynamic_shared[];
  return kw_dynamic_shared;
}
#endif

// ---- launching ---------------------------------------------------------------------------------
// prepare: before the first launch on a device; loads the kernel and lets it use `smem` bytes of dynamic shared memory,
// or more if it was given more before.
// launch: queues the grid and returns; in the emulator, a grid without a stream runs first.
// Both throw kw::Error: CUDA, or what check.h makes of the status.
#if defined(KW_EMU)
template <class... P>
void prepare(void (*kernel)(P...), size_t smem) {
  emu::prepare(reinterpret_cast<const void*>(kernel), smem);
}

template <class... P, class... A>
void launch(const LaunchConfig& c, void (*kernel)(P...), A&&... args) {
  emu::Launch l;
  l.kernel = reinterpret_cast<const void*>(kernel);
  l.grid = {c.grid.x, c.grid.y, c.grid.z};
  l.block = {c.block.x, c.block.y, c.block.z};
  l.cluster = {c.cluster.x, c.cluster.y, c.cluster.z};
  l.smem = c.smem;
  emu::check_launch(l);
  emu::submit(c.stream, [l, kernel, arguments = std::tuple<P...>(std::forward<A>(args)...)] {
    emu::launch(l, [&] { std::apply(kernel, arguments); });
  });
}
#else
template <class... P>
void prepare(void (*kernel)(P...), size_t smem) {
  static std::mutex mutex;  // between reading the limit and raising it
  const std::lock_guard lock(mutex);
  const auto* entry = reinterpret_cast<const void*>(kernel);
  cudaFuncAttributes now;
  cuda_check("cudaFuncGetAttributes", cudaFuncGetAttributes(&now, entry));
  if (smem <= static_cast<size_t>(now.maxDynamicSharedSizeBytes)) return;
  cuda_check("cudaFuncSetAttribute(MaxDynamicSharedMemorySize)",
             cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(smem)));
}

template <class... P, class... A>
void launch(const LaunchConfig& c, void (*kernel)(P...), A&&... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(c.grid.x, c.grid.y, c.grid.z);
  config.blockDim = dim3(c.block.x, c.block.y, c.block.z);
  config.dynamicSmemBytes = c.smem;
  config.stream = c.stream;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = c.cluster.x;
  cluster.val.clusterDim.y = c.cluster.y;
  cluster.val.clusterDim.z = c.cluster.z;
  config.attrs = &cluster;
  config.numAttrs = c.cluster.x * c.cluster.y * c.cluster.z > 1 ? 1 : 0;
  cuda_check("cudaLaunchKernelEx", cudaLaunchKernelEx(&config, kernel, std::forward<A>(args)...));
  if (launch_trace.on) launch_trace.kernels.push_back(reinterpret_cast<const void*>(kernel));
}
#endif

// ---- tensor maps -------------------------------------------------------------------------------
// A row-major matrix [outer][inner] in device memory with rows `pitch` bytes apart, or `layers` of them `layer_pitch` bytes
// apart, moved by TMA in boxes of [box_outer][box_inner] elements of one matrix; or four dimensions, the contiguous one first,
// with boxes of any of them. Elements outside load as zero and are not stored. sm_90 only. Needs base and pitches at multiples
// of 16 bytes, boxes of at most 256 each way, and a box row within the swizzle's span; throws ARGUMENT with the offending value
// otherwise. Source: CUDA driver API, cuTensorMapEncodeTiled.
namespace detail {
inline TensorMap make_tensor_map(uint32_t rank, DType dtype, const void* base, const uint64_t (&extents)[4],
                                 const uint64_t (&pitches)[3], const uint32_t (&box)[4], Swizzle swizzle) {
  const auto require = [&](bool ok, const char* name, uint64_t value, const char* expected) {
    if (!ok)
      throw Error(Code::ARGUMENT, "make_tensor_map_" + std::to_string(rank) + "d: " + name + " is " +
                                      std::to_string(value) + ", expected " + expected);
  };
  const uint64_t size = static_cast<uint64_t>(bits(dtype)) / 8;
  const uint64_t span = swizzle == Swizzle::none ? 256 * size : 16u << static_cast<uint32_t>(swizzle);
  const char* const kNames[] = {"inner", "outer", "layers", "batch"};
  const char* const kPitches[] = {"pitch", "layer_pitch", "batch_pitch"};
  const char* const kBoxes[] = {"box_inner", "box_outer", "box_layers", "box_batch"};
  require(size != 0, "the element size in bits", static_cast<uint64_t>(bits(dtype)), "8, 16 or 32");
  require(reinterpret_cast<uintptr_t>(base) % 16 == 0, "base", reinterpret_cast<uintptr_t>(base), "a multiple of 16");
  for (uint32_t i = 0; i < rank; ++i)
    require(extents[i] >= 1 && extents[i] <= 1ull << 32, kNames[i], extents[i], "1 to 2^32");
  require(pitches[0] % 16 == 0 && pitches[0] >= extents[0] * size && pitches[0] < 1ull << 40, "pitch", pitches[0],
          "a multiple of 16, at least one row and below 2^40");
  for (uint32_t i = 1; i + 1 < rank; ++i)
    require(pitches[i] % 16 == 0 && pitches[i] < 1ull << 40, kPitches[i], pitches[i], "a multiple of 16 below 2^40");
  for (uint32_t i = 0; i < rank; ++i) require(box[i] >= 1 && box[i] <= 256, kBoxes[i], box[i], "1 to 256");
  require(box[0] * size % 16 == 0 && box[0] * size <= span, "box_inner in bytes", box[0] * size,
          "a multiple of 16 within the swizzle span");
#if defined(KW_EMU)
  return emu::tensor_map(rank, static_cast<uint32_t>(size), base, extents, pitches, box,
                         static_cast<uint32_t>(swizzle));
#else
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const auto encode = [] {  // asked of the driver, once, so that the library does not link libcuda
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found;
    cuda_check("cudaGetDriverEntryPointByVersion(cuTensorMapEncodeTiled)",
               cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess || !entry)
      throw Error(Code::CUDA, "cuTensorMapEncodeTiled: the driver has no such entry point; it needs CUDA 12");
    return reinterpret_cast<Encode>(entry);
  }();
  const CUtensorMapDataType type = dtype == DType::bf16  ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                   : dtype == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                   : dtype == DType::f32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                                   : size == 4           ? CU_TENSOR_MAP_DATA_TYPE_INT32
                                                         : CU_TENSOR_MAP_DATA_TYPE_UINT8;
  const cuuint64_t dims[4] = {extents[0], extents[1], extents[2], extents[3]};
  const cuuint64_t strides[3] = {pitches[0], pitches[1], pitches[2]};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  TensorMap map;
  const CUresult status = encode(&map, type, rank, const_cast<void*>(base), dims, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, static_cast<CUtensorMapSwizzle>(swizzle),
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw Error(Code::CUDA, "cuTensorMapEncodeTiled: status " + std::to_string(static_cast<int>(status)));
  return map;
#endif
}
}  // namespace detail

inline TensorMap make_tensor_map_2d(DType dtype, const void* base, uint64_t inner, uint64_t outer, uint64_t pitch,
                                    uint32_t box_inner, uint32_t box_outer, Swizzle swizzle) {
  return detail::make_tensor_map(2, dtype, base, {inner, outer, 1, 1}, {pitch, 0, 0}, {box_inner, box_outer, 1, 1},
                                 swizzle);
}
inline TensorMap make_tensor_map_3d(DType dtype, const void* base, uint64_t inner, uint64_t outer, uint64_t layers,
                                    uint64_t pitch, uint64_t layer_pitch, uint32_t box_inner, uint32_t box_outer,
                                    Swizzle swizzle) {
  return detail::make_tensor_map(3, dtype, base, {inner, outer, layers, 1}, {pitch, layer_pitch, 0},
                                 {box_inner, box_outer, 1, 1}, swizzle);
}
inline TensorMap make_tensor_map_4d(DType dtype, const void* base, const uint64_t (&extents)[4],
                                    const uint64_t (&pitches)[3], const uint32_t (&box)[4], Swizzle swizzle) {
  return detail::make_tensor_map(4, dtype, base, extents, pitches, box, swizzle);
}

}  // namespace kw
