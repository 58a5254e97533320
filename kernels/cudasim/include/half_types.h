// half_types.h - the two 16-bit floats. They are for storage: kernels widen to float, compute, and round once.
//
//   __half         1 sign, 5 exponent, 10 fraction bits: 3 decimal digits, from 6e-8 to 65504
//   __nv_bfloat16  1 sign, 8 exponent,  7 fraction bits: 2 decimal digits, the range of float
//
// No arithmetic is defined on them: `a * b` of two halves does not compile here, and would round twice on a GPU.
#pragma once

namespace cudasim {

template <class To, class From> static To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits need the same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// The fraction moves up 13 places, from 10 bits to 23. The exponent, biased by 15, is then read by a float as biased by
// 127: 2^112 too small. The multiplication puts that right, for subnormal numbers as well. It cannot reach infinity.
static float half_bits_to_float(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16;
    const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13;
    if ((bits & 0x7c00) == 0x7c00) return same_bits<float>(sign | 0x7f800000 | magnitude);  // infinity, NaN
    const float value = same_bits<float>(magnitude) * 5.192296858534828e33f;                // 2^112
    return same_bits<float>(sign | same_bits<uint32_t>(value));
}

// To the nearest, ties to even, as the hardware does.
static uint16_t float_to_half_bits(float value) {
    uint32_t bits = same_bits<uint32_t>(value);
    const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return 0x7fff;                     // NaN: CUDA has this one
    if (bits >= 0x477ff000) return uint16_t(sign | 0x7c00);   // 65520, half way to the number after 65504: infinity
    if (bits < 0x38800000) {                                  // below 2^-14: subnormal, a multiple of 2^-24
        const float shifted = same_bits<float>(bits) + 0.5f;  // floats beside 0.5 are 2^-24 apart: the sum rounds
        return uint16_t(sign | (same_bits<uint32_t>(shifted) - 0x3f000000));
    }
    const uint32_t to_even = bits >> 13 & 1;
    return uint16_t(sign | (bits + 0xfff + to_even - (uint32_t(112) << 23)) >> 13);
}

// A bfloat16 is the upper half of a float. Adding 0x7fff carries into it if the lower half is more than one half of its
// last place; one more if it is exactly one half and the upper is odd.
static uint16_t float_to_bfloat16_bits(float value) {
    const uint32_t bits = same_bits<uint32_t>(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;  // NaN, likewise
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace cudasim

struct __half {
    uint16_t bits;
    explicit operator float() const { return cudasim::half_bits_to_float(bits); }
};
struct __nv_bfloat16 {
    uint16_t bits;
    explicit operator float() const { return cudasim::same_bits<float>(uint32_t(bits) << 16); }
};
struct alignas(4) __half2 {
    __half x, y;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
using half = __half;
using half2 = __half2;

inline float __half2float(__half value) { return static_cast<float>(value); }
inline __half __float2half_rn(float value) { return {cudasim::float_to_half_bits(value)}; }
inline __half __float2half(float value) { return __float2half_rn(value); }
inline float __bfloat162float(__nv_bfloat16 value) { return static_cast<float>(value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return {cudasim::float_to_bfloat16_bits(value)}; }
inline __nv_bfloat16 __float2bfloat16(float value) { return __float2bfloat16_rn(value); }

inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline float2 __half22float2(__half2 pair) { return {__half2float(pair.x), __half2float(pair.y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 pair) { return {__bfloat162float(pair.x), __bfloat162float(pair.y)}; }

inline uint16_t __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) { return {bits}; }
