// A plain matrix product, and column sums; see reference.py.
//
// The lesson in its simplest form: a block of 16 x 16 threads computes a tile of c, and goes through K in steps of 16. In
// each step the threads bring a tile of a and one of b into shared memory, once, and every number there is used 16 times.
// On a GPU products go to cuBLASLt (cublas.py), which keeps sums in registers and uses tensor cores; this one serves the
// simulator.
#include "columns.cuh"

constexpr int TILE = 16;

// Round to bfloat16, ties to even, and back; NaN stays NaN.
__device__ __forceinline__ double rounded(double x) { return x; }
__device__ __forceinline__ float rounded(float x) {
    const uint32 bits = __float_as_uint(x);
    return x != x ? x : __uint_as_float((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

// a and b are of T, the sums of Wide<T>; c and bias of Result, which is T or Wide<T>
template <class T, class Result>
__global__ void __launch_bounds__(TILE* TILE)
    matmul(const T* __restrict__ a, const T* __restrict__ b, const Result* __restrict__ bias, Result* __restrict__ c,
           int64 rows, int64 columns, int64 steps, bool transpose_a, bool transpose_b, bool accumulate, bool bfloat16) {
    typedef Wide<T> A;
    __shared__ A a_tile[TILE][TILE + 1], b_tile[TILE][TILE + 1];  // + 1: threads of a column use different banks
    const int64 row = (int64)blockIdx.x * TILE + threadIdx.y, column = (int64)blockIdx.y * TILE + threadIdx.x;
    A total = 0;
    for (int64 begin = 0; begin < steps; begin += TILE) {
        const int64 k_of_a = begin + threadIdx.x, k_of_b = begin + threadIdx.y;
        A a_value = 0, b_value = 0;  // beyond the edges
        if (row < rows && k_of_a < steps) a_value = widen(transpose_a ? a[k_of_a * rows + row] : a[row * steps + k_of_a]);
        if (column < columns && k_of_b < steps)
            b_value = widen(transpose_b ? b[column * steps + k_of_b] : b[k_of_b * columns + column]);
        a_tile[threadIdx.y][threadIdx.x] = bfloat16 ? rounded(a_value) : a_value;
        b_tile[threadIdx.y][threadIdx.x] = bfloat16 ? rounded(b_value) : b_value;
        __syncthreads();  // both tiles are there
        A part = 0;  // of its own: numbers added one by one to a large sum are rounded like it
        for (int k = 0; k < TILE; ++k) part += a_tile[threadIdx.y][k] * b_tile[k][threadIdx.x];
        total += part;
        __syncthreads();  // before they are overwritten
    }
    if (row >= rows || column >= columns) return;
    if (bias) total += widen(bias[column]);
    if (accumulate) total += widen(c[row * columns + column]);
    c[row * columns + column] = narrow<Result>(total);
}

// partial (chunks, columns): the sums of each chunk of rows; a thread has eight neighbouring columns
template <class T>
__global__ void __launch_bounds__(COLUMNS* ROWS_AT_ONCE)
    column_sums(const T* __restrict__ x, Wide<T>* __restrict__ partial, int64 rows, int columns) {
    const int first = blockIdx.y * COLUMNS * EIGHT, column = first + threadIdx.x * EIGHT;
    const int64 begin = (int64)blockIdx.x * CHUNK_ROWS + threadIdx.y;
    Wide<T> totals[EIGHT] = {};
#pragma unroll
    for (int i = 0; i < CHUNK_ROWS; i += ROWS_AT_ONCE) {
        if (begin + i >= rows || column >= columns) break;
        Wide<T> values[EIGHT];
        load_eight(x + (begin + i) * columns + column, values);
#pragma unroll
        for (int j = 0; j < EIGHT; ++j) totals[j] += values[j];
    }
    write_sums_of_eight(totals, partial + (int64)blockIdx.x * columns + first, columns - first);
}

// The same with one column a thread, for rows of any length.
template <class T>
__global__ void __launch_bounds__(COLUMNS* ROWS_AT_ONCE)
    column_sums_single(const T* __restrict__ x, Wide<T>* __restrict__ partial, int64 rows, int columns) {
    const int column = blockIdx.y * COLUMNS + threadIdx.x;
    const int64 begin = (int64)blockIdx.x * CHUNK_ROWS;
    Wide<T> total = 0;
    for (int64 row = begin + threadIdx.y; row < begin + CHUNK_ROWS && row < rows && column < columns; row += ROWS_AT_ONCE)
        total += widen(x[row * columns + column]);
    total = sum_of_column(total);
    if (threadIdx.y == 0 && column < columns) partial[(int64)blockIdx.x * columns + column] = total;
}
