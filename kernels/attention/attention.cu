// Self-attention over packed sentences, plain; see reference.py.
//
// One warp for each query and head (and in backward one for each key and head, too). A lane takes every 32nd key of the
// sentence and computes its score by itself; for the sums over keys, lane c then takes column c, and the 32 weights are
// handed round by shuffles. Scores are computed again wherever they are needed, never stored: what is read is q, k and v,
// which the caches hold, and what is written is the result and two numbers a row. No two warps write the same number.
#include "dropout.cuh"

// (In __launch_bounds__ the 1 lets a thread have all the registers it wants: a guess by the compiler would spill.)
constexpr int WARPS = 4;         // of a block
constexpr int COLUMNS_HELD = 4;  // columns that a lane adds up at once; for wider heads the keys are gone through again

// The arrays are (T, D), a head's columns `width` of them; offsets (B + 1,) and sentences (T,) say which rows are one
// sentence, squares (B,) how many pairs of rows the sentences before have.
struct Layout {
    const int64 *offsets, *sentences;
    const uint64* squares;
    int64 tokens;
    int heads, width;

    __device__ __forceinline__ int64 row_start(int64 token, int head) const {
        return token * heads * width + (int64)head * width;
    }
};

// One row of one head: which keys, or queries, belong to it.
struct Place {
    int64 token, begin, length;
    int head, lane;
    uint64 first;
    bool exists;

    __device__ __forceinline__ Place(const Layout& layout) {
        const int64 task = (int64)blockIdx.x * WARPS + threadIdx.x / WARP_SIZE;
        exists = task < layout.tokens * layout.heads;
        if (!exists) return;  // the whole warp
        lane = threadIdx.x % WARP_SIZE;
        token = task / layout.heads;
        head = (int)(task % layout.heads);
        const int64 sentence = layout.sentences[token];
        begin = layout.offsets[sentence];
        length = layout.offsets[sentence + 1] - begin;
        first = layout.heads * layout.squares[sentence];
    }
    __device__ __forceinline__ uint64 number(int64 query, int64 key) const {
        return first + ((uint64)head * length + (query - begin)) * length + (key - begin);
    }
};

template <class T>
__device__ __forceinline__ Wide<T> dot(const T* __restrict__ a, const T* __restrict__ b, int width) {
    Wide<T> total = 0;
    for (int c = 0; c < width; ++c) total += widen(a[c]) * widen(b[c]);
    return total;
}

// Add weight times row to the columns that this lane holds, for the 32 rows whose weights the lanes have.
template <class T>
__device__ __forceinline__ void add_rows(Wide<T> (&sums)[COLUMNS_HELD], Wide<T> weight, const T* __restrict__ x,
                                         int64 first_row, int count, int first_column, const Layout& layout,
                                         const Place& at) {
    for (int i = 0; i < count; ++i) {
        const Wide<T> of_row = __shfl_sync(FULL_MASK, weight, i);
        const T* row = x + layout.row_start(first_row + i, at.head);
        for (int held = 0; held < COLUMNS_HELD; ++held) {
            const int column = first_column + held * WARP_SIZE + at.lane;
            if (column < layout.width) sums[held] += of_row * widen(row[column]);
        }
    }
}

template <class T>
__device__ __forceinline__ void write_row(T* __restrict__ x, const Wide<T> (&sums)[COLUMNS_HELD], int first_column,
                                          const Layout& layout, const Place& at) {
    for (int held = 0; held < COLUMNS_HELD; ++held) {
        const int column = first_column + held * WARP_SIZE + at.lane;
        if (column < layout.width) x[layout.row_start(at.token, at.head) + column] = narrow<T>(sums[held]);
    }
}

