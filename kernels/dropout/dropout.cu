// Dropout of the rows of a matrix; see reference.py. Forward and backward are the same.
//
// One thread for each Philox block of four words, so no word is computed twice. Element numbers of a row begin at
// rows[n] * columns (or, without rows, at `first`, and all elements are one row). A row may begin inside a block, and
// then ends in the block after columns / 4 others.
#include "dropout.cuh"

template <class T>
__global__ void __launch_bounds__(256)
    drop(const T* __restrict__ x, const int64* __restrict__ rows, T* __restrict__ y, int64 count, int64 columns, uint64 first,
         uint32 threshold, Wide<T> keep_scale, uint64 seed, uint64 call, const uint64* base_call) {
    const Dropout<Wide<T>> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    const int64 blocks = columns / 4 + 2;
    const int64 stride = (int64)gridDim.x * blockDim.x;
    for (int64 task = (int64)blockIdx.x * blockDim.x + threadIdx.x; task < count * blocks; task += stride) {
        const int64 row = task / blocks, block = task % blocks;
        const uint64 number = rows ? (uint64)rows[row] * columns : first;
        const int64 begin = 4 * block - (int64)(number & 3);  // the column of the block's first word
        if (begin >= columns) continue;
        const uint4 four = philox_block(seed, dropout.call, (number >> 2) + block);
        const uint32 words[4] = {four.x, four.y, four.z, four.w};
        for (int word = 0; word < 4; ++word) {
            const int64 column = begin + word, i = row * columns + column;
            if (0 <= column && column < columns) y[i] = narrow<T>(words[word] >= threshold ? widen(x[i]) * keep_scale : 0);
        }
    }
}
