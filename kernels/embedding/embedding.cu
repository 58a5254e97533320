// Rows of tables by number, and their scatter-add; see reference.py.
//
// Forward: a block for each token, its threads side by side in the row. Backward: a block for each row of the table that
// was looked at, which adds up that row's gradients in the order of their tokens. (With atomics the order, and the last
// bits, would change from run to run.)
#include "arithmetic.cuh"

template <class T>
__global__ void __launch_bounds__(128)
    embedding_forward(const T* __restrict__ table, const int64* __restrict__ index, T* __restrict__ y, int64 columns,
                      bool add) {
    const int64 token = blockIdx.x;
    for (int64 c = threadIdx.x; c < columns; c += blockDim.x) {
        const T value = table[index[token] * columns + c];
        y[token * columns + c] = add ? y[token * columns + c] + value : value;
    }
}

// tokens (T,), sorted by the row of the table they looked at; group g of them is starts[g] to starts[g + 1] - 1
template <class T>
__global__ void __launch_bounds__(128)
    embedding_backward(const T* __restrict__ grad_y, const int64* __restrict__ index, const int64* __restrict__ tokens,
                       const int64* __restrict__ starts, T* __restrict__ grad_table, int64 columns, int64 padding_index) {
    const int64 begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    const int64 row = index[tokens[begin]];
    if (row == padding_index) return;
    for (int64 c = threadIdx.x; c < columns; c += blockDim.x) {
        T total = grad_table[row * columns + c];
        for (int64 i = begin; i < end; ++i) total += grad_y[tokens[i] * columns + c];
        grad_table[row * columns + c] = total;
    }
}