template <class T>
__global__ void __launch_bounds__(WARPS* WARP_SIZE, 1)
    attention_forward(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, T* __restrict__ context,
                      Wide<T>* __restrict__ log_sum_exp, const int64* __restrict__ offsets,
                      const int64* __restrict__ sentences, const uint64* __restrict__ squares, int64 tokens, int heads,
                      int width, Wide<T> scale, uint32 threshold, Wide<T> keep_scale, uint64 seed, uint64 call,
                      const uint64* base_call) {
    typedef Wide<T> A;
    const Layout layout = {offsets, sentences, squares, tokens, heads, width};
    const Place at(layout);
    if (!at.exists) return;
    const Dropout<A> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    const T* query = q + layout.row_start(at.token, at.head);
    A largest = -INFINITY, total = 0;
    for (int64 i = at.lane; i < at.length; i += WARP_SIZE)
        largest = larger(largest, dot(query, k + layout.row_start(at.begin + i, at.head), width) * scale);
    largest = warp_reduce(largest, Maximum());
    for (int64 i = at.lane; i < at.length; i += WARP_SIZE)
        total += exponential(dot(query, k + layout.row_start(at.begin + i, at.head), width) * scale - largest);
    total = warp_reduce(total, Sum());
    if (at.lane == 0) log_sum_exp[at.head * tokens + at.token] = largest + logarithm(total);
    for (int column = 0; column < width; column += COLUMNS_HELD * WARP_SIZE) {
        A sums[COLUMNS_HELD] = {};
        for (int64 i = 0; i < at.length; i += WARP_SIZE) {
            const int64 key = at.begin + i + at.lane;
            const int count = at.length - i < WARP_SIZE ? (int)(at.length - i) : WARP_SIZE;
            A weight = 0;
            if (at.lane < count) {
                const A score = dot(query, k + layout.row_start(key, at.head), width) * scale;
                weight = dropped(exponential(score - largest) / total, dropout, at.number(at.token, key));
            }
            add_rows(sums, weight, v, at.begin + i, count, column, layout, at);
        }
        write_row(context, sums, column, layout, at);
    }
}

// What backward knows of a pair of query and key, and of all keys of a query: `totals` of exponentials, which the last bit
// of log_sum_exp keeps from being 1; `means` of the gradients of the probabilities; and what these leave, `inners`.
template <class T>
struct Backward {
    const T *grad_context, *q, *k, *v, *log_sum_exp;
    T *totals, *means, *inners;
    T scale;
    Dropout<T> dropout;

    __device__ __forceinline__ T exponential_of(int64 query, int64 key, const Layout& layout, const Place& at) const {
        const T score = dot(q + layout.row_start(query, at.head), k + layout.row_start(key, at.head), layout.width) * scale;
        return exponential(score - log_sum_exp[at.head * layout.tokens + query]);
    }
    __device__ __forceinline__ T grad_probability(int64 query, int64 key, const Layout& layout, const Place& at) const {
        const T* grad = grad_context + layout.row_start(query, at.head);
        return dropped(dot(grad, v + layout.row_start(key, at.head), layout.width), dropout, at.number(query, key));
    }
    __device__ __forceinline__ T grad_score(T probability, int64 query, int64 key, const Layout& layout,
                                            const Place& at) const {
        const int64 row = at.head * layout.tokens + query;
        return probability * ((grad_probability(query, key, layout, at) - means[row]) - inners[row]) * scale;
    }
};

