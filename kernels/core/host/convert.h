// Conversion between element types on the host, and walks over strided views.
#pragma once
#include <algorithm>
#include <cstdint>

#include "../tensor.h"

namespace kw {

// What one number in host memory may be: dtypes of 8 bits and more, in their order, then the other typed arrays'.
enum class Element : int32_t { f32, f16, bf16, f8e4m3, f8e5m2, i32, i8, u8, f64, i16, u16, u32 };

// Throws UNSUPPORTED for the 4-bit types, whose elements cannot be addressed one by one: as_bytes is for them.
Element element_of(DType dtype, const char* where);
int64_t size_of(Element element);

// The bytes of a view of 4-bit elements, which has no gaps, as a view of u8; any other view as it is.
TensorView as_bytes(const TensorView& view);

// Whole numbers from 4-bit elements [begin, end).
void unpack_nibbles(const void* from, DType dtype, int64_t begin, int64_t end, int8_t* values);

// dst[i * dst_step] = src[i * src_step] for i in [0, count), steps in elements. One rounding to nearest even. Integers
// saturate and take NaN as 0; f8e4m3 saturates, having no infinity; the other formats overflow to infinity.
void convert(const void* src, Element from, int64_t src_step, void* dst, Element to, int64_t dst_step, int64_t count);

// Row-major walk over N views of one shape, in runs along the last dimension. Neighbouring dimensions that lie alike in
// every view are merged, so that a contiguous view is one run.
template <int N>
class Walk {
 public:
  Walk(const TensorView& shape, const int64_t* const (&strides)[N]);

  int64_t count() const { return count_; }
  // Distance between the elements of a run.
  int64_t step(int view) const { return stride_[view][rank_ - 1]; }

  // Elements [begin, end) in row-major order: run(first element's number, length, its offset in each view).
  template <class Run>
  void operator()(int64_t begin, int64_t end, Run&& run) const {
    while (begin < end) {
      int64_t rest = begin, offset[N] = {};
      for (int i = rank_ - 1; i >= 0; --i) {
        const int64_t index = rest % shape_[i];
        rest /= shape_[i];
        for (int v = 0; v < N; ++v) offset[v] += index * stride_[v][i];
      }
      const int64_t last = shape_[rank_ - 1], length = std::min(end - begin, last - begin % last);
      run(begin, length, offset);
      begin += length;
    }
  }

 private:
  int rank_ = 1;
  int64_t count_ = 1;
  int64_t shape_[kMaxRank] = {1};
  int64_t stride_[N][kMaxRank] = {};
};

template <int N>
Walk<N>::Walk(const TensorView& view, const int64_t* const (&strides)[N]) {
  count_ = view.count();
  if (count_ == 0) return;
  int rank = 0;
  for (int i = 0; i < view.rank; ++i) {
    if (view.shape[i] == 1) continue;
    bool merge = rank > 0;
    for (int v = 0; v < N && merge; ++v) merge = stride_[v][rank - 1] == strides[v][i] * view.shape[i];
    if (!merge) shape_[rank++] = 1;
    shape_[rank - 1] *= view.shape[i];
    for (int v = 0; v < N; ++v) stride_[v][rank - 1] = strides[v][i];
  }
  rank_ = std::max(rank, 1);
}

inline Walk<1> walk(const TensorView& view) { return Walk<1>(view, {view.stride}); }

// Stores row-major doubles into a view of as many elements, and reads elements [begin, end) of one. Of 4-bit ones, whole
// numbers.
void store_rounded(const double* values, const TensorView& view);
void load(const TensorView& view, int64_t begin, int64_t end, double* values);

// value rounded to dtype and back, once.
double round_to(DType dtype, double value);

}  // namespace kw
