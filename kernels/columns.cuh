// Sums over the rows of a matrix, in two steps and always in the same order.
//
// First every block adds up a chunk of rows; then the chunks are added up. Nothing is added with atomics, whose order
// changes from run to run.
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

// The same for eight columns of each thread: write what the block's rows add up to, for the first `columns` of the block's
// columns.
template <class A>
__device__ void write_sums_of_eight(const A (&values)[EIGHT], A* sums, int columns) {
    __shared__ A rows[ROWS_AT_ONCE][COLUMNS][EIGHT + 1];  // + 1: threads side by side use different banks
#pragma unroll
    for (int i = 0; i < EIGHT; ++i) rows[threadIdx.y][threadIdx.x][i] = values[i];
    __syncthreads();  // all rows have written
    const int thread = threadIdx.y * COLUMNS + threadIdx.x;  // now one for each column
    A total = 0;
    for (int row = 0; row < ROWS_AT_ONCE; ++row) total += rows[row][thread / EIGHT][thread % EIGHT];
    if (thread < columns) sums[thread] = total;
}

// partial (matrices, chunks, columns), for one matrix or two -> their sums (columns) in `sums` and `others`, or added to what is
// there: 8 threads for each column, then their 8 sums
template <class T>
__global__ void __launch_bounds__(COLUMNS* ROWS_AT_ONCE)
    sum_chunks(const T* __restrict__ partial, T* sums, T* others, int chunks, int columns, bool accumulate) {
    const int column = blockIdx.x * COLUMNS + threadIdx.x;
    partial += (int64)blockIdx.y * chunks * columns;
    if (blockIdx.y) sums = others;
    T total = 0;
    if (column < columns)
        for (int chunk = threadIdx.y; chunk < chunks; chunk += ROWS_AT_ONCE) total += partial[(int64)chunk * columns + column];
    total = sum_of_column(total);
    if (threadIdx.y == 0 && column < columns) sums[column] = accumulate ? sums[column] + total : total;
}
