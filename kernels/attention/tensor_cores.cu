// Self-attention over packed sentences on tensor cores, for bfloat16 and half; see reference.py and, for how a matrix lies in
// the registers of a warp, ptx.cuh.
//
// Forward: a block for each 16 WARPS queries of a sentence and head, 16 of them a warp. It goes through the sentence's keys
// in tiles of as many and keeps, for each query, the largest score so far, the sum of exponentials, and the sum of weighted
// values; a new largest score rescales the others (Dao et al. 2022). The weights are never stored.
//
// Backward: a block for each sentence and head, all of which is on chip: sentences of up to 16 WARPS tokens. A warp has 16
// queries and all their keys, so the sums over keys stay inside it; then it has 16 keys and all their queries. No two warps
// add to the same number.
//
// Sums, softmax and what is saved are float; the operands of the five products are rounded to T, the weights among them.
#include "dropout.cuh"
#include "ptx.cuh"

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// The arrays are (T, D), a head's columns `width` of them, at most the WIDTH of the template; offsets (B + 1,) say which rows
// are one sentence, squares (B,) how many pairs of rows the sentences before have.
struct Sentence {
    int64 begin;   // its first row
    int length, width;
    int64 column;  // the head's first
    uint64 first;  // number of the head's first dropout element

    __device__ __forceinline__ Sentence(const int64* offsets, const uint64* squares, int heads, int head_width) {
        const int sentence = blockIdx.z, head = blockIdx.y;
        begin = offsets[sentence];
        length = (int)(offsets[sentence + 1] - begin);
        width = head_width;
        first = heads * squares[sentence] + (uint64)head * length * length;
        column = (int64)head * width;
    }
    __device__ __forceinline__ int64 place(int row, int64 row_length) const { return (begin + row) * row_length + column; }
};

// Where q, k and v lie, or their gradients: three arrays (T, D), or, where the second is null, side by side in one (T, 3 D).
template <class T>
struct Three {
    T *q, *k, *v;
    int64 row_length;

    __device__ __forceinline__ Three(T* first, T* second, T* third, int64 columns)
        : q(first), k(second ? second : first + columns), v(second ? third : first + 2 * columns),
          row_length(second ? columns : 3 * columns) {}
};

// Start to copy `rows` rows, from `first_row` of the sentence on, into shared memory; what is beyond sentence or head is 0.
template <int THREADS, int WIDTH, class T>
__device__ __forceinline__ void copy_rows(T* tile, const T* __restrict__ x, int64 x_length, const Sentence& sentence,
                                          int first_row, int rows) {
    constexpr int packs = WIDTH / EIGHT, row_length = WIDTH + EIGHT;
    for (int i = threadIdx.x; i < rows * packs; i += THREADS) {
        const int row = i / packs, column = i % packs * EIGHT;
        const bool exists = first_row + row < sentence.length && column < sentence.width;
        copy_async_16(tile + row * row_length + column, x + (exists ? sentence.place(first_row + row, x_length) + column : 0),
                      exists);
    }
}

// Fragments of 16 x 16 of a matrix that lies in shared memory by rows. As the left operand, itself or its transpose; as the
// right operand, two times 16 x 8 side by side, of the transpose of what lies there, or of itself.
template <class T>
__device__ __forceinline__ void load_left(uint32 (&a)[4], const T* tile, int row_length) {
    const int lane = threadIdx.x % WARP_SIZE;
    ldmatrix_x4<false>(a, tile + lane % 16 * row_length + lane / 16 * 8);
}
template <class T>
__device__ __forceinline__ void load_left_transposed(uint32 (&a)[4], const T* tile, int row_length) {
    const int lane = threadIdx.x % WARP_SIZE;
    ldmatrix_x4<true>(a, tile + (lane % 8 + lane / 16 * 8) * row_length + lane / 8 % 2 * 8);
}
template <class T>
__device__ __forceinline__ void load_right_transposed(uint32 (&b)[2][2], const T* tile, int row_length) {
    const int lane = threadIdx.x % WARP_SIZE;
    uint32 registers[4];
    ldmatrix_x4<false>(registers, tile + (lane % 8 + lane / 16 * 8) * row_length + lane / 8 % 2 * 8);
    b[0][0] = registers[0], b[0][1] = registers[1], b[1][0] = registers[2], b[1][1] = registers[3];
}
template <class T>
__device__ __forceinline__ void load_right(uint32 (&b)[2][2], const T* tile, int row_length) {
    const int lane = threadIdx.x % WARP_SIZE;
    uint32 registers[4];
    ldmatrix_x4<true>(registers, tile + lane % 16 * row_length + lane / 16 * 8);
    b[0][0] = registers[0], b[0][1] = registers[1], b[1][0] = registers[2], b[1][1] = registers[3];
}

