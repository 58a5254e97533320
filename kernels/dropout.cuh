// Dropout inside other kernels: which elements are kept, by their numbers.
#pragma once
#include "arithmetic.cuh"

// What a kernel is told: an element whose random word is below the threshold becomes 0, the others are multiplied.
// Without dropout the threshold is 0, no word is below it, and no word is computed.
template <class A>
struct Dropout {
    uint32 threshold;
    A keep_scale;
    uint64 seed, call;
};

// What a launcher gives. `base_call`, where it is not null, is added to the call: a CUDA graph, whose arguments stay as they
// were recorded, finds the number of its first call there.
template <class A>
__device__ __forceinline__ Dropout<A> dropout_of(uint32 threshold, A keep_scale, uint64 seed, uint64 call,
                                                 const uint64* base_call) {
    return {threshold, keep_scale, seed, base_call ? call + *base_call : call};
}

// Drop eight neighbouring elements, the first of which has a number that is a multiple of 4: two blocks of random words.
template <class A>
__device__ __forceinline__ void drop_eight(A (&values)[EIGHT], const Dropout<A>& dropout, uint64 number) {
    if (dropout.threshold == 0) {
#pragma unroll
        for (int i = 0; i < EIGHT; ++i) values[i] *= dropout.keep_scale;
        return;
    }
#pragma unroll
    for (int i = 0; i < EIGHT; i += 4) {
        const uint4 four = philox_block(dropout.seed, dropout.call, number / 4 + i / 4);
        const uint32 words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int j = 0; j < 4; ++j)
            values[i + j] = words[j] >= dropout.threshold ? values[i + j] * dropout.keep_scale : A(0);
    }
}

// Return `value` after dropout. A dropped infinity or NaN is 0, too.
template <class A>
__device__ __forceinline__ A dropped(A value, const Dropout<A>& dropout, uint64 number) {
    if (dropout.threshold == 0) return value * dropout.keep_scale;
    return philox_word(dropout.seed, dropout.call, number) >= dropout.threshold ? value * dropout.keep_scale : A(0);
}
