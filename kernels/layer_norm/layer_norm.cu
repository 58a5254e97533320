// Residual add, dropout and layer normalisation of the rows of (N, D); see reference.py.
//
// A block for each row. Forward writes total and takes its mean and variance in two passes over the row, which comes
// from the cache the second and third time. Backward writes a row's gradients from three means; the gradients of weight
// and bias, sums over rows, are taken by columns afterwards.
#include "columns.cuh"
#include "dropout.cuh"

// Number of the row's first element: rows says which rows of a larger array these are.
__device__ __forceinline__ uint64 first_number(const int64* rows, int64 row, int64 columns) {
    return (uint64)(rows ? rows[row] : row) * columns;
}

template <class T, int THREADS>
__device__ T mean_of_row(T sum, int64 columns) {
    return block_reduce<THREADS>(sum, Sum()) / T(columns);
}

// total may be x itself, where nothing is added or dropped
template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS)
    layer_norm_forward(const T* x, const T* __restrict__ residual, const T* __restrict__ weight,
                       const T* __restrict__ bias, const int64* __restrict__ rows, T* __restrict__ y, T* total,
                       T* __restrict__ mean, T* __restrict__ rstd, int64 columns, T eps, uint32 threshold, T keep_scale,
                       uint64 seed, uint64 call, const uint64* base_call) {
    const int64 begin = (int64)blockIdx.x * columns;
    const Dropout<T> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    if (total != x) {
        const uint64 number = first_number(rows, blockIdx.x, columns);
        for (int64 c = threadIdx.x; c < columns; c += THREADS) {
            const T kept = dropped(x[begin + c], dropout, number + c);
            total[begin + c] = residual ? kept + residual[begin + c] : kept;
        }
        __syncthreads();  // the row's first element is read by all
    }
    // The mean of large numbers is rounded like them; that of their differences from the row's first is not.
    const T origin = total[begin];
    T sum = 0, squares = 0;
    for (int64 c = threadIdx.x; c < columns; c += THREADS) sum += total[begin + c] - origin;
    const T offset = mean_of_row<T, THREADS>(sum, columns);
    for (int64 c = threadIdx.x; c < columns; c += THREADS) {
        const T centred = total[begin + c] - origin - offset;
        squares += centred * centred;
    }
    const T scale = T(1) / square_root(mean_of_row<T, THREADS>(squares, columns) + eps);
    for (int64 c = threadIdx.x; c < columns; c += THREADS)
        y[begin + c] = (total[begin + c] - origin - offset) * scale * weight[c] + bias[c];
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = origin + offset;
        rstd[blockIdx.x] = scale;
    }
}

// offsets (N,): what the mean of a row's normalised elements is, 0 but for the rounding of `mean`
template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS)
    layer_norm_backward(const T* __restrict__ grad_y, const T* __restrict__ total, const T* __restrict__ weight,
                        const T* __restrict__ mean, const T* __restrict__ rstd, const int64* __restrict__ rows,
                        T* grad_x, T* grad_total, T* __restrict__ offsets, int64 columns, uint32 threshold, T keep_scale,
                        uint64 seed, uint64 call, const uint64* base_call) {
    const int64 begin = (int64)blockIdx.x * columns;
    const T centre = mean[blockIdx.x], scale = rstd[blockIdx.x];
    T sum = 0, sum_grad = 0, sum_product = 0;
    for (int64 c = threadIdx.x; c < columns; c += THREADS) sum += (total[begin + c] - centre) * scale;
    const T offset = mean_of_row<T, THREADS>(sum, columns);
    for (int64 c = threadIdx.x; c < columns; c += THREADS) {
        const T grad_normalised = grad_y[begin + c] * weight[c];
        sum_grad += grad_normalised;
        sum_product += grad_normalised * ((total[begin + c] - centre) * scale - offset);
    }
    const T shift = mean_of_row<T, THREADS>(sum_grad, columns), stretch = mean_of_row<T, THREADS>(sum_product, columns);
    const Dropout<T> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    const uint64 number = first_number(rows, blockIdx.x, columns);
    for (int64 c = threadIdx.x; c < columns; c += THREADS) {
        const T normalised = (total[begin + c] - centre) * scale - offset;
        const T grad = scale * (grad_y[begin + c] * weight[c] - shift - normalised * stretch);
        grad_total[begin + c] = grad;
        if (grad_x != grad_total) grad_x[begin + c] = dropped(grad, dropout, number + c);
    }
    if (threadIdx.x == 0) offsets[blockIdx.x] = offset;
}

// partial_weight, partial_bias (chunks, D): what each chunk of rows adds to the gradients of weight and bias
template <class T>
__global__ void __launch_bounds__(COLUMNS* ROWS_AT_ONCE)
    layer_norm_parameters(const T* __restrict__ grad_y, const T* __restrict__ total, const T* __restrict__ mean,
                          const T* __restrict__ rstd, const T* __restrict__ offsets, T* __restrict__ partial_weight,
                          T* __restrict__ partial_bias, int64 rows, int columns) {
    const int column = blockIdx.y * COLUMNS + threadIdx.x;
    const int64 begin = (int64)blockIdx.x * CHUNK_ROWS;
    T sum_weight = 0, sum_bias = 0;
    for (int64 row = begin + threadIdx.y; row < begin + CHUNK_ROWS && row < rows && column < columns; row += ROWS_AT_ONCE) {
        const T grad = grad_y[row * columns + column];
        sum_weight += grad * ((total[row * columns + column] - mean[row]) * rstd[row] - offsets[row]);
        sum_bias += grad;
    }
    sum_weight = sum_of_column(sum_weight);
    sum_bias = sum_of_column(sum_bias);
    if (threadIdx.y || column >= columns) return;
    partial_weight[(int64)blockIdx.x * columns + column] = sum_weight;
    partial_bias[(int64)blockIdx.x * columns + column] = sum_bias;
}