// sums (16 x 8 N) += a b for 16 columns of a and 16 rows of b, which lies in shared memory
template <class T, bool TRANSPOSED, int N>
__device__ __forceinline__ void multiply_add(float (&sums)[N][4], const uint32 (&a)[4], const T* b_tile, int step, int row_length) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        uint32 b[2][2];
        if (TRANSPOSED)
            load_right_transposed(b, b_tile + n * 8 * step, row_length);
        else
            load_right(b, b_tile + n * 8 * step, row_length);
        mma_m16n8k16<T>(sums[n], a, b[0]);
        mma_m16n8k16<T>(sums[n + 1], a, b[1]);
    }
}

// A lane's part of 16 x 16 numbers, as the left operand of a product.
template <class T>
__device__ __forceinline__ void as_left(uint32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack_pair<T>(left[0], left[1]);
    a[1] = pack_pair<T>(left[2], left[3]);
    a[2] = pack_pair<T>(right[0], right[1]);
    a[3] = pack_pair<T>(right[2], right[3]);
}

// Write 16 x 16 numbers to shared memory by rows.
template <class T>
__device__ __forceinline__ void store_left(T* tile, const uint32 (&a)[4], int row_length) {
    const int lane = threadIdx.x % WARP_SIZE;
#pragma unroll
    for (int i = 0; i < 4; ++i)
        *reinterpret_cast<uint32*>(tile + (lane / 4 + i % 2 * 8) * row_length + i / 2 * 8 + lane % 4 * 2) = a[i];
}

// Which of a lane's four weights of a 16 x 8 tile (queries x keys) are kept: bit v for value v of the fragment. A block of
// random words serves four neighbouring keys, which two lanes have, in two rows each. Where rows begin at multiples of four,
// each lane computes one block, and the four lanes of a row hand the answers round.
__device__ __forceinline__ uint32 kept_of_tile(const Dropout<float>& dropout, const Sentence& sentence, int query, int key,
                                               bool aligned) {
    const int lane = threadIdx.x % WARP_SIZE, member = lane % 4;
    uint32 kept = 0;
    if (aligned) {
        const int row = query + lane / 4 + 8 * (member % 2), column = key + member / 2 * 4;
        const uint64 number = sentence.first + (uint64)row * sentence.length + column;
        const uint4 words = philox_block(dropout.seed, dropout.call, number / 4);
        const uint32 own = (words.x >= dropout.threshold) | (words.y >= dropout.threshold) << 1 |
                           (words.z >= dropout.threshold) << 2 | (words.w >= dropout.threshold) << 3;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const uint32 block = __shfl_sync(FULL_MASK, own, lane / 4 * 4 + member / 2 * 2 + r);
            kept |= (block >> member % 2 * 2 & 3u) << 2 * r;
        }
        return kept;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const uint64 number = sentence.first + (uint64)(query + lane / 4 + 8 * r) * sentence.length + key + 2 * member;
        const uint4 words = philox_block(dropout.seed, dropout.call, number / 4);
        const int place = (int)(number % 4);
        const uint32 first = place == 0 ? words.x : place == 1 ? words.y : place == 2 ? words.z : words.w;
        uint32 second = place == 0 ? words.y : place == 1 ? words.z : words.w;
        if (place == 3) second = philox_block(dropout.seed, dropout.call, number / 4 + 1).x;
        kept |= (first >= dropout.threshold) << 2 * r | (second >= dropout.threshold) << (2 * r + 1);
    }
    return kept;
}

__device__ __forceinline__ bool rows_are_aligned(const Sentence& sentence) {
    return sentence.first % 4 == 0 && sentence.length % 4 == 0;
}

// The four lanes that share a row of a fragment combine their values.
template <class Operation>
__device__ __forceinline__ float reduce_row(float value, Operation operation) {
    value = operation(value, __shfl_xor_sync(FULL_MASK, value, 1));
    return operation(value, __shfl_xor_sync(FULL_MASK, value, 2));
}

