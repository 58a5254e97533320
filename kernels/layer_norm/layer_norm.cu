// Residual add, dropout and layer normalisation of the rows of (N, D); see reference.py.
//
// A warp for each row, which it reads once and keeps in registers: PACKS times eight neighbouring elements a lane. So
// memory is read and written once: forward x and residual, y and total; backward grad_y and total, grad_x and grad_total.
// Rows that are longer than 1,024, or do not divide into eights, have a block each and are read again from the cache.
//
// The gradients of weight and bias are sums over rows. A warp of backward keeps its rows' share in shared memory, where
// they leave the registers to more warps; then the block adds up its warps', and afterwards the blocks' are added up
// (columns.cuh).
#include "columns.cuh"
#include "dropout.cuh"

constexpr int WARPS = 8;            // of a block
constexpr int ROWS_OF_A_BLOCK = 16; // in backward: 2 a warp, so that 4,096 rows keep 132 multiprocessors busy
constexpr int STEP = WARP_SIZE * EIGHT;

// Number of the row's first element: rows says which rows of a larger array these are.
__device__ __forceinline__ uint64 first_number(const int64* rows, int64 row, int64 columns) {
    return (uint64)(rows ? rows[row] : row) * columns;
}

// ---- a warp for each row --------------------------------------------------------------------------------------------

template <class T, int PACKS>
__global__ void __launch_bounds__(WARPS* WARP_SIZE, 1)
    layer_norm_forward(const T* x, const T* __restrict__ residual, const Wide<T>* __restrict__ weight,
                       const Wide<T>* __restrict__ bias, const int64* __restrict__ rows, T* __restrict__ y, T* total,
                       Wide<T>* __restrict__ mean, Wide<T>* __restrict__ rstd, int64 count, int columns, Wide<T> eps,
                       uint32 threshold, Wide<T> keep_scale, uint64 seed, uint64 call, const uint64* base_call) {
    typedef Wide<T> A;
    const int lane = threadIdx.x % WARP_SIZE;
    const int64 row = (int64)blockIdx.x * WARPS + threadIdx.x / WARP_SIZE, begin = row * columns;
    if (row >= count) return;  // the whole warp
    const Dropout<A> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    const uint64 number = first_number(rows, row, columns);
    A values[PACKS][EIGHT];
#pragma unroll
    for (int pack = 0; pack < PACKS; ++pack) {
        const int c = pack * STEP + lane * EIGHT;
        if (c >= columns) break;
        load_eight(x + begin + c, values[pack]);
        if (total == x) continue;
        drop_eight(values[pack], dropout, number + c);
        if (residual) {
            A added[EIGHT];
            load_eight(residual + begin + c, added);
#pragma unroll
            for (int i = 0; i < EIGHT; ++i) values[pack][i] += added[i];
        }
        store_eight(total + begin + c, values[pack]);
#pragma unroll
        for (int i = 0; i < EIGHT; ++i) values[pack][i] = widen(narrow<T>(values[pack][i]));  // what backward will read
    }
    // The mean of large numbers is rounded like them; that of their differences from the row's first is not.
    const A origin = __shfl_sync(FULL_MASK, values[0][0], 0);
    A sum = 0, squares = 0;
#pragma unroll
    for (int pack = 0; pack < PACKS; ++pack)
        if (pack * STEP + lane * EIGHT < columns)
#pragma unroll
            for (int i = 0; i < EIGHT; ++i) sum += values[pack][i] - origin;
    const A offset = warp_reduce(sum, Sum()) / A(columns);
#pragma unroll
    for (int pack = 0; pack < PACKS; ++pack)
        if (pack * STEP + lane * EIGHT < columns)
#pragma unroll
            for (int i = 0; i < EIGHT; ++i) {
                values[pack][i] = values[pack][i] - origin - offset;
                squares += values[pack][i] * values[pack][i];
            }
    const A scale = A(1) / square_root(warp_reduce(squares, Sum()) / A(columns) + eps);
#pragma unroll
    for (int pack = 0; pack < PACKS; ++pack) {
        const int c = pack * STEP + lane * EIGHT;
        if (c >= columns) break;
        A stretch[EIGHT], shift[EIGHT];
        load_eight(weight + c, stretch);
        load_eight(bias + c, shift);
#pragma unroll
        for (int i = 0; i < EIGHT; ++i) values[pack][i] = values[pack][i] * scale * stretch[i] + shift[i];
        store_eight(y + begin + c, values[pack]);
    }
    if (lane == 0) {
        mean[row] = origin + offset;
        rstd[row] = scale;
    }
}

