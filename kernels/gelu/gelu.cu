// Bias and GELU of (N, F); the formulas are in reference.py.
//
// Forward: x is read and y written once, the bias stays in the cache. Backward: a block takes 256 columns (32 where a thread
// has one element) and 64 rows, writes grad_x, and adds up its rows' share of grad_bias.
#include "columns.cuh"

// The terms of the series for the normal distribution's tail that both forms below have; `p` is the sum of the others.
__device__ __forceinline__ float rest_of_series(float p, float s) {
    p = p * s + 4.9001913134751365e-06f;
    p = p * s + 0.0003124774912663637f;
    p = p * s - 0.00033743456079106696f;
    p = p * s - 0.0031636408243962555f;
    p = p * s + 0.003154212214408598f;
    p = p * s + 0.05176049388727721f;
    p = p * s + 0.16359395331190525f;
    return p * s + 0.2847043612646743f;
}

// The normal distribution function and its density at u. For float the series of kernels/special.py, whose relative
// error stays small far out: erfcf(u / sqrt 2) would lose 1e-5 at u = -12 by the rounding of its argument.
__device__ __forceinline__ void normal(float u, float& distribution, float& density) {
    const float exponential = expf(-0.5f * u * u);
    const float t = 1.0f / (1.0f + fabsf(u) * 0.35355339059327373f);
    const float s = t * 2.380952380952381f - 1.380952380952381f;  // from [0.16, 1] to [-1, 1]
    float p = 2.835405590499418e-06f;
    p = p * s + 3.27651534889398e-06f;
    p = p * s - 3.5433817937896115e-05f;
    const float tail = rest_of_series(p, s) * t * exponential;
    distribution = u < 0.0f ? tail : 1.0f - tail;
    density = exponential * 0.3989422804014327f;
}

__device__ __forceinline__ void normal(double u, double& distribution, double& density) {
    const double tail = 0.5 * erfc(fabs(u) * 0.7071067811865476);
    distribution = u < 0.0 ? tail : 1.0 - tail;
    density = exp(-0.5 * u * u) * 0.3989422804014327;
}

// The tanh approximation and its derivative. (1 + tanh(z / 2)) / 2 is 1 / (1 + exp(-z)); written with exp(-|z|) nothing
// overflows, and nothing cancels where the tanh is near -1. Beyond +-20 it is 0 or 1 to the last bit.
template <class A>
__device__ __forceinline__ void tanh_normal(A u, A& distribution, A& density) {
    const A steepness = A(1.5957691216057308), cubic = A(0.044715);
    const A near = u < A(-20) ? A(-20) : u > A(20) ? A(20) : u;
    const A square = cubic * near * near;
    const A t = u < A(-20) || u > A(20) ? A(0) : exponential(-magnitude(steepness * near * (A(1) + square)));
    const A r = A(1) / (A(1) + t);
    const A small = t * r;
    distribution = u < A(0) ? small : A(1) - small;
    density = small * r * steepness * (A(1) + A(3) * square);
}

// For results of 16 bits, with the approximate exponential and division of the GPU: the same series without its last two terms,
// 6e-6 of the distribution. A hundredth of the rounding of half is 5e-6, of bfloat16 4e-5.
__device__ __forceinline__ void quick_normal(float u, float& distribution, float& density) {
    const float exponential = __expf(-0.5f * u * u);
    const float t = __fdividef(1.0f, 1.0f + fabsf(u) * 0.35355339059327373f);
    const float s = t * 2.380952380952381f - 1.380952380952381f;
    float p = -3.5433817937896115e-05f;
    const float tail = rest_of_series(p, s) * t * exponential;
    distribution = u < 0.0f ? tail : 1.0f - tail;
    density = exponential * 0.3989422804014327f;
}

template <class T, bool TANH>
__device__ __forceinline__ void distribution_of(Wide<T> u, Wide<T>& distribution, Wide<T>& density) {
    if constexpr (TANH)
        tanh_normal(u, distribution, density);
    else if constexpr (sizeof(T) == 2)
        quick_normal(u, distribution, density);
    else
        normal(u, distribution, density);
}

// ---- eight neighbouring elements a thread -------------------------------------------------------------------------------

