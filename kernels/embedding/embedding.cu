// Rows of tables by number, and their scatter-add; see reference.py.
//
// Forward: a block for each token, its threads side by side in the rows of up to three tables. Backward: a block for each
// token again. Those whose row no earlier token has looked at add up the gradients of all that look at it, in groups of
// threads that take every GROUPS-th of them. Nothing is sorted, whose time and place in a CUDA graph would depend on the
// ids; nothing is added with atomics, whose order, and with it the last bits, would change from run to run. A table of few
// rows, such as that of the segments, has too many tokens for one block: there, sums by chunks (columns.cuh).
#include "columns.cuh"

constexpr int WIDTH = 64;   // threads side by side in a row
constexpr int GROUPS = 4;   // of them in a block
constexpr int THREADS = WIDTH * GROUPS;
constexpr int AT_ONCE = 4;     // columns of a thread
constexpr int MOST_FOUND = 1024;  // tokens that are listed before their gradients are added
constexpr int FEW_ROWS = 8;

// y[t] = sum over tables of table[index[t]], rounded once to Result; with `add`, more is added to y
template <class T, class Result>
__global__ void __launch_bounds__(WIDTH)
    embedding_forward(const T* __restrict__ table_0, const int64* __restrict__ index_0, const T* __restrict__ table_1,
                      const int64* __restrict__ index_1, const T* __restrict__ table_2, const int64* __restrict__ index_2,
                      Result* __restrict__ y, int64 columns, bool add) {
    const int64 token = blockIdx.x;
    const T* row_0 = table_0 + index_0[token] * columns;
    const T* row_1 = table_1 ? table_1 + index_1[token] * columns : nullptr;
    const T* row_2 = table_2 ? table_2 + index_2[token] * columns : nullptr;
    for (int64 c = threadIdx.x; c < columns; c += WIDTH) {
        T total = add ? widen(y[token * columns + c]) + row_0[c] : row_0[c];
        if (row_1) total += row_1[c];
        if (row_2) total += row_2[c];
        y[token * columns + c] = narrow<Result>(total);
    }
}

// Return whether a token before this one looks at the same row: the block goes back until one of its threads finds one.
__device__ bool seen_before(const int64* __restrict__ index, int64 token) {
    for (int64 end = token; end > 0; end -= THREADS) {
        const int64 other = end - 1 - threadIdx.x;
        if (__syncthreads_or(other >= 0 && index[other] == index[token])) return true;
    }
    return false;
}

// Add to a row of grad_table the gradients of `count` tokens, in an order that depends on their number alone.
template <class T>
__device__ void add_tokens(const T* __restrict__ grad_y, const int64* found, int count, Wide<T>* row, int64 columns) {
    __shared__ Wide<T> sums[GROUPS][WIDTH * AT_ONCE];
    const int side = threadIdx.x % WIDTH, group = threadIdx.x / WIDTH;
    for (int64 begin = 0; begin < columns; begin += WIDTH * AT_ONCE) {
        Wide<T> totals[AT_ONCE] = {};
        for (int i = group; i < count; i += GROUPS) {
            const T* from = grad_y + found[i] * columns + begin;
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k)
                if (begin + k * WIDTH + side < columns) totals[k] += widen(from[k * WIDTH + side]);
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) sums[group][k * WIDTH + side] = totals[k];
        __syncthreads();  // all groups have added
        for (int c = threadIdx.x; c < WIDTH * AT_ONCE && begin + c < columns; c += THREADS) {
            Wide<T> total = row[begin + c];
            for (int other = 0; other < GROUPS; ++other) total += sums[other][c];
            row[begin + c] = total;
        }
        __syncthreads();  // before the sums are overwritten
    }
}

// grad_table[index[t]] += grad_y[t]
template <class T>
__global__ void __launch_bounds__(THREADS, 1)
    embedding_backward(const T* __restrict__ grad_y, const int64* __restrict__ index, Wide<T>* __restrict__ grad_table,
                       int64 tokens, int64 columns, int64 padding_index) {
    __shared__ int64 found[MOST_FOUND];  // tokens of the same row, in order
    __shared__ int counts[THREADS / WARP_SIZE];
    const int64 first = blockIdx.x, row = index[first];
    if (row == padding_index || seen_before(index, first)) return;  // the whole block
    const int lane = threadIdx.x % WARP_SIZE, warp = threadIdx.x / WARP_SIZE;
    int listed = 0;  // the same in all threads
    for (int64 begin = first; begin < tokens; begin += THREADS) {
        const int64 token = begin + threadIdx.x;
        const bool same = token < tokens && index[token] == row;
        const uint32 votes = __ballot_sync(FULL_MASK, same);
        if (lane == 0) counts[warp] = __popc(votes);
        __syncthreads();  // all warps have counted
        int place = listed + __popc(votes & ((1u << lane) - 1u));
        for (int other = 0; other < THREADS / WARP_SIZE; ++other) {
            if (other < warp) place += counts[other];
            listed += counts[other];
        }
        if (same) found[place] = token;
        __syncthreads();  // the list is complete, and the counts have been read
        if (listed > MOST_FOUND - THREADS || begin + THREADS >= tokens) {
            add_tokens(grad_y, found, listed, grad_table + row * columns, columns);
            listed = 0;
        }
    }
}

// partial (chunks, rows * columns): what each chunk of tokens adds to each of the table's few rows
template <class T>
__global__ void __launch_bounds__(COLUMNS* ROWS_AT_ONCE)
    embedding_backward_few(const T* __restrict__ grad_y, const int64* __restrict__ index, Wide<T>* __restrict__ partial,
                           int64 tokens, int columns, int rows, int64 padding_index) {
    const int column = blockIdx.y * COLUMNS + threadIdx.x;
    const int64 begin = (int64)blockIdx.x * CHUNK_ROWS;
    Wide<T> totals[FEW_ROWS] = {};
    for (int64 token = begin + threadIdx.y; token < begin + CHUNK_ROWS && token < tokens && column < columns;
         token += ROWS_AT_ONCE) {
        const Wide<T> grad = widen(grad_y[token * columns + column]);
#pragma unroll
        for (int row = 0; row < FEW_ROWS; ++row)
            if (row == index[token] && row != padding_index) totals[row] += grad;
    }
#pragma unroll
    for (int row = 0; row < FEW_ROWS; ++row) {
        if (row >= rows) break;
        const Wide<T> total = sum_of_column(totals[row]);
        if (threadIdx.y == 0 && column < columns) partial[((int64)blockIdx.x * rows + row) * columns + column] = total;
    }
}
