// intrinsics.h - small functions that CUDA has and C++ has not.
//
// The fast functions (__expf, __logf, __fdividef) are as exact here as the plain ones; a GPU's are not. Some are
// macros, because the C library declares functions of these names for itself.
#pragma once

#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)
#define rsqrtf(x) (1.0f / sqrtf(x))
#define rsqrt(x) (1.0 / sqrt(x))

inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }

// One operation, rounded once and never fused with the next.
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }

inline float __int_as_float(int bits) { return cudasim::same_bits<float>(bits); }
inline int __float_as_int(float value) { return cudasim::same_bits<int>(value); }
inline float __uint_as_float(unsigned bits) { return cudasim::same_bits<float>(bits); }
inline unsigned __float_as_uint(float value) { return cudasim::same_bits<unsigned>(value); }
inline double __longlong_as_double(long long bits) { return cudasim::same_bits<double>(bits); }
inline long long __double_as_longlong(double value) { return cudasim::same_bits<long long>(value); }

inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned(uint64_t(x) * y >> 32); }
inline int __mulhi(int x, int y) { return int(int64_t(x) * y >> 32); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }                 // place of the lowest 1, from 1; 0: none
inline int __clz(int bits) { return bits ? __builtin_clz(unsigned(bits)) : 32; }
inline unsigned __brev(unsigned bits) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; ++i) reversed |= (bits >> i & 1) << (31 - i);
    return reversed;
}

// CUDA's min and max for integers, also of two types; floats have fminf and fmaxf, which skip NaN.
namespace cudasim {
template <class A, class B>
using CommonInteger =
    std::enable_if_t<std::is_integral<A>::value && std::is_integral<B>::value, std::common_type_t<A, B>>;
}
template <class A, class B> inline cudasim::CommonInteger<A, B> min(A a, B b) {
    using C = std::common_type_t<A, B>;
    return C(a) < C(b) ? C(a) : C(b);
}
template <class A, class B> inline cudasim::CommonInteger<A, B> max(A a, B b) {
    using C = std::common_type_t<A, B>;
    return C(a) < C(b) ? C(b) : C(a);
}
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

template <class T> inline T __ldg(const T* address) { return *address; }  // a load through the read-only cache