// partial (2, blocks, D): what each block's rows add to the gradients of weight and bias
template <class T, int PACKS>
__global__ void __launch_bounds__(WARPS* WARP_SIZE, 1)
    layer_norm_backward(const T* __restrict__ grad_y, const T* __restrict__ total, const Wide<T>* __restrict__ weight,
                        const Wide<T>* __restrict__ mean, const Wide<T>* __restrict__ rstd,
                        const int64* __restrict__ rows, T* grad_x, T* grad_total, Wide<T>* __restrict__ partial,
                        int64 count, int columns, uint32 threshold, Wide<T> keep_scale, uint64 seed, uint64 call,
                        const uint64* base_call) {
    typedef Wide<T> A;
    const int lane = threadIdx.x % WARP_SIZE;
    const Dropout<A> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    // of each warp, for weight and for bias; element i of a lane's pack lies beside that of the next lane
    constexpr int stride = PACKS * STEP;
    DYNAMIC_SHARED(A, shared);
    A *const own = shared + threadIdx.x / WARP_SIZE * 2 * stride + lane, *const own_bias = own + stride;
#pragma unroll
    for (int i = 0; i < PACKS * EIGHT; ++i) own[i * WARP_SIZE] = own_bias[i * WARP_SIZE] = 0;
    for (int turn = threadIdx.x / WARP_SIZE; turn < ROWS_OF_A_BLOCK; turn += WARPS) {
        const int64 row = (int64)blockIdx.x * ROWS_OF_A_BLOCK + turn, begin = row * columns;
        if (row >= count) break;  // the whole warp
        const A centre = mean[row], scale = rstd[row];
        A normalised[PACKS][EIGHT], grads[PACKS][EIGHT], sum = 0;
#pragma unroll
        for (int pack = 0; pack < PACKS; ++pack) {
            const int c = pack * STEP + lane * EIGHT;
            if (c >= columns) break;
            load_eight(total + begin + c, normalised[pack]);
            load_eight(grad_y + begin + c, grads[pack]);
#pragma unroll
            for (int i = 0; i < EIGHT; ++i) {
                normalised[pack][i] = (normalised[pack][i] - centre) * scale;
                sum += normalised[pack][i];
            }
        }
        const A offset = warp_reduce(sum, Sum()) / A(columns);  // 0 but for the rounding of `mean`
        A sum_grad = 0, sum_product = 0;
#pragma unroll
        for (int pack = 0; pack < PACKS; ++pack) {
            const int c = pack * STEP + lane * EIGHT;
            if (c >= columns) break;
            A stretch[EIGHT];
            load_eight(weight + c, stretch);
#pragma unroll
            for (int i = 0; i < EIGHT; ++i) {
                normalised[pack][i] -= offset;
                own[(pack * EIGHT + i) * WARP_SIZE] += grads[pack][i] * normalised[pack][i];
                own_bias[(pack * EIGHT + i) * WARP_SIZE] += grads[pack][i];
                grads[pack][i] = times(grads[pack][i], stretch[i]);
                sum_grad += grads[pack][i];
                sum_product += grads[pack][i] * normalised[pack][i];
            }
        }
        const A shift = warp_reduce(sum_grad, Sum()) / A(columns), slope = warp_reduce(sum_product, Sum()) / A(columns);
#pragma unroll
        for (int pack = 0; pack < PACKS; ++pack) {
            const int c = pack * STEP + lane * EIGHT;
            if (c >= columns) break;
#pragma unroll
            for (int i = 0; i < EIGHT; ++i)
                grads[pack][i] = scale * (grads[pack][i] - shift - normalised[pack][i] * slope);
            store_eight(grad_total + begin + c, grads[pack]);
            if (grad_x == grad_total) continue;
            drop_eight(grads[pack], dropout, first_number(rows, row, columns) + c);
            store_eight(grad_x + begin + c, grads[pack]);
        }
    }
    __syncthreads();  // all warps have added
    for (int place = threadIdx.x; place < stride; place += WARPS * WARP_SIZE) {
        const int c = place / STEP * STEP + place % WARP_SIZE * EIGHT + place % STEP / WARP_SIZE;
        if (c >= columns) continue;
        A sum_weight = 0, sum_bias = 0;
        for (int warp = 0; warp < WARPS; ++warp) {
            sum_weight += shared[warp * 2 * stride + place];
            sum_bias += shared[(warp * 2 + 1) * stride + place];
        }
        partial[(int64)blockIdx.x * columns + c] = sum_weight;
        partial[(int64)(gridDim.x + blockIdx.x) * columns + c] = sum_bias;
    }
}

// ---- a block for each row, of any length ----------------------------------------------------------------------------

template <class A>
__device__ A mean_of_row(A sum, int64 columns) {
    return block_reduce<WARPS * WARP_SIZE>(sum, Sum()) / A(columns);
}

