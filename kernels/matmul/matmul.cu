// A plain matrix product, and column sums; see reference.py.
//
// The lesson in its simplest form: a block of 16 x 16 threads computes a tile of c, and goes through K in steps of 16. In
// each step the threads bring a tile of a and one of b into shared memory, once, and every number there is used 16 times.
// On a GPU products go to cuBLAS, which keeps sums in registers and uses tensor cores; this one serves the simulator.
#include "columns.cuh"

constexpr int TILE = 16;

// Round to bfloat16, ties to even, and back; NaN stays NaN.
__device__ __forceinline__ double rounded(double x) { return x; }
__device__ __forceinline__ float rounded(float x) {
    const uint32 bits = __float_as_uint(x);
    return x != x ? x : __uint_as_float((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

template <class T>
__global__ void __launch_bounds__(TILE* TILE)
    matmul(const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, T* __restrict__ c, int64 rows,
           int64 columns, int64 steps, bool transpose_a, bool transpose_b, bool accumulate, bool bfloat16) {
    __shared__ T a_tile[TILE][TILE + 1], b_tile[TILE][TILE + 1];  // + 1: threads of a column use different banks
    const int64 row = (int64)blockIdx.x * TILE + threadIdx.y, column = (int64)blockIdx.y * TILE + threadIdx.x;
    T total = 0;
    for (int64 begin = 0; begin < steps; begin += TILE) {
        const int64 k_of_a = begin + threadIdx.x, k_of_b = begin + threadIdx.y;
        T a_value = 0, b_value = 0;  // beyond the edges
        if (row < rows && k_of_a < steps) a_value = transpose_a ? a[k_of_a * rows + row] : a[row * steps + k_of_a];
        if (column < columns && k_of_b < steps)
            b_value = transpose_b ? b[column * steps + k_of_b] : b[k_of_b * columns + column];
        a_tile[threadIdx.y][threadIdx.x] = bfloat16 ? rounded(a_value) : a_value;
        b_tile[threadIdx.y][threadIdx.x] = bfloat16 ? rounded(b_value) : b_value;
        __syncthreads();  // both tiles are there
        T part = 0;  // of its own: numbers added one by one to a large sum are rounded like it
        for (int k = 0; k < TILE; ++k) part += a_tile[threadIdx.y][k] * b_tile[k][threadIdx.x];
        total += part;
        __syncthreads();  // before they are overwritten
    }
    if (row >= rows || column >= columns) return;
    if (bias) total += bias[column];
    c[row * columns + column] = accumulate ? c[row * columns + column] + total : total;
}

// partial (chunks, columns): the sums of each chunk of rows
template <class T>
__global__ void __launch_bounds__(COLUMNS* ROWS_AT_ONCE)
    column_sums(const T* __restrict__ x, T* __restrict__ partial, int64 rows, int columns) {
    const int column = blockIdx.y * COLUMNS + threadIdx.x;
    const int64 begin = (int64)blockIdx.x * CHUNK_ROWS;
    T total = 0;
    for (int64 row = begin + threadIdx.y; row < begin + CHUNK_ROWS && row < rows && column < columns; row += ROWS_AT_ONCE)
        total += x[row * columns + column];
    total = sum_of_column(total);
    if (threadIdx.y == 0 && column < columns) partial[(int64)blockIdx.x * columns + column] = total;
}