// Write 16 rows of a head from fragments.
template <class T, int N>
__device__ __forceinline__ void store_rows(T* __restrict__ x, int64 x_length, const float (&sums)[N][4],
                                           const Sentence& sentence, int first_row) {
    const int lane = threadIdx.x % WARP_SIZE;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = first_row + lane / 4 + 8 * r;
        if (row >= sentence.length) continue;
        T* const out = x + sentence.place(row, x_length);
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const int column = n * 8 + lane % 4 * 2;
            if (column < sentence.width)
                *reinterpret_cast<uint32*>(out + column) = pack_pair<T>(sums[n][2 * r], sums[n][2 * r + 1]);
        }
    }
}

template <class T, int WIDTH, int WARPS>
__global__ void __launch_bounds__(WARPS* WARP_SIZE, 1)
    attention_forward(const T* __restrict__ q_or_all, const T* __restrict__ k, const T* __restrict__ v, T* __restrict__ context,
                      float* __restrict__ log_sum_exp, const int64* __restrict__ offsets,
                      const uint64* __restrict__ squares, int64 tokens, int heads, int width, float scale,
                      uint32 threshold, float keep_scale, uint64 seed, uint64 call, const uint64* base_call) {
    constexpr int rows = 16 * WARPS, threads = WARPS * WARP_SIZE, row_length = WIDTH + EIGHT;
    const Sentence sentence(offsets, squares, heads, width);
    const int64 columns = (int64)heads * width;
    const Three<const T> in(q_or_all, k, v, columns);
    const int first_query = blockIdx.x * rows;
    if (first_query >= sentence.length) return;
    DYNAMIC_SHARED(T, shared);
    constexpr int tile = rows * row_length;
    T *const q_tile = shared, *const tiles = q_tile + tile;  // k and v, and if there are more the next k and v
    const Dropout<float> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    const bool aligned = rows_are_aligned(sentence);
    const int lane = threadIdx.x % WARP_SIZE, query = first_query + threadIdx.x / WARP_SIZE * 16;

    copy_rows<threads, WIDTH>(q_tile, in.q, in.row_length, sentence, first_query, rows);
    copy_rows<threads, WIDTH>(tiles, in.k, in.row_length, sentence, 0, rows);
    copy_rows<threads, WIDTH>(tiles + tile, in.v, in.row_length, sentence, 0, rows);
    copy_async_commit();
    uint32 q_fragments[WIDTH / 16][4];
    float sums[WIDTH / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
    for (int key = 0, turn = 0; key < sentence.length; key += rows, turn ^= 1) {
        const T *const k_tile = tiles + turn * 2 * tile, *const v_tile = k_tile + tile;
        if (key + rows < sentence.length) {  // the next tiles come while these are computed with
            T* const next = tiles + (turn ^ 1) * 2 * tile;
            copy_rows<threads, WIDTH>(next, in.k, in.row_length, sentence, key + rows, rows);
            copy_rows<threads, WIDTH>(next + tile, in.v, in.row_length, sentence, key + rows, rows);
            copy_async_commit();
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        __syncthreads();  // what all threads have copied is there
        if (key == 0)
#pragma unroll
            for (int d = 0; d < WIDTH / 16; ++d)
                load_left(q_fragments[d], q_tile + (query - first_query) * row_length + d * 16, row_length);
        float scores[rows / 8][4] = {};
#pragma unroll
        for (int d = 0; d < WIDTH / 16; ++d)
            multiply_add<T, true>(scores, q_fragments[d], k_tile + d * 16, row_length, row_length);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float most = largest[r];
#pragma unroll
            for (int n = 0; n < rows / 8; ++n)
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    float& score = scores[n][2 * r + j];
                    score = key + n * 8 + lane % 4 * 2 + j < sentence.length ? score * (scale * LOG2_E) : -INFINITY;
                    most = fmaxf(most, score);
                }
            most = reduce_row(most, Maximum());  // finite: every tile has a key of the sentence
            const float shrink = exp2f(largest[r] - most);
            largest[r] = most;
            total[r] *= shrink;
#pragma unroll
            for (int n = 0; n < rows / 8; ++n)
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    float& weight = scores[n][2 * r + j];
                    weight = exp2f(weight - most);
                    total[r] += weight;
                }
#pragma unroll
            for (int d = 0; d < WIDTH / 8; ++d) {
                sums[d][2 * r] *= shrink;
                sums[d][2 * r + 1] *= shrink;
            }
        }
        if (dropout.threshold)
#pragma unroll
            for (int n = 0; n < rows / 8; ++n) {
                const uint32 kept = kept_of_tile(dropout, sentence, query, key + n * 8, aligned);
#pragma unroll
                for (int value = 0; value < 4; ++value)
                    scores[n][value] = kept >> value & 1 ? scores[n][value] * dropout.keep_scale : 0.0f;
            }
#pragma unroll
        for (int n = 0; n < rows / 16; ++n) {
            uint32 weights[4];
            as_left<T>(weights, scores[2 * n], scores[2 * n + 1]);
            multiply_add<T, false>(sums, weights, v_tile + n * 16 * row_length, 1, row_length);
        }
        __syncthreads();  // nobody reads these tiles any more
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        total[r] = reduce_row(total[r], Sum());
        const int row = query + lane / 4 + 8 * r;
        if (row < sentence.length && lane % 4 == 0)
            log_sum_exp[blockIdx.y * tokens + sentence.begin + row] = (largest[r] + log2f(total[r])) * LN_2;
#pragma unroll
        for (int d = 0; d < WIDTH / 8; ++d) {
            sums[d][2 * r] /= total[r];
            sums[d][2 * r + 1] /= total[r];
        }
    }
    store_rows(context, columns, sums, sentence, query);
}