template <class T>
__global__ void __launch_bounds__(WARPS* WARP_SIZE, 1)
    attention_grad_queries(const T* __restrict__ grad_context, const T* __restrict__ q, const T* __restrict__ k,
                           const T* __restrict__ v, const T* __restrict__ log_sum_exp, T* totals, T* means, T* inners,
                           T* __restrict__ grad_q, const int64* __restrict__ offsets,
                           const int64* __restrict__ sentences, const uint64* __restrict__ squares, int64 tokens,
                           int heads, int width, T scale, uint32 threshold, T keep_scale, uint64 seed, uint64 call,
                           const uint64* base_call) {
    const Layout layout = {offsets, sentences, squares, tokens, heads, width};
    const Place at(layout);
    if (!at.exists) return;
    const Backward<T> backward = {
        grad_context, q, k, v, log_sum_exp, totals, means, inners, scale,
        dropout_of(threshold, keep_scale, seed, call, base_call)};
    const int64 row = at.head * tokens + at.token;
    T total = 0, mean = 0, inner = 0;
    for (int64 i = at.lane; i < at.length; i += WARP_SIZE) {
        const T exponential = backward.exponential_of(at.token, at.begin + i, layout, at);
        total += exponential;
        mean += exponential * backward.grad_probability(at.token, at.begin + i, layout, at);
    }
    total = warp_reduce(total, Sum());
    mean = warp_reduce(mean, Sum()) / total;
    // In two passes, like a variance: the gradients of the scores must sum to 0, whatever the mean of the values is.
    for (int64 i = at.lane; i < at.length; i += WARP_SIZE) {
        const T probability = backward.exponential_of(at.token, at.begin + i, layout, at) / total;
        inner += probability * (backward.grad_probability(at.token, at.begin + i, layout, at) - mean);
    }
    inner = warp_reduce(inner, Sum());
    if (at.lane == 0) {
        totals[row] = total;
        means[row] = mean;
        inners[row] = inner;
    }
    __syncwarp();  // lane 0 has written what all lanes read now
    for (int column = 0; column < width; column += COLUMNS_HELD * WARP_SIZE) {
        T sums[COLUMNS_HELD] = {};
        for (int64 i = 0; i < at.length; i += WARP_SIZE) {
            const int64 key = at.begin + i + at.lane;
            const int count = at.length - i < WARP_SIZE ? (int)(at.length - i) : WARP_SIZE;
            T weight = 0;
            if (at.lane < count) {
                const T probability = backward.exponential_of(at.token, key, layout, at) / total;
                weight = backward.grad_score(probability, at.token, key, layout, at);
            }
            add_rows(sums, weight, k, at.begin + i, count, column, layout, at);
        }
        write_row(grad_q, sums, column, layout, at);
    }
}

// After attention_grad_queries: here the warp's row is a key, and the lanes take the queries.
template <class T>
__global__ void __launch_bounds__(WARPS* WARP_SIZE, 1)
    attention_grad_keys(const T* __restrict__ grad_context, const T* __restrict__ q, const T* __restrict__ k,
                        const T* __restrict__ v, const T* __restrict__ log_sum_exp, T* totals, T* means, T* inners,
                        T* __restrict__ grad_k, T* __restrict__ grad_v, const int64* __restrict__ offsets,
                        const int64* __restrict__ sentences, const uint64* __restrict__ squares, int64 tokens, int heads,
                        int width, T scale, uint32 threshold, T keep_scale, uint64 seed, uint64 call,
                      const uint64* base_call) {
    const Layout layout = {offsets, sentences, squares, tokens, heads, width};
    const Place at(layout);
    if (!at.exists) return;
    const Backward<T> backward = {
        grad_context, q, k, v, log_sum_exp, totals, means, inners, scale,
        dropout_of(threshold, keep_scale, seed, call, base_call)};
    for (int column = 0; column < width; column += COLUMNS_HELD * WARP_SIZE) {
        T sums_k[COLUMNS_HELD] = {}, sums_v[COLUMNS_HELD] = {};
        for (int64 i = 0; i < at.length; i += WARP_SIZE) {
            const int64 query = at.begin + i + at.lane;
            const int count = at.length - i < WARP_SIZE ? (int)(at.length - i) : WARP_SIZE;
            T weight_k = 0, weight_v = 0;
            if (at.lane < count) {
                const int64 row = at.head * tokens + query;
                const T probability = backward.exponential_of(query, at.token, layout, at) / totals[row];
                weight_k = backward.grad_score(probability, query, at.token, layout, at);
                weight_v = dropped(probability, backward.dropout, at.number(query, at.token));
            }
            add_rows(sums_k, weight_k, q, at.begin + i, count, column, layout, at);
            add_rows(sums_v, weight_v, grad_context, at.begin + i, count, column, layout, at);
        }
        write_row(grad_k, sums_k, column, layout, at);
        write_row(grad_v, sums_v, column, layout, at);
    }
}
