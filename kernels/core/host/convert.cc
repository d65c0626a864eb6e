// Conversions go through f32 where both types fit in it exactly, and through f64 otherwise, a few hundred at a time: one
// loop per type to load and one to store, instead of one per pair.
#include "convert.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "../error.h"
#include "../numeric.h"

namespace kw {
namespace {

constexpr int64_t kChunk = 256;

// f64 to f32 with rounding to odd: rounding that to a shorter format afterwards rounds as if once.
float to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || std::isnan(value)) return nearest;
  const auto bits = std::bit_cast<uint32_t>(nearest);
  if (bits & 1) return nearest;
  return std::bit_cast<float>(std::fabs(static_cast<double>(nearest)) > std::fabs(value) ? bits - 1 : bits + 1);
}

uint8_t f32_to_f8e5m2(float value) {
  constexpr int kFraction = 2, kLowest = -14, kLargest = 0x7b, kInfinity = 0x7c;
  const auto sign = static_cast<uint8_t>(std::bit_cast<uint32_t>(value) >> 24 & 0x80);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7f;
  if (magnitude == 0) return sign;
  if (std::isinf(value)) return sign | kInfinity;
  const int exponent = std::max(std::ilogb(magnitude), kLowest);
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, kFraction - exponent)));
  const int code = ((exponent - kLowest) << kFraction) + steps;
  return static_cast<uint8_t>(sign | (code > kLargest ? kInfinity : code));
}

// The upper half of the f16 with the same fields.
float f8e5m2_to_f32(uint8_t code) { return f16_to_f32(static_cast<uint16_t>(code << 8)); }

template <class Whole, class Middle>
Whole to_whole(Middle value) {
  if (std::isnan(value)) return 0;
  const double rounded = std::nearbyint(static_cast<double>(value));
  const auto low = static_cast<double>(std::numeric_limits<Whole>::min());
  const auto high = static_cast<double>(std::numeric_limits<Whole>::max());
  return static_cast<Whole>(std::min(std::max(rounded, low), high));
}

// Each type: how it is stored, how it is read exactly and written with one rounding.
struct F32 {
  using Stored = float;
  template <class M>
  static M load(float v) {
    return v;
  }
  static float store(float v) { return v; }
  static float store(double v) { return static_cast<float>(v); }
};
template <float (*decode)(uint16_t), uint16_t (*encode)(float)>
struct Half {
  using Stored = uint16_t;
  template <class M>
  static M load(uint16_t v) {
    return decode(v);
  }
  static uint16_t store(float v) { return encode(v); }
  static uint16_t store(double v) { return encode(to_odd(v)); }
};
template <float (*decode)(uint8_t), uint8_t (*encode)(float)>
struct Quarter {
  using Stored = uint8_t;
  template <class M>
  static M load(uint8_t v) {
    return decode(v);
  }
  static uint8_t store(float v) { return encode(v); }
  static uint8_t store(double v) { return encode(to_odd(v)); }
};
struct F64 {
  using Stored = double;
  template <class M>
  static M load(double v) {
    return static_cast<M>(v);
  }
  template <class M>
  static double store(M v) {
    return v;
  }
};
template <class Whole>
struct Integer {
  using Stored = Whole;
  template <class M>
  static M load(Whole v) {
    return static_cast<M>(v);
  }
  template <class M>
  static Whole store(M v) {
    return to_whole<Whole>(v);
  }
};

template <class Body>
void with_element(Element element, Body&& body) {
  switch (element) {
    case Element::f32:
      return body(F32{});
    case Element::f16:
      return body(Half<f16_to_f32, f32_to_f16>{});
    case Element::bf16:
      return body(Half<bf16_to_f32, f32_to_bf16>{});
    case Element::f8e4m3:
      return body(Quarter<f8e4m3_to_f32, f32_to_f8e4m3>{});
    case Element::f8e5m2:
      return body(Quarter<f8e5m2_to_f32, f32_to_f8e5m2>{});
    case Element::i32:
      return body(Integer<int32_t>{});
    case Element::i8:
      return body(Integer<int8_t>{});
    case Element::u8:
      return body(Integer<uint8_t>{});
    case Element::f64:
      return body(F64{});
    case Element::i16:
      return body(Integer<int16_t>{});
    case Element::u16:
      return body(Integer<uint16_t>{});
    case Element::u32:
      return body(Integer<uint32_t>{});
  }
}

// Whether every value of the type is exact in f32.
bool fits_f32(Element element) { return element != Element::i32 && element != Element::u32 && element != Element::f64; }