// The scores of a warp's 16 queries and 8 N keys become weights, exponentials; beyond the sentence they are 0.
template <int N>
__device__ __forceinline__ void scores_to_weights(float (&scores)[N][4], const Sentence& sentence, int query, int key,
                                                  const float (&of_row)[2], float scale) {
    const int lane = threadIdx.x % WARP_SIZE;
    const bool whole = query + 16 <= sentence.length && key + 8 * N <= sentence.length;
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int value = 0; value < 4; ++value) {
            const float weight = exp2f(scores[n][value] * (scale * LOG2_E) - of_row[value / 2]);
            const bool exists = key + n * 8 + lane % 4 * 2 + value % 2 < sentence.length &&
                                query + lane / 4 + value / 2 * 8 < sentence.length;
            scores[n][value] = whole || exists ? weight : 0.0f;
        }
}

// The logarithms of the sums of a warp's queries, to base 2.
__device__ __forceinline__ void load_log_sums(float (&of_row)[2], const float* __restrict__ log_sum_exp, int64 tokens,
                                              const Sentence& sentence, int query) {
    const int lane = threadIdx.x % WARP_SIZE;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = query + lane / 4 + 8 * r;
        of_row[r] = row < sentence.length ? log_sum_exp[blockIdx.y * tokens + sentence.begin + row] * LOG2_E : 0.0f;
    }
}

// What the gradients of a query's weights are on average, which is what those of its scores are relative to: the inner
// product of its context and of the context's gradient (Dao et al. 2022, appendix B.4).
template <class T, int WIDTH>
__device__ __forceinline__ void means_of_gradients(float (&means)[2], const T* grad_tile, const T* __restrict__ context,
                                                   int64 columns, const Sentence& sentence, int query) {
    const int lane = threadIdx.x % WARP_SIZE;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = lane / 4 + 8 * r;
        float total = 0.0f;
        if (query + row < sentence.length)
#pragma unroll
            for (int c = lane % 4 * 2; c < WIDTH; c += 8) {
                if (c >= sentence.width) break;
                const Pack<T, 2> of_context = load_pack<2>(context + sentence.place(query + row, columns) + c);
                const Pack<T, 2> grad = load_pack<2>(grad_tile + row * (WIDTH + EIGHT) + c);
                total += widen(of_context.values[0]) * widen(grad.values[0]);
                total += widen(of_context.values[1]) * widen(grad.values[1]);
            }
        means[r] = reduce_row(total, Sum());
    }
}

// Two blocks on a multiprocessor at once, if its shared memory has room for them: one computes while the other loads.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ % 100 == 0 && __CUDA_ARCH__ < 1100
constexpr int BLOCKS_AT_ONCE = 2;
#else
constexpr int BLOCKS_AT_ONCE = 1;
#endif
constexpr int CHUNK = 32;  // keys whose scores a warp has at once