// total may be x itself, where nothing is added or dropped
template <class T>
__global__ void __launch_bounds__(WARPS* WARP_SIZE)
    layer_norm_forward_long(const T* x, const T* __restrict__ residual, const Wide<T>* __restrict__ weight,
                            const Wide<T>* __restrict__ bias, const int64* __restrict__ rows, T* __restrict__ y, T* total,
                            Wide<T>* __restrict__ mean, Wide<T>* __restrict__ rstd, int64 count, int columns, Wide<T> eps,
                            uint32 threshold, Wide<T> keep_scale, uint64 seed, uint64 call, const uint64* base_call) {
    typedef Wide<T> A;
    const int64 begin = (int64)blockIdx.x * columns;
    const Dropout<A> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    if (total != x) {
        const uint64 number = first_number(rows, blockIdx.x, columns);
        for (int c = threadIdx.x; c < columns; c += blockDim.x) {
            const A kept = dropped(widen(x[begin + c]), dropout, number + c);
            total[begin + c] = narrow<T>(residual ? kept + widen(residual[begin + c]) : kept);
        }
        __syncthreads();  // the row's first element is read by all
    }
    const A origin = widen(total[begin]);
    A sum = 0, squares = 0;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) sum += widen(total[begin + c]) - origin;
    const A offset = mean_of_row(sum, columns);
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        const A centred = widen(total[begin + c]) - origin - offset;
        squares += centred * centred;
    }
    const A scale = A(1) / square_root(mean_of_row(squares, columns) + eps);
    for (int c = threadIdx.x; c < columns; c += blockDim.x)
        y[begin + c] = narrow<T>((widen(total[begin + c]) - origin - offset) * scale * weight[c] + bias[c]);
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = origin + offset;
        rstd[blockIdx.x] = scale;
    }
}

// offsets (N,): what the mean of a row's normalised elements is, 0 but for the rounding of `mean`
template <class T>
__global__ void __launch_bounds__(WARPS* WARP_SIZE)
    layer_norm_backward_long(const T* __restrict__ grad_y, const T* __restrict__ total, const Wide<T>* __restrict__ weight,
                             const Wide<T>* __restrict__ mean, const Wide<T>* __restrict__ rstd,
                             const int64* __restrict__ rows, T* grad_x, T* grad_total, Wide<T>* __restrict__ offsets,
                             int columns, uint32 threshold, Wide<T> keep_scale, uint64 seed, uint64 call,
                             const uint64* base_call) {
    typedef Wide<T> A;
    const int64 begin = (int64)blockIdx.x * columns;
    const A centre = mean[blockIdx.x], scale = rstd[blockIdx.x];
    A sum = 0, sum_grad = 0, sum_product = 0;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) sum += (widen(total[begin + c]) - centre) * scale;
    const A offset = mean_of_row(sum, columns);
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        const A grad_normalised = times(widen(grad_y[begin + c]), weight[c]);
        sum_grad += grad_normalised;
        sum_product += grad_normalised * ((widen(total[begin + c]) - centre) * scale - offset);
    }
    const A shift = mean_of_row(sum_grad, columns), slope = mean_of_row(sum_product, columns);
    const Dropout<A> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    const uint64 number = first_number(rows, blockIdx.x, columns);
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        const A normalised = (widen(total[begin + c]) - centre) * scale - offset;
        const A grad = scale * (times(widen(grad_y[begin + c]), weight[c]) - shift - normalised * slope);
        grad_total[begin + c] = narrow<T>(grad);
        if (grad_x != grad_total) grad_x[begin + c] = narrow<T>(dropped(grad, dropout, number + c));
    }
    if (threadIdx.x == 0) offsets[blockIdx.x] = offset;
}

// partial (2, chunks, D): what each chunk of rows adds to the gradients of weight and bias
template <class T>
__global__ void __launch_bounds__(COLUMNS* ROWS_AT_ONCE)
    layer_norm_parameters(const T* __restrict__ grad_y, const T* __restrict__ total, const Wide<T>* __restrict__ mean,
                          const Wide<T>* __restrict__ rstd, const Wide<T>* __restrict__ offsets,
                          Wide<T>* __restrict__ partial, int64 rows, int columns) {
    const int column = blockIdx.y * COLUMNS + threadIdx.x;
    const int64 begin = (int64)blockIdx.x * CHUNK_ROWS;
    Wide<T> sum_weight = 0, sum_bias = 0;
    for (int64 row = begin + threadIdx.y; row < begin + CHUNK_ROWS && row < rows && column < columns; row += ROWS_AT_ONCE) {
        const Wide<T> grad = widen(grad_y[row * columns + column]);
        sum_weight += grad * ((widen(total[row * columns + column]) - mean[row]) * rstd[row] - offsets[row]);
        sum_bias += grad;
    }
    sum_weight = sum_of_column(sum_weight);
    sum_bias = sum_of_column(sum_bias);
    if (threadIdx.y || column >= columns) return;
    partial[(int64)blockIdx.x * columns + column] = sum_weight;
    partial[(int64)(gridDim.x + blockIdx.x) * columns + column] = sum_bias;
}