template <class T, bool TANH>
__global__ void __launch_bounds__(256)
    gelu_forward(const T* __restrict__ x, const Wide<T>* __restrict__ bias, T* __restrict__ y, int64 count, int columns) {
    const int64 begin = ((int64)blockIdx.x * blockDim.x + threadIdx.x) * EIGHT;
    if (begin >= count) return;
    Wide<T> u[EIGHT], added[EIGHT];
    load_eight(x + begin, u);
    if (bias) load_eight(bias + begin % columns, added);
#pragma unroll
    for (int i = 0; i < EIGHT; ++i) {
        if (bias) u[i] += added[i];
        Wide<T> distribution, density;
        distribution_of<T, TANH>(u[i], distribution, density);
        u[i] *= distribution;
    }
    store_eight(y + begin, u);
}

// partial_bias (chunks, columns): what each chunk of rows adds to grad_bias, or null
template <class T, bool TANH>
__global__ void __launch_bounds__(COLUMNS* ROWS_AT_ONCE, 1)
    gelu_backward(const T* __restrict__ grad_y, const T* __restrict__ x, const Wide<T>* __restrict__ bias,
                  T* __restrict__ grad_x, Wide<T>* __restrict__ partial_bias, int64 rows, int columns) {
    const int first = blockIdx.y * COLUMNS * EIGHT, column = first + threadIdx.x * EIGHT;
    const int64 begin = (int64)blockIdx.x * CHUNK_ROWS;
    Wide<T> totals[EIGHT] = {}, added[EIGHT] = {};
    if (bias && column < columns) load_eight(bias + column, added);
    for (int64 row = begin + threadIdx.y; row < begin + CHUNK_ROWS && row < rows && column < columns; row += ROWS_AT_ONCE) {
        Wide<T> u[EIGHT], grad[EIGHT];
        load_eight(x + row * columns + column, u);
        load_eight(grad_y + row * columns + column, grad);
#pragma unroll
        for (int i = 0; i < EIGHT; ++i) {
            u[i] += added[i];
            Wide<T> distribution, density;
            distribution_of<T, TANH>(u[i], distribution, density);
            grad[i] *= distribution + u[i] * density;
            totals[i] += grad[i];
        }
        store_eight(grad_x + row * columns + column, grad);
    }
    if (!partial_bias) return;
    write_sums_of_eight(totals, partial_bias + (int64)blockIdx.x * columns + first, columns - first);
}

// ---- one element a thread: rows of any length ---------------------------------------------------------------------------

template <class T, bool TANH>
__global__ void __launch_bounds__(256)
    gelu_forward_single(const T* __restrict__ x, const Wide<T>* __restrict__ bias, T* __restrict__ y, int64 count, int columns) {
    const int64 stride = (int64)gridDim.x * blockDim.x;
    for (int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const Wide<T> u = widen(x[i]) + (bias ? bias[i % columns] : 0);
        Wide<T> distribution, density;
        distribution_of<T, TANH>(u, distribution, density);
        y[i] = narrow<T>(u * distribution);
    }
}

template <class T, bool TANH>
__global__ void __launch_bounds__(COLUMNS* ROWS_AT_ONCE)
    gelu_backward_single(const T* __restrict__ grad_y, const T* __restrict__ x, const Wide<T>* __restrict__ bias,
                         T* __restrict__ grad_x, Wide<T>* __restrict__ partial_bias, int64 rows, int columns) {
    const int column = blockIdx.y * COLUMNS + threadIdx.x;
    const int64 begin = (int64)blockIdx.x * CHUNK_ROWS;
    Wide<T> total = 0;
    for (int64 row = begin + threadIdx.y; row < begin + CHUNK_ROWS && row < rows && column < columns; row += ROWS_AT_ONCE) {
        const int64 i = row * columns + column;
        const Wide<T> u = widen(x[i]) + (bias ? bias[column] : 0);
        Wide<T> distribution, density;
        distribution_of<T, TANH>(u, distribution, density);
        const Wide<T> grad_u = widen(grad_y[i]) * (distribution + u * density);
        grad_x[i] = narrow<T>(grad_u);
        total += grad_u;
    }
    total = sum_of_column(total);
    if (partial_bias && threadIdx.y == 0 && column < columns) partial_bias[(int64)blockIdx.x * columns + column] = total;
}