template <class T, int WIDTH, int WARPS>
__global__ void __launch_bounds__(WARPS* WARP_SIZE, WIDTH <= 64 ? BLOCKS_AT_ONCE : 1)
    attention_backward(const T* __restrict__ grad_context, const T* __restrict__ context, const T* __restrict__ q_or_all,
                       const T* __restrict__ k, const T* __restrict__ v, const float* __restrict__ log_sum_exp, T* __restrict__ grad_q_or_all,
                       T* __restrict__ grad_k, T* __restrict__ grad_v, const int64* __restrict__ offsets,
                       const uint64* __restrict__ squares, int64 tokens, int heads, int width, float scale,
                       uint32 threshold, float keep_scale, uint64 seed, uint64 call, const uint64* base_call) {
    constexpr int rows = 16 * WARPS, threads = WARPS * WARP_SIZE, row_length = WIDTH + EIGHT, pair_length = rows + EIGHT;
    const Sentence sentence(offsets, squares, heads, width);
    const int64 columns = (int64)heads * width;
    const Three<const T> in(q_or_all, k, v, columns);
    const Three<T> out(grad_q_or_all, grad_k, grad_v, columns);
    if (sentence.length == 0) return;
    DYNAMIC_SHARED(T, shared);
    T *const q_tile = shared, *const grad_tile = q_tile + rows * row_length;
    T *const grad_scores_tile = grad_tile + rows * row_length, *const k_tile = grad_scores_tile + rows * pair_length;
    T *const v_tile = k_tile + rows * row_length, *const weights_tile = k_tile;  // after k and v have been used
    const Dropout<float> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    const bool aligned = rows_are_aligned(sentence);
    const int own = threadIdx.x / WARP_SIZE * 16;  // the warp's queries, and then its keys

    copy_rows<threads, WIDTH>(q_tile, in.q, in.row_length, sentence, 0, rows);
    copy_rows<threads, WIDTH>(k_tile, in.k, in.row_length, sentence, 0, rows);
    copy_rows<threads, WIDTH>(grad_tile, grad_context, columns, sentence, 0, rows);
    copy_rows<threads, WIDTH>(v_tile, in.v, in.row_length, sentence, 0, rows);
    copy_async_commit();
    float of_row[2];
    load_log_sums(of_row, log_sum_exp, tokens, sentence, own);
    copy_async_wait<0>();
    __syncthreads();  // all four are there

    // The scores of all keys at once would leave the registers to half as many warps.
    float mean[2];
    means_of_gradients<T, WIDTH>(mean, grad_tile + own * row_length, context, columns, sentence, own);
    uint32 weights_of_pairs[rows / 8][2];
#pragma unroll
    for (int key = 0; key < rows; key += CHUNK) {
        uint32 kept = 0;  // 4 bits for each 8 keys
        if (dropout.threshold)
#pragma unroll 1
            for (int n = 0; n < CHUNK / 8; ++n)
                kept |= kept_of_tile(dropout, sentence, own, key + n * 8, aligned) << 4 * n;
        else
            kept = ~kept;
        float weights[CHUNK / 8][4] = {}, grads[CHUNK / 8][4] = {};
#pragma unroll 1
        for (int d = 0; d < WIDTH / 16; ++d) {
            uint32 fragment[4];
            load_left(fragment, q_tile + own * row_length + d * 16, row_length);
            multiply_add<T, true>(weights, fragment, k_tile + key * row_length + d * 16, row_length, row_length);
            load_left(fragment, grad_tile + own * row_length + d * 16, row_length);
            multiply_add<T, true>(grads, fragment, v_tile + key * row_length + d * 16, row_length, row_length);
        }
        scores_to_weights(weights, sentence, own, key, of_row, scale);
#pragma unroll
        for (int n = 0; n < CHUNK / 8; ++n) {
            const int tile = key / 8 + n;
#pragma unroll
            for (int value = 0; value < 4; ++value) {
                const float factor = kept >> (4 * n + value) & 1 ? dropout.keep_scale : 0.0f, weight = weights[n][value];
                grads[n][value] = weight * (grads[n][value] * factor - mean[value / 2]) * scale;
                weights[n][value] = weight * factor;
            }
            weights_of_pairs[tile][0] = pack_pair<T>(weights[n][0], weights[n][1]);
            weights_of_pairs[tile][1] = pack_pair<T>(weights[n][2], weights[n][3]);
        }
#pragma unroll
        for (int n = 0; n < CHUNK / 16; ++n) {
            uint32 fragment[4];
            as_left<T>(fragment, grads[2 * n], grads[2 * n + 1]);
            store_left(grad_scores_tile + own * pair_length + key + n * 16, fragment, pair_length);
        }
    }
    __syncwarp();  // the warp's rows of grad_scores are there
    float sums_q[WIDTH / 8][4] = {};
#pragma unroll 2
    for (int n = 0; n < rows / 16; ++n) {
        uint32 fragment[4];
        load_left(fragment, grad_scores_tile + own * pair_length + n * 16, pair_length);
        multiply_add<T, false>(sums_q, fragment, k_tile + n * 16 * row_length, 1, row_length);
    }
    store_rows(out.q, out.row_length, sums_q, sentence, own);
    __syncthreads();  // k and v are not needed any more
#pragma unroll
    for (int n = 0; n < rows / 16; ++n) {
        const uint32 fragment[4] = {weights_of_pairs[2 * n][0], weights_of_pairs[2 * n][1], weights_of_pairs[2 * n + 1][0],
                                    weights_of_pairs[2 * n + 1][1]};
        store_left(weights_tile + own * pair_length + n * 16, fragment, pair_length);
    }
    __syncthreads();  // both matrices of pairs are complete
    float sums_k[WIDTH / 8][4] = {}, sums_v[WIDTH / 8][4] = {};
#pragma unroll 2
    for (int n = 0; n < rows / 16; ++n) {  // of the warp's keys, by 16 queries
        uint32 fragment[4];
        load_left_transposed(fragment, weights_tile + n * 16 * pair_length + own, pair_length);
        multiply_add<T, false>(sums_v, fragment, grad_tile + n * 16 * row_length, 1, row_length);
        load_left_transposed(fragment, grad_scores_tile + n * 16 * pair_length + own, pair_length);
        multiply_add<T, false>(sums_k, fragment, q_tile + n * 16 * row_length, 1, row_length);
    }
    store_rows(out.k, out.row_length, sums_k, sentence, own);
    store_rows(out.v, out.row_length, sums_v, sentence, own);
}

