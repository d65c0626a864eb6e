// What a kernel sees of a tensor: where it is, what it holds, how it is shaped. Views never own memory.
// Plain data: the same bytes cross the C interface of the CUDA library (kernels/core/abi.h) and can be filled by ctypes.
#pragma once
#include <cstdint>

namespace kw {

// The order is the wire format: src/dtype.ts lists the same names in the same order, and contract.test.ts compares.
enum class DType : int32_t { f32, f16, bf16, f8e4m3, f8e5m2, i32, i8, u8, i4, u4, nf4, mxfp4 };
inline constexpr const char* kDTypeNames[] = {"f32", "f16", "bf16", "f8e4m3", "f8e5m2", "i32",
                                              "i8",  "u8",  "i4",   "u4",     "nf4",    "mxfp4"};
inline constexpr int kDTypeCount = sizeof(kDTypeNames) / sizeof(kDTypeNames[0]);

inline constexpr const char* name(DType t) { return kDTypeNames[static_cast<int>(t)]; }

inline constexpr int bits(DType t) {
  switch (t) {
    case DType::f32:
    case DType::i32:
      return 32;
    case DType::f16:
    case DType::bf16:
      return 16;
    case DType::f8e4m3:
    case DType::f8e5m2:
    case DType::i8:
    case DType::u8:
      return 8;
    default:
      return 4;
  }
}

// Bytes of `count` elements without gaps. 4-bit ones lie two to a byte, the even one in the low half; a tensor of them
// has no gaps, and a view of part of it begins and ends on a byte.
inline constexpr int64_t bytes_of(DType t, int64_t count) { return (count * bits(t) + 7) / 8; }

inline constexpr int kMaxRank = 8;

struct TensorView {
  void* data = nullptr;  // first element of the view; null when absent or empty
  DType dtype = DType::f32;
  int32_t rank = 0;               // 0: absent (optional arguments)
  int64_t shape[kMaxRank] = {};   // entries past rank are 0
  int64_t stride[kMaxRank] = {};  // in elements; 0 repeats the same element along that dimension
  uint64_t format = 0;            // 0: as the strides say; else packed for a kernel (core/packed.h)

  int64_t dim(int i) const { return shape[i < 0 ? rank + i : i]; }
  int64_t step(int i) const { return stride[i < 0 ? rank + i : i]; }
  bool present() const { return rank != 0; }
  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return rank ? n : 0;
  }
};

struct ConstTensor : TensorView {};          // the kernel only reads it
struct OptionalConstTensor : TensorView {};  // may be absent
struct Tensor : TensorView {};               // the kernel writes all of it
struct InOutTensor : TensorView {};          // the kernel changes some of it; the rest stays as it is

}  // namespace kw
