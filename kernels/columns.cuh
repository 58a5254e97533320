// Sums over the rows of a matrix, in two steps and always in the same order.
//
// First every block adds up a chunk of rows for 32 columns; then a thread for each column adds up the chunks, first to
// last. Nothing is added with atomics, whose order changes from run to run.
#pragma once
#include "arithmetic.cuh"

constexpr int COLUMNS = 32;      // of a block: its x dimension
constexpr int ROWS_AT_ONCE = 8;  // its y dimension
constexpr int CHUNK_ROWS = 64;   // rows that a block adds up

// Return in threadIdx.y == 0 the sum of `value` over the block's threads of one column. Every thread must call it.
template <class A>
__device__ A sum_of_column(A value) {
    __shared__ A values[ROWS_AT_ONCE][COLUMNS];
    __syncthreads();  // an earlier call's numbers may still be read
    values[threadIdx.y][threadIdx.x] = value;
    __syncthreads();  // all rows have written
    A total = 0;
    if (threadIdx.y == 0)
        for (int row = 0; row < ROWS_AT_ONCE; ++row) total += values[row][threadIdx.x];
    return total;
}

// partial (chunks, columns) -> sums (columns), one thread for each column
template <class T>
__global__ void __launch_bounds__(256) sum_chunks(const T* __restrict__ partial, T* __restrict__ sums, int chunks,
                                                  int columns) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    T total = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) total += partial[(int64)chunk * columns + column];
    sums[column] = total;
}