// ---- backward for longer sentences ------------------------------------------------------------------------------------
// Two kernels, which compute the weights again, tile by tile. First a block for each 16 WARPS queries: it goes through the
// keys once for the mean of the weights' gradients, and a second time for the gradient of the queries. Then a block for
// each 16 WARPS keys.

// The weights of a warp's 16 queries and a tile of keys, and the gradients of the weights.
template <class T, int WIDTH, int N>
__device__ __forceinline__ void weights_and_gradients(float (&weights)[N][4], float (&grads)[N][4],
                                                      const uint32 (&q_fragments)[WIDTH / 16][4],
                                                      const uint32 (&grad_fragments)[WIDTH / 16][4], const T* k_tile,
                                                      const T* v_tile, const Sentence& sentence, int query, int key,
                                                      const float (&of_row)[2], float scale,
                                                      const Dropout<float>& dropout, bool aligned) {
    constexpr int row_length = WIDTH + EIGHT;
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int value = 0; value < 4; ++value) weights[n][value] = grads[n][value] = 0.0f;
#pragma unroll
    for (int d = 0; d < WIDTH / 16; ++d) {
        multiply_add<T, true>(weights, q_fragments[d], k_tile + d * 16, row_length, row_length);
        multiply_add<T, true>(grads, grad_fragments[d], v_tile + d * 16, row_length, row_length);
    }
    scores_to_weights(weights, sentence, query, key, of_row, scale);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const uint32 kept = dropout.threshold ? kept_of_tile(dropout, sentence, query, key + n * 8, aligned) : 15u;
#pragma unroll
        for (int value = 0; value < 4; ++value)
            grads[n][value] = kept >> value & 1 ? grads[n][value] * dropout.keep_scale : 0.0f;
    }
}

