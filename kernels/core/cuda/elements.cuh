// Reading and writing f32, f16, bf16 and f8e4m3 elements by a dtype known at run time, one at a time or eight consecutive ones
// as accesses of 16 bytes (f8e4m3: 8). Plain loads and stores: the memory may be written by the same kernel. One rounding, to nearest even.
#pragma once
#include "launch.cuh"

namespace kw {

// f8e4m3 in integers, as core/numeric.h has it: no instruction of sm_80 does it.
KW_DEVICE float f8e4m3_to_float(uint32_t code) {
  const uint32_t rest = code & 0x7f;
  const __half_raw half{static_cast<unsigned short>((code & 0x80) << 8 | rest << 7)};
  return rest == 0x7f ? __uint_as_float(0x7fc00000u) : 256.0f * __half2float(__half(half));
}

KW_DEVICE uint32_t float_to_f8e4m3(float value) {
  const uint32_t u = __float_as_uint(value), sign = u >> 24 & 0x80u, a = min(u & 0x7fffffffu, 0x43e00000u);
  const uint32_t small = __float_as_uint(__uint_as_float(a) + 0x1p14f) & 15u;
  const uint32_t code = a < 0x3c800000u ? small : (a - 0x3c000000u + 0x7ffffu + (a >> 20 & 1u)) >> 20;
  return sign | (value == value ? code : 0x7fu);
}

KW_DEVICE float load1(const void* p, DType dtype, int64_t index) {
  if (dtype == DType::f32) return static_cast<const float*>(p)[index];
  if (dtype == DType::bf16) return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[index]);
  if (dtype == DType::f8e4m3) return f8e4m3_to_float(static_cast<const uint8_t*>(p)[index]);
  return __half2float(static_cast<const __half*>(p)[index]);
}

KW_DEVICE void store1(void* p, DType dtype, int64_t index, float value) {
  if (dtype == DType::f32) {
    static_cast<float*>(p)[index] = value;
  } else if (dtype == DType::bf16) {
    static_cast<__nv_bfloat16*>(p)[index] = __float2bfloat16_rn(value);
  } else if (dtype == DType::f8e4m3) {
    static_cast<uint8_t*>(p)[index] = static_cast<uint8_t>(float_to_f8e4m3(value));
  } else {
    static_cast<__half*>(p)[index] = __float2half_rn(value);
  }
}

// The address of element `index` must be a multiple of 16 bytes (f8e4m3: of 8).
KW_DEVICE void load8(float (&v)[8], const void* p, DType dtype, int64_t index) {
  if (dtype == DType::f32) {
    const float4* source = reinterpret_cast<const float4*>(static_cast<const float*>(p) + index);
    const float4 a = source[0], b = source[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    return;
  }
  if (dtype == DType::f8e4m3) {
    const uint2 q = *reinterpret_cast<const uint2*>(static_cast<const uint8_t*>(p) + index);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = f8e4m3_to_float((i < 4 ? q.x : q.y) >> (i % 4 * 8) & 0xff);
    return;
  }
  const uint4 q = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(p) + index);
  const uint32_t words[4] = {q.x, q.y, q.z, q.w};
  if (dtype == DType::bf16) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[2 * i] = __uint_as_float(words[i] << 16);
      v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __half22float2(reinterpret_cast<const __half2&>(words[i]));
      v[2 * i] = pair.x;
      v[2 * i + 1] = pair.y;
    }
  }
}

KW_DEVICE void store8(void* p, DType dtype, int64_t index, const float (&v)[8]) {
  if (dtype == DType::f32) {
    float4* target = reinterpret_cast<float4*>(static_cast<float*>(p) + index);
    target[0] = make_float4(v[0], v[1], v[2], v[3]);
    target[1] = make_float4(v[4], v[5], v[6], v[7]);
    return;
  }
  if (dtype == DType::f8e4m3) {
    uint32_t halves[2] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) halves[i / 4] |= float_to_f8e4m3(v[i]) << (i % 4 * 8);
    *reinterpret_cast<uint2*>(static_cast<uint8_t*>(p) + index) = make_uint2(halves[0], halves[1]);
    return;
  }
  uint32_t words[4];
  if (dtype == DType::bf16) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
      words[i] = reinterpret_cast<const uint32_t&>(pair);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __half2 pair = __floats2half2_rn(v[2 * i], v[2 * i + 1]);
      words[i] = reinterpret_cast<const uint32_t&>(pair);
    }
  }
  *reinterpret_cast<uint4*>(static_cast<uint16_t*>(p) + index) = make_uint4(words[0], words[1], words[2], words[3]);
}

}  // namespace kw
