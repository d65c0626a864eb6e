#include "quantize.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "../../gemm_int4/gemm_int4.h"
#include "../numeric.h"
#include "convert.h"

namespace kw {
namespace {

constexpr int kRatios = 51;  // from 1 down to 0.5

// To nearest even, for magnitudes below 2^22: additions alone, which vectorise.
float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

// How the elements of a group are coded: clamp(round(v * inverse) + zero, 0, 15), or looked up.
struct Coding {
  float scale = 0, inverse = 0;
  int zero = 8;
};

Coding code_for(float scale, DType dtype) {
  Coding code;
  code.scale = rounded(dtype, scale);
  if (!std::isfinite(code.scale)) {
    throw Error(Code::ARGUMENT,
                "quantize: a scale is " + std::to_string(scale) + ", expected one that " + name(dtype) + " holds");
  }
  code.inverse = code.scale > 0 && std::isfinite(1 / code.scale) ? 1 / code.scale : 0;
  return code;
}

Coding whole_code(float lo, float hi, bool zeros, DType dtype) {
  if (!zeros) return code_for(std::max(hi / 7, -lo / 8), dtype);
  Coding code = code_for((hi - lo) / 15, dtype);
  code.zero = static_cast<int>(std::clamp(round_even(std::min(-lo * code.inverse, 15.0f)), 0.0f, 15.0f));
  return code;
}

float whole(const Coding& code, float v) {
  return std::clamp(round_even(std::clamp(v * code.inverse, -32.0f, 32.0f)) + static_cast<float>(code.zero), 0.0f,
                    15.0f);
}

// Eight sums side by side, in a fixed order.
double squared_error(const Coding& code, const float* v, int64_t count) {
  double sums[8] = {};
  for (int64_t i = 0; i < count; i += 8) {
    for (int j = 0; j < 8; ++j) {
      const double off =
          double{(whole(code, v[i + j]) - static_cast<float>(code.zero)) * code.scale} - double{v[i + j]};
      sums[j] += off * off;
    }
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

Coding best_code(const float* v, int64_t count, bool zeros, bool clipped, DType dtype) {
  const auto [least, most] = std::minmax_element(v, v + count);
  const float lo = std::min(0.0f, *least), hi = std::max(0.0f, *most);
  Coding best = whole_code(lo, hi, zeros, dtype);
  if (!clipped || best.inverse == 0) return best;
  double error = squared_error(best, v, count);
  for (int i = 1; i < kRatios; ++i) {
    const float ratio = 1 - 0.01f * static_cast<float>(i);
    const Coding code = whole_code(lo * ratio, hi * ratio, zeros, dtype);
    const double other = squared_error(code, v, count);
    if (other < error) best = code, error = other;
  }
  return best;
}

int nearest_normal(float x) {
  int q = 0;
  while (q < 15 && x > 0.5f * (kNormalFloat4[q] + kNormalFloat4[q + 1])) ++q;
  return q;
}

int64_t size_of(const TensorView& view) { return bits(view.dtype) / 8; }

// Row r of w, from its elements to f32 or back.
char* row_of(const TensorView& w, int64_t r) { return static_cast<char*>(w.data) + r * w.stride[0] * size_of(w); }

int64_t scale_at(const TensorView& scales, int64_t g, int64_t r) { return g * scales.stride[0] + r * scales.stride[1]; }

}  // namespace

void quantize_rows(const Quantized& to, int64_t begin, int64_t end, uint8_t* zeros) {
  const int64_t k = to.w.shape[1], groups = to.scales.shape[0], group = k / groups;
  std::vector<float> v(k);
  for (int64_t r = begin; r < end; ++r) {
    convert(row_of(to.w, r), element_of(to.w.dtype, "quantize"), to.w.stride[1], v.data(), Element::f32, 1, k);
    const auto bad = std::find_if(v.begin(), v.end(), [](float x) { return !std::isfinite(x); });
    if (bad != v.end()) {
      throw Error(Code::ARGUMENT, "quantize: w[" + std::to_string(r) + ", " + std::to_string(bad - v.begin()) +
                                      "] is " +
                                      (std::isnan(*bad) ? "NaN"
                                       : *bad > 0       ? "Infinity"
                                                        : "-Infinity") +
                                      ", expected a finite number");
    }
    for (int64_t g = 0; g < groups; ++g) {
      const float* x = &v[g * group];
      Coding code;
      if (to.codes.dtype == DType::nf4) {
        float largest = 0;
        for (int64_t i = 0; i < group; ++i) largest = std::max(largest, std::abs(x[i]));
        code = code_for(largest, to.scales.dtype);
      } else {
        code = best_code(x, group, to.zeros.present(), to.clipped, to.scales.dtype);
      }
      store_f32(to.scales.data, to.scales.dtype, scale_at(to.scales, g, r), code.scale);
      if (to.zeros.present()) *zeros++ = static_cast<uint8_t>(code.zero);
      for (int64_t i = 0; i < group; ++i) {
        const int q =
            to.codes.dtype == DType::nf4 ? nearest_normal(x[i] * code.inverse) : static_cast<int>(whole(code, x[i]));
        store_nibble(to.codes.data, r * k + g * group + i, q);
      }
    }
  }
}

void dequantize_rows(const Quantized& from, int64_t begin, int64_t end) {
  const int64_t rows = from.codes.shape[0], k = from.codes.shape[1], groups = from.scales.shape[0], group = k / groups;
  std::vector<float> v(k);
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t p = 0; p < k; ++p) {
      const int64_t g = p / group;
      const int q = nibble(from.codes.data, r * k + p);
      const float code =
          from.codes.dtype == DType::nf4
              ? kNormalFloat4[q]
              : static_cast<float>(q - (from.zeros.present() ? nibble(from.zeros.data, g * rows + r) : 8));
      v[p] = code * load_f32(from.scales.data, from.scales.dtype, scale_at(from.scales, g, r));
    }
    convert(v.data(), Element::f32, 1, row_of(from.w, r), element_of(from.w.dtype, "dequantize"), from.w.stride[1], k);
  }
}

}  // namespace kw