// means (H, T): what the weights' gradients are on average, for the second kernel
template <class T, int WIDTH, int WARPS>
__global__ void __launch_bounds__(WARPS* WARP_SIZE, 1)
    attention_grad_queries(const T* __restrict__ grad_context, const T* __restrict__ q_or_all, const T* __restrict__ k,
                           const T* __restrict__ v, const float* __restrict__ log_sum_exp, float* __restrict__ means,
                           T* __restrict__ grad_q, int64 grad_length, const int64* __restrict__ offsets,
                           const uint64* __restrict__ squares, int64 tokens, int heads, int width, float scale, uint32 threshold, float keep_scale,
                           uint64 seed, uint64 call, const uint64* base_call) {
    constexpr int rows = 16 * WARPS, threads = WARPS * WARP_SIZE, row_length = WIDTH + EIGHT;
    const Sentence sentence(offsets, squares, heads, width);
    const int64 columns = (int64)heads * width;
    const Three<const T> in(q_or_all, k, v, columns);
    const int first_query = blockIdx.x * rows;
    if (first_query >= sentence.length) return;
    DYNAMIC_SHARED(T, shared);
    T *const k_tile = shared, *const v_tile = k_tile + rows * row_length;
    const Dropout<float> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    const bool aligned = rows_are_aligned(sentence);
    const int lane = threadIdx.x % WARP_SIZE, own = threadIdx.x / WARP_SIZE * 16, query = first_query + own;

    // the queries and their context's gradients stay in registers
    copy_rows<threads, WIDTH>(k_tile, in.q, in.row_length, sentence, first_query, rows);
    copy_rows<threads, WIDTH>(v_tile, grad_context, columns, sentence, first_query, rows);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();  // both are there
    uint32 q_fragments[WIDTH / 16][4], grad_fragments[WIDTH / 16][4];
#pragma unroll
    for (int d = 0; d < WIDTH / 16; ++d) {
        load_left(q_fragments[d], k_tile + own * row_length + d * 16, row_length);
        load_left(grad_fragments[d], v_tile + own * row_length + d * 16, row_length);
    }
    float of_row[2], sum[2] = {}, product[2] = {}, mean[2] = {}, sums[WIDTH / 8][4] = {};
    load_log_sums(of_row, log_sum_exp, tokens, sentence, query);
    for (int turn = 0; turn < 2; ++turn) {
        for (int key = 0; key < sentence.length; key += rows) {
            __syncthreads();  // nobody reads the last tiles any more
            copy_rows<threads, WIDTH>(k_tile, in.k, in.row_length, sentence, key, rows);
            copy_rows<threads, WIDTH>(v_tile, in.v, in.row_length, sentence, key, rows);
            copy_async_commit();
            copy_async_wait<0>();
            __syncthreads();  // what all threads have copied is there
            float weights[rows / 8][4], grads[rows / 8][4];
            weights_and_gradients<T, WIDTH>(weights, grads, q_fragments, grad_fragments, k_tile, v_tile, sentence, query,
                                            key, of_row, scale, dropout, aligned);
#pragma unroll
            for (int n = 0; n < rows / 8; ++n)
#pragma unroll
                for (int value = 0; value < 4; ++value) {
                    sum[value / 2] += weights[n][value];
                    product[value / 2] += weights[n][value] * grads[n][value];
                    grads[n][value] = weights[n][value] * (grads[n][value] - mean[value / 2]) * scale;
                }
            if (turn == 0) continue;
#pragma unroll
            for (int n = 0; n < rows / 16; ++n) {
                uint32 fragment[4];
                as_left<T>(fragment, grads[2 * n], grads[2 * n + 1]);
                multiply_add<T, false>(sums, fragment, k_tile + n * 16 * row_length, 1, row_length);
            }
        }
        if (turn == 1) break;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float whole = reduce_row(sum[r], Sum());
            mean[r] = reduce_row(product[r], Sum()) / (whole > 0.0f ? whole : 1.0f);
            const int row = query + lane / 4 + 8 * r;
            if (row < sentence.length && lane % 4 == 0) means[blockIdx.y * tokens + sentence.begin + row] = mean[r];
        }
    }
    store_rows(grad_q, grad_length, sums, sentence, query);
}