template <class Middle>
void convert_through(const void* src, Element from, int64_t src_step, void* dst, Element to, int64_t dst_step,
                     int64_t count) {
  Middle middle[kChunk];
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t n = std::min(kChunk, count - done);
    with_element(from, [&](auto type) {
      const auto* in = static_cast<const typename decltype(type)::Stored*>(src) + done * src_step;
      for (int64_t i = 0; i < n; ++i) middle[i] = type.template load<Middle>(in[i * src_step]);
    });
    with_element(to, [&](auto type) {
      auto* out = static_cast<typename decltype(type)::Stored*>(dst) + done * dst_step;
      for (int64_t i = 0; i < n; ++i) out[i * dst_step] = type.store(middle[i]);
    });
  }
}

// The same type on both sides: bits move, NaN payloads included.
template <class Stored>
void move(const void* src, int64_t src_step, void* dst, int64_t dst_step, int64_t count) {
  const auto* in = static_cast<const Stored*>(src);
  auto* out = static_cast<Stored*>(dst);
  for (int64_t i = 0; i < count; ++i) out[i * dst_step] = in[i * src_step];
}

}  // namespace

Element element_of(DType dtype, const char* where) {
  if (bits(dtype) < 8) {
    throw Error(Code::UNSUPPORTED,
                std::string(where) + ": dtype is " + name(dtype) + ", expected a type of 8 bits or more");
  }
  return static_cast<Element>(dtype);
}

int64_t size_of(Element element) {
  int64_t size = 0;
  with_element(element, [&](auto type) { size = sizeof(typename decltype(type)::Stored); });
  return size;
}

TensorView as_bytes(const TensorView& view) {
  if (bits(view.dtype) >= 8) return view;
  TensorView bytes;
  bytes.data = view.data;
  bytes.dtype = DType::u8;
  bytes.rank = 1, bytes.shape[0] = bytes_of(view.dtype, view.count()), bytes.stride[0] = 1;
  return bytes;
}

void unpack_nibbles(const void* from, DType dtype, int64_t begin, int64_t end, int8_t* values) {
  for (int64_t i = begin; i < end; ++i) *values++ = static_cast<int8_t>(nibble_value(dtype, nibble(from, i)));
}

void convert(const void* src, Element from, int64_t src_step, void* dst, Element to, int64_t dst_step, int64_t count) {
  if (from != to) {
    if (fits_f32(from) && fits_f32(to)) {
      convert_through<float>(src, from, src_step, dst, to, dst_step, count);
    } else {
      convert_through<double>(src, from, src_step, dst, to, dst_step, count);
    }
    return;
  }
  const int64_t size = size_of(from);
  if (src_step == 1 && dst_step == 1) {
    std::memcpy(dst, src, count * size);
  } else if (size == 1) {
    move<uint8_t>(src, src_step, dst, dst_step, count);
  } else if (size == 2) {
    move<uint16_t>(src, src_step, dst, dst_step, count);
  } else if (size == 4) {
    move<uint32_t>(src, src_step, dst, dst_step, count);
  } else {
    move<uint64_t>(src, src_step, dst, dst_step, count);
  }
}

void store_rounded(const double* values, const TensorView& view) {
  if (bits(view.dtype) < 8) {
    for (int64_t i = 0, n = view.count(); i < n; ++i) store_nibble(view.data, i, static_cast<int>(values[i]));
    return;
  }
  const Walk<1> elements = walk(view);
  const Element element = element_of(view.dtype, "store");
  const int64_t size = size_of(element);
  elements(0, elements.count(), [&](int64_t first, int64_t length, const int64_t* offset) {
    convert(values + first, Element::f64, 1, static_cast<char*>(view.data) + offset[0] * size, element,
            elements.step(0), length);
  });
}

void load(const TensorView& view, int64_t begin, int64_t end, double* values) {
  if (bits(view.dtype) < 8) {
    for (int64_t i = begin; i < end; ++i) *values++ = nibble_value(view.dtype, nibble(view.data, i));
    return;
  }
  const Walk<1> elements = walk(view);
  const Element element = element_of(view.dtype, "load");
  const int64_t size = size_of(element);
  elements(begin, end, [&](int64_t first, int64_t length, const int64_t* offset) {
    convert(static_cast<const char*>(view.data) + offset[0] * size, element, elements.step(0), values + (first - begin),
            Element::f64, 1, length);
  });
}

double round_to(DType dtype, double value) {
  if (bits(dtype) < 8) return std::nearbyint(value);
  uint64_t storage = 0;
  double rounded;
  const Element element = element_of(dtype, "round");
  convert(&value, Element::f64, 1, &storage, element, 1, 1);
  convert(&storage, element, 1, &rounded, Element::f64, 1, 1);
  return rounded;
}

}  // namespace kw
