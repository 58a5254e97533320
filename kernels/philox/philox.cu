// Philox4x32-10: random words by number; see reference.py, and common.cuh for the rounds.
#include "arithmetic.cuh"

// out (count,): the words of elements first, first + 1, ...; one thread for each block of four
template <class Word>
__global__ void __launch_bounds__(256)
    philox_words(Word* __restrict__ out, int64 count, uint64 first, uint64 seed, uint64 call) {
    const int64 skipped = (int64)(first & 3), blocks = (count + skipped + 3) / 4;
    const int64 stride = (int64)gridDim.x * blockDim.x;
    for (int64 block = (int64)blockIdx.x * blockDim.x + threadIdx.x; block < blocks; block += stride) {
        const uint4 four = philox_block(seed, call, (first >> 2) + block);
        const uint32 words[4] = {four.x, four.y, four.z, four.w};
        for (int word = 0; word < 4; ++word) {
            const int64 i = 4 * block + word - skipped;
            if (0 <= i && i < count) out[i] = words[word];
        }
    }
}

// out (count, 4) from counters (count, 4), in as many rounds as are asked for: for tests of the rounds themselves
template <class Word>
__global__ void __launch_bounds__(256)
    philox_counters(const Word* __restrict__ counters, Word* __restrict__ out, int64 count, uint64 key, int rounds) {
    const int64 stride = (int64)gridDim.x * blockDim.x;
    for (int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const Word* c = counters + 4 * i;
        const uint4 four = philox_rounds(make_uint4(c[0], c[1], c[2], c[3]), key, rounds);
        out[4 * i] = four.x, out[4 * i + 1] = four.y, out[4 * i + 2] = four.z, out[4 * i + 3] = four.w;
    }
}