// Here the fragments are (keys x queries): a warp's rows are 16 keys.
template <class T, int WIDTH, int WARPS>
__global__ void __launch_bounds__(WARPS* WARP_SIZE, 1)
    attention_grad_keys(const T* __restrict__ grad_context, const T* __restrict__ q_or_all, const T* __restrict__ k,
                        const T* __restrict__ v, const float* __restrict__ log_sum_exp, const float* __restrict__ means,
                        T* __restrict__ grad_q_or_all, T* __restrict__ grad_k, T* __restrict__ grad_v, const int64* __restrict__ offsets,
                        const uint64* __restrict__ squares, int64 tokens, int heads, int width, float scale,
                        uint32 threshold, float keep_scale, uint64 seed, uint64 call, const uint64* base_call) {
    constexpr int rows = 16 * WARPS, threads = WARPS * WARP_SIZE, row_length = WIDTH + EIGHT;
    const Sentence sentence(offsets, squares, heads, width);
    const int64 columns = (int64)heads * width;
    const Three<const T> in(q_or_all, k, v, columns);
    const Three<T> out(grad_q_or_all, grad_k, grad_v, columns);
    const int first_key = blockIdx.x * rows;
    if (first_key >= sentence.length) return;
    DYNAMIC_SHARED(T, shared);
    T *const q_tile = shared, *const grad_tile = q_tile + rows * row_length;
    T *const k_tile = grad_tile + rows * row_length, *const v_tile = k_tile + rows * row_length;
    const Dropout<float> dropout = dropout_of(threshold, keep_scale, seed, call, base_call);
    const int lane = threadIdx.x % WARP_SIZE, own = threadIdx.x / WARP_SIZE * 16, first_own = first_key + own;

    copy_rows<threads, WIDTH>(k_tile, in.k, in.row_length, sentence, first_key, rows);
    copy_rows<threads, WIDTH>(v_tile, in.v, in.row_length, sentence, first_key, rows);
    copy_async_commit();
    float sums_k[WIDTH / 8][4] = {}, sums_v[WIDTH / 8][4] = {};
    for (int query = 0; query < sentence.length; query += rows) {
        __syncthreads();  // nobody reads the last tiles any more
        copy_rows<threads, WIDTH>(q_tile, in.q, in.row_length, sentence, query, rows);
        copy_rows<threads, WIDTH>(grad_tile, grad_context, columns, sentence, query, rows);
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();  // what all threads have copied is there
#pragma unroll
        for (int n = 0; n < rows / 16; ++n) {  // 16 queries
            float weights[2][4] = {}, grads[2][4] = {};
#pragma unroll
            for (int d = 0; d < WIDTH / 16; ++d) {
                const int place = n * 16 * row_length + d * 16;
                uint32 fragment[4];
                load_left(fragment, k_tile + own * row_length + d * 16, row_length);
                multiply_add<T, true>(weights, fragment, q_tile + place, row_length, row_length);
                load_left(fragment, v_tile + own * row_length + d * 16, row_length);
                multiply_add<T, true>(grads, fragment, grad_tile + place, row_length, row_length);
            }
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int value = 0; value < 4; ++value) {
                    const int key = first_own + lane / 4 + value / 2 * 8;
                    const int row = query + n * 16 + half * 8 + lane % 4 * 2 + value % 2;
                    const bool exists = key < sentence.length && row < sentence.length;
                    const int64 place = blockIdx.y * tokens + sentence.begin + (exists ? row : 0);
                    const float weight =
                        exists ? exp2f(weights[half][value] * (scale * LOG2_E) - log_sum_exp[place] * LOG2_E) : 0.0f;
                    const uint64 number = sentence.first + (uint64)row * sentence.length + key;
                    const float grad = dropped(grads[half][value], dropout, number);
                    weights[half][value] = dropped(weight, dropout, number);
                    grads[half][value] = weight * (grad - means[place]) * scale;
                }
            uint32 fragment[4];
            as_left<T>(fragment, weights[0], weights[1]);
            multiply_add<T, false>(sums_v, fragment, grad_tile + n * 16 * row_length, 1, row_length);
            as_left<T>(fragment, grads[0], grads[1]);
            multiply_add<T, false>(sums_k, fragment, q_tile + n * 16 * row_length, 1, row_length);
        }
    }
    store_rows(out.k, out.row_length, sums_k, sentence, first_own);
    store_rows(out.v, out.row_length, sums_v, sentence, first_own);
}
