// Scale, mask, softmax and dropout of the rows of (N, C); see reference.py.
//
// A block for each row. Its threads go through the row three times: the largest score, the sum of exponentials, the
// results. The second and third time it comes from the cache, so memory is read once and written once or twice.
#include "dropout.cuh"

template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS)
    softmax_forward(const T* __restrict__ x, const bool* __restrict__ mask, T* __restrict__ y,
                    T* __restrict__ probabilities, int64 columns, Wide<T> scale, uint64 first,
                     uint32 threshold, Wide<T> keep_scale, uint64 seed, uint64 call, const uint64* base_call) {
    typedef Wide<T> A;
    const int64 row = (int64)blockIdx.x * columns;
    A largest = -INFINITY, total = 0;
    for (int64 c = threadIdx.x; c < columns; c += THREADS)
        if (!mask || mask[row + c]) largest = larger(largest, widen(x[row + c]) * scale);
    largest = block_reduce<THREADS>(largest, Maximum());
    for (int64 c = threadIdx.x; c < columns; c += THREADS)
        if (!mask || mask[row + c]) total += exponential(widen(x[row + c]) * scale - largest);
    total = block_reduce<THREADS>(total, Sum());
    const Dropout<A> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    for (int64 c = threadIdx.x; c < columns; c += THREADS) {
        // a row that keeps nothing gives zeros; its total is 0, and is not divided by
        const A p = !mask || mask[row + c] ? exponential(widen(x[row + c]) * scale - largest) / total : A(0);
        probabilities[row + c] = narrow<T>(p);
        if (y != probabilities) y[row + c] = narrow<T>(dropped(p, dropout, first + row + c));
    }
}

template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS)
    softmax_backward(const T* __restrict__ grad_y, const T* __restrict__ probabilities, T* __restrict__ grad_x,
                     int64 columns, Wide<T> scale, uint64 first,
                     uint32 threshold, Wide<T> keep_scale, uint64 seed, uint64 call, const uint64* base_call) {
    typedef Wide<T> A;
    const int64 row = (int64)blockIdx.x * columns;
    const Dropout<A> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    A inner = 0;
    for (int64 c = threadIdx.x; c < columns; c += THREADS) {
        const A p = widen(probabilities[row + c]);
        if (p != A(0)) inner += dropped(widen(grad_y[row + c]), dropout, first + row + c) * p;  // 0 * NaN would be NaN
    }
    inner = block_reduce<THREADS>(inner, Sum());
    for (int64 c = threadIdx.x; c < columns; c += THREADS) {
        const A p = widen(probabilities[row + c]);
        const A grad_p = p != A(0) ? dropped(widen(grad_y[row + c]), dropout, first + row + c) : A(0);
        grad_x[row + c] = narrow<T>(p * (grad_p - inner) * scale);
    }
}
