// pieces.cu - each function of common.cuh and ptx.cuh in a kernel of its own.
#include "ptx.cuh"

// ---- conversions: y[i] = x[i] in another type, n elements -----------------------------------------------------------

template <class From, class To> __global__ void convert(const From* x, To* y, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        y[i] = narrow<To>(widen(x[i]));
}

// ---- random words of elements first ... first + count - 1 -----------------------------------------------------------

extern "C" __global__ void random_words(uint32* words, uint64 seed, uint64 call, uint64 first, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) words[i] = philox_word(seed, call, first + i);
}

// ---- reductions: one block for each row of x (rows, columns) --------------------------------------------------------

template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS)
row_sum_and_maximum(const T* x, Wide<T>* sums, Wide<T>* maxima, int columns) {
    const T* row = x + (size_t)blockIdx.x * columns;
    Wide<T> sum = 0, maximum = -INFINITY;
    for (int column = threadIdx.x; column < columns; column += THREADS) {
        sum += widen(row[column]);
        maximum = Maximum()(maximum, widen(row[column]));
    }
    sum = block_reduce<THREADS>(sum, Sum());
    maximum = block_reduce<THREADS>(maximum, Maximum());
    // every thread has the result: the last writes
    if (threadIdx.x == THREADS - 1) {
        sums[blockIdx.x] = sum;
        maxima[blockIdx.x] = maximum;
    }
}

// wrong (rounds,): how many threads get a wrong sum, one reduction right behind the other
extern "C" __global__ void wrong_sums(float* wrong, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        const float sum = block_reduce<64>(float(round + threadIdx.x), Sum());
        if (sum != 64 * round + 2016) wrong[round] += 1;
    }
}

// ---- packs: y = x, 16 bytes at a time; n is a multiple of the pack's length -----------------------------------------

template <class T> __global__ void copy_packs(const T* x, T* y, int n) {
    constexpr int length = PACK_LENGTH<T>;
    const int i = length * (blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) store_pack(y + i, load_pack<length>(x + i));
}

// ---- ldmatrix: x holds four 8 x 8 matrices; registers (32, 4) -------------------------------------------------------

template <bool transpose> __global__ void load_matrices(const unsigned short* x, uint32* registers, int offset) {
    __shared__ __align__(16) unsigned short matrices[256 + 8];
    for (int i = threadIdx.x; i < 256; i += WARP_SIZE) matrices[i] = x[i];
    __syncwarp();
    uint32 loaded[4];
    ldmatrix_x4<transpose>(loaded, matrices + 8 * threadIdx.x + offset);
    for (int m = 0; m < 4; ++m) registers[4 * threadIdx.x + m] = loaded[m];
}

extern "C" __global__ void load_matrices_from_global(const unsigned short* x, uint32* registers) {
    uint32 loaded[4];
    ldmatrix_x4<false>(loaded, x + 8 * threadIdx.x);
    registers[threadIdx.x] = loaded[0];
}

extern "C" __global__ void half_a_warp_multiplies(float* x) {
    if (threadIdx.x >= 16) return;
    float accumulator[4] = {};
    const uint32 a[4] = {}, b[2] = {};
    mma_m16n8k16<__half>(accumulator, a, b);
    x[threadIdx.x] = accumulator[0];
}

// ---- c = a b with tensor cores: a (rows, depth), b (depth, columns), c (rows, columns) float, all multiples of 16 ---
// One warp makes one 16 x 16 tile of c. Tiles of a and b are copied to shared memory one step ahead of the arithmetic.
// Rows there are 24 long, 48 bytes, so that the eight rows of an 8 x 8 matrix lie in different banks.

template <class T, int pending>
__global__ void __launch_bounds__(WARP_SIZE) multiply(const T* a, const T* b, float* c, int depth, int columns) {
    constexpr int stride = 24;
    __shared__ __align__(16) T a_tiles[2][16 * stride], b_tiles[2][16 * stride];
    const int lane = threadIdx.x, row = 16 * blockIdx.y, column = 16 * blockIdx.x;
    const int copied_row = lane / 2, copied_part = lane % 2 * 8;  // each lane copies half a row of each tile
    auto copy = [&](int k, int buffer) {
        const bool inside = k < depth;  // beyond the end: zeros, which nobody reads
        const T* a_source = a + (size_t)(row + copied_row) * depth + k + copied_part;
        const T* b_source = b + (size_t)(k + copied_row) * columns + column + copied_part;
        copy_async_16(a_tiles[buffer] + copied_row * stride + copied_part, inside ? a_source : a, inside);
        copy_async_16(b_tiles[buffer] + copied_row * stride + copied_part, inside ? b_source : b, inside);
        copy_async_commit();
    };
    float left[4] = {}, right[4] = {};  // columns 0-7 and 8-15 of the tile
    copy(0, 0);
    for (int k = 0, buffer = 0; k < depth; k += 16, buffer ^= 1) {
        copy(k + 16, buffer ^ 1);
        copy_async_wait<pending>();  // 1: all but the copy just started
        __syncwarp();                // what other lanes have copied is there, too
        const int place = lane % 16 * stride + lane / 16 * 8;
        uint32 a_fragment[4], b_fragments[4];
        ldmatrix_x4<false>(a_fragment, a_tiles[buffer] + place);
        ldmatrix_x4<true>(b_fragments, b_tiles[buffer] + place);
        const uint32 b_left[2] = {b_fragments[0], b_fragments[1]}, b_right[2] = {b_fragments[2], b_fragments[3]};
        mma_m16n8k16<T>(left, a_fragment, b_left);
        mma_m16n8k16<T>(right, a_fragment, b_right);
        __syncwarp();  // nobody reads this buffer any more: the next turn may copy into it
    }
    for (int v = 0; v < 4; ++v) {
        float* place = c + (size_t)(row + lane / 4 + 8 * (v / 2)) * columns + column + 2 * (lane % 4) + v % 2;
        place[0] = left[v];
        place[8] = right[v];
    }
}

// ---- copies of 16 bytes with mistakes -------------------------------------------------------------------------------

extern "C" __global__ void copy_without_wait(const float* x, float* y) {
    __shared__ __align__(16) float row[128];
    copy_async_16(row + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    copy_async_commit();
    __syncwarp();
    for (int i = 0; i < 4; ++i) y[4 * threadIdx.x + i] = row[4 * threadIdx.x + i];
}

extern "C" __global__ void copy_unaligned(const float* x, float* y, int from, int to) {
    __shared__ __align__(16) float row[128 + 4];
    copy_async_16(row + 4 * threadIdx.x + to, x + 4 * threadIdx.x + from, true);
    copy_async_commit();
    copy_async_wait<0>();
    y[threadIdx.x] = row[threadIdx.x];
}

extern "C" __global__ void copy_to_global(const float* x, float* y) { copy_async_16(y, x, true); }

extern "C" __global__ void pack_pairs(const float* x, uint32* halves, uint32* bfloats) {
    halves[threadIdx.x] = pack_pair<__half>(x[2 * threadIdx.x], x[2 * threadIdx.x + 1]);
    bfloats[threadIdx.x] = pack_pair<__nv_bfloat16>(x[2 * threadIdx.x], x[2 * threadIdx.x + 1]);
}
