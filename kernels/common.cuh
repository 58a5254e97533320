// common.cuh - what all CUDA kernels of minitl share: types, conversions, packs of 16 bytes, reductions, random bits.
//
// The same text is compiled by NVRTC for a GPU and by a C++ compiler for the simulator (kernels/cudasim/), which
// defines CUDASIM and declares CUDA's words before it. No standard headers here: NVRTC has none.
#pragma once

#ifndef CUDASIM
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Shared memory whose size the launch says (`shared_memory=` in Python): DYNAMIC_SHARED(float, row). Once in a kernel.
#define DYNAMIC_SHARED(type, name)                                                                                     \
    extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[];                                              \
    type* const name = reinterpret_cast<type*>(dynamic_shared_bytes)

// WATCH("maximum", maximum) notes a value where the simulator traces the block (docs/cudasim.md). On a GPU: nothing.
#define WATCH(name, value) ((void)0)
#endif

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

typedef unsigned int uint32;
typedef unsigned long long uint64;

constexpr int WARP_SIZE = 32;
constexpr uint32 FULL_MASK = 0xffffffffu;  // all lanes of a warp

// ---- conversions ----------------------------------------------------------------------------------------------------
// Arrays hold float, half, bfloat16 or double. Arithmetic is done in a wider type: float for the first three, double
// for double. `widen` is exact; `narrow<T>` rounds once, to the nearest, ties to even.

template <class T> struct WideOf {
    typedef float type;
};
template <> struct WideOf<double> {
    typedef double type;
};
template <class T> using Wide = typename WideOf<T>::type;

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T> __device__ __forceinline__ T narrow(Wide<T> value);
template <> __device__ __forceinline__ float narrow<float>(float value) { return value; }
template <> __device__ __forceinline__ double narrow<double>(double value) { return value; }
template <> __device__ __forceinline__ __half narrow<__half>(float value) { return __float2half_rn(value); }
template <> __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
    return __float2bfloat16_rn(value);
}

// ---- packs ----------------------------------------------------------------------------------------------------------
// A thread moves at most 16 bytes in one instruction, and memory is busiest when all do. A Pack is that many
// neighbouring elements. Its address must be a multiple of its size: rows whose length is no multiple of N cannot be
// read this way.

template <class T, int N> struct alignas(sizeof(T) * N) Pack {
    T values[N];
};

template <class T> constexpr int PACK_LENGTH = 16 / sizeof(T);  // elements of a full pack

template <int N, class T> __device__ __forceinline__ Pack<T, N> load_pack(const T* address) {
    return *reinterpret_cast<const Pack<T, N>*>(address);
}
template <int N, class T> __device__ __forceinline__ void store_pack(T* address, const Pack<T, N>& pack) {
    *reinterpret_cast<Pack<T, N>*>(address) = pack;
}

// Eight neighbouring elements, widened: one full pack of 16-bit elements, two of float, four of double. Addresses must be
// multiples of 16 bytes; launchers ask `packs_fit` of Python.
constexpr int EIGHT = 8;

template <class T> __device__ __forceinline__ void load_eight(const T* address, Wide<T> (&values)[EIGHT]) {
    constexpr int length = PACK_LENGTH<T>;
#pragma unroll
    for (int i = 0; i < EIGHT; i += length) {
        const Pack<T, length> pack = load_pack<length>(address + i);
#pragma unroll
        for (int j = 0; j < length; ++j) values[i + j] = widen(pack.values[j]);
    }
}
template <class T> __device__ __forceinline__ void store_eight(T* address, const Wide<T> (&values)[EIGHT]) {
    constexpr int length = PACK_LENGTH<T>;
#pragma unroll
    for (int i = 0; i < EIGHT; i += length) {
        Pack<T, length> pack;
#pragma unroll
        for (int j = 0; j < length; ++j) pack.values[j] = narrow<T>(values[i + j]);
        store_pack(address + i, pack);
    }
}

// ---- reductions -----------------------------------------------------------------------------------------------------

struct Sum {
    template <class A> __device__ __forceinline__ A operator()(A a, A b) const { return a + b; }
    template <class A> static __device__ __forceinline__ A neutral() { return A(0); }
};
struct Maximum {  // a NaN loses: fmax skips it
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
    __device__ __forceinline__ double operator()(double a, double b) const { return fmax(a, b); }
    template <class A> static __device__ __forceinline__ A neutral() { return A(-INFINITY); }
};

// Combine one value of each lane; every lane gets the result, with the same bits. In step s each lane combines with the
// lane whose number differs in one bit: after 5 steps it has seen all 32. All lanes of the warp must call.
template <class A, class Operation>
__device__ __forceinline__ A warp_reduce(A value, Operation operation) {
#pragma unroll
    for (int distance = WARP_SIZE / 2; distance > 0; distance /= 2)
        value = operation(value, __shfl_xor_sync(FULL_MASK, value, distance));
    return value;
}

// Combine one value of each of the block's THREADS threads (a multiple of 32, x counts them); every thread gets the
// result, with the same bits. All threads of the block must call.
template <int THREADS, class A, class Operation>
__device__ __forceinline__ A block_reduce(A value, Operation operation) {
    constexpr int warps = THREADS / WARP_SIZE;
    static_assert(THREADS % WARP_SIZE == 0 && warps <= WARP_SIZE, "a block is 1 to 32 whole warps");
    __shared__ A partial[warps];
    const int lane = threadIdx.x % WARP_SIZE, warp = threadIdx.x / WARP_SIZE;
    value = warp_reduce(value, operation);
    if (warps == 1) return value;
    __syncthreads();  // somebody may still read what an earlier call has left in `partial`
    if (lane == 0) partial[warp] = value;
    __syncthreads();  // all warps have written
    value = lane < warps ? partial[lane] : Operation::template neutral<A>();
    return warp_reduce(value, operation);  // each warp does the same work: no third barrier to hand the result out
}

// ---- random bits ----------------------------------------------------------------------------------------------------
// Philox4x32-10, the same bits as kernels/philox/reference.py, which explains it: the key is the seed, the counter is
// (block, call), and element i is word i % 4 of block i / 4.

__device__ __forceinline__ uint4 philox_rounds(uint4 counter, uint64 key, int rounds) {
    uint32 key_0 = (uint32)key, key_1 = (uint32)(key >> 32);
#pragma unroll
    for (int round = 0; round < rounds; ++round) {
        const uint32 high_0 = __umulhi(0xD2511F53u, counter.x), low_0 = 0xD2511F53u * counter.x;
        const uint32 high_2 = __umulhi(0xCD9E8D57u, counter.z), low_2 = 0xCD9E8D57u * counter.z;
        counter = make_uint4(high_2 ^ counter.y ^ key_0, low_2, high_0 ^ counter.w ^ key_1, low_0);
        key_0 += 0x9E3779B9u;
        key_1 += 0xBB67AE85u;
    }
    return counter;
}

__device__ __forceinline__ uint4 philox_block(uint64 seed, uint64 call, uint64 block) {
    const uint4 counter = make_uint4((uint32)block, (uint32)(block >> 32), (uint32)call, (uint32)(call >> 32));
    return philox_rounds(counter, seed, 10);
}

// The random word of one element. Whoever needs four neighbours takes a whole block, for a quarter of the work.
__device__ __forceinline__ uint32 philox_word(uint64 seed, uint64 call, uint64 element) {
    const uint4 words = philox_block(seed, call, element / 4);
    const uint32 place = (uint32)(element % 4);
    return place == 0 ? words.x : place == 1 ? words.y : place == 2 ? words.z : words.w;
}
