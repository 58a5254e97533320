// mistakes.cu - kernels with one mistake each, and a few that look like one and are none.
#include "common.cuh"

// ---- races ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void reverse_without_barrier(float* x) {
    __shared__ float row[64];
    row[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = row[63 - threadIdx.x];
}

extern "C" __global__ void reverse(float* x) {
    __shared__ float row[64];
    row[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = row[63 - threadIdx.x];
}

extern "C" __global__ void last_block_wins(int* x) { x[0] = blockIdx.x; }

// ---- barriers ------------------------------------------------------------------------------------------------------

extern "C" __global__ void divergent_barrier(float* x) {
    if (threadIdx.x % 2)
        __syncthreads();
    else
        __syncthreads();
    x[threadIdx.x] = 1.0f;
}

extern "C" __global__ void deadlock(float* x) {
    if (threadIdx.x < 40)
        __syncthreads();
    else
        __syncwarp();
    x[threadIdx.x] = 1.0f;
}

extern "C" __global__ void early_exit(float* x) {
    if (threadIdx.x > 40) return;
    __syncthreads();
    x[threadIdx.x] = 2.0f;
}

extern "C" __global__ void spin_for_a_later_block(int* flag) {
    if (blockIdx.x == 0)
        while (atomicAdd(flag, 0) == 0) {}
    else
        atomicExch(flag, 1);
}

extern "C" __global__ void spin_for_a_later_thread(int* flag) {
    if (threadIdx.x == 0)
        while (atomicAdd(flag, 0) == 0) {}
    else
        atomicExch(flag, int(threadIdx.x));
}

// ---- warps ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void shuffle_after_exit(int* x) {
    if (threadIdx.x < 8) return;
    x[threadIdx.x] = __shfl_xor_sync(FULL_MASK, x[threadIdx.x], 1);
}

extern "C" __global__ void exit_before_shuffle(int* x) {
    if (threadIdx.x == 31) return;
    x[threadIdx.x] = __shfl_down_sync(FULL_MASK, x[threadIdx.x], 1);
}

extern "C" __global__ void mask_without_caller(int* x) {
    x[threadIdx.x] = __shfl_xor_sync(0xfff0u, x[threadIdx.x], 4);
}

extern "C" __global__ void masks_that_differ(int* x) {
    x[threadIdx.x] = __shfl_sync(threadIdx.x < 16 ? 0x0000ffffu : FULL_MASK, x[threadIdx.x], threadIdx.x);
}

extern "C" __global__ void source_outside_the_mask(int* x) {
    if (threadIdx.x < 16) x[threadIdx.x] = __shfl_sync(0xffffu, x[threadIdx.x], 20);
}

extern "C" __global__ void operations_that_differ(int* x) {
    if (threadIdx.x < 16)
        x[threadIdx.x] = __shfl_xor_sync(FULL_MASK, x[threadIdx.x], 1);
    else
        x[threadIdx.x] = __any_sync(FULL_MASK, 1);
}

extern "C" __global__ void half_warps(int* x) {
    const uint32 mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
    int sum = x[threadIdx.x];
    for (int distance = 8; distance > 0; distance /= 2) sum += __shfl_xor_sync(mask, sum, distance);
    x[threadIdx.x] = sum;
}

// One half of the warp does more than the other, and then they meet.
extern "C" __global__ void uneven_halves(int* x) {
    int value = x[threadIdx.x];
    if (threadIdx.x < 16)
        for (int turn = 0; turn < 3; ++turn) value = __shfl_xor_sync(0xffffu, value, 1) + 1;
    x[threadIdx.x] = __shfl_sync(FULL_MASK, value, 31 - threadIdx.x);
}

// A fast lane is at its next shuffle before a slow one has read the result of this one.
extern "C" __global__ void fast_lanes(int* x) {
    int value = __shfl_sync(FULL_MASK, x[threadIdx.x], 31 - threadIdx.x);
    if (threadIdx.x < 16) value += 100 * __shfl_xor_sync(0xffffu, value, 8);
    x[threadIdx.x] = value;
}

// A thousand meetings of each half, and as many of all.
extern "C" __global__ void many_meetings(int* x) {
    int value = x[threadIdx.x];
    for (int turn = 0; turn < 1000; ++turn) {
        value = __shfl_xor_sync(threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u, value, 1) + 1;
        value = __shfl_sync(FULL_MASK, value, (threadIdx.x + 1) % 32);
    }
    x[threadIdx.x] = value;
}

extern "C" __global__ void votes(unsigned* x) {
    if (threadIdx.x >= 40) return;  // lanes 8 to 31 of the second warp: votes do without them
    const unsigned even = __ballot_sync(FULL_MASK, threadIdx.x % 2 == 0);
    const unsigned some = __any_sync(FULL_MASK, threadIdx.x == 33);
    const unsigned all = __all_sync(FULL_MASK, threadIdx.x >= 32);
    __syncwarp();
    x[2 * threadIdx.x] = even;
    x[2 * threadIdx.x + 1] = 2 * some + all;
}

extern "C" __global__ void segments(int* x) {
    const int lane = threadIdx.x;
    x[lane] = __shfl_up_sync(FULL_MASK, lane, 1, 8);
    x[32 + lane] = __shfl_down_sync(FULL_MASK, lane, 3, 8);
    x[64 + lane] = __shfl_sync(FULL_MASK, lane, 9, 8);
    x[96 + lane] = __shfl_xor_sync(FULL_MASK, lane, 12, 8);
}

extern "C" __global__ void block_votes(int* x) {
    if (threadIdx.x >= 50) return;
    x[3 * threadIdx.x] = __syncthreads_count(threadIdx.x % 5 == 0);
    x[3 * threadIdx.x + 1] = __syncthreads_or(threadIdx.x == 49);
    x[3 * threadIdx.x + 2] = __syncthreads_and(threadIdx.x < 49);
}

// ---- memory --------------------------------------------------------------------------------------------------------

extern "C" __global__ void read_dynamic_unwritten(float* x) {
    DYNAMIC_SHARED(float, row);
    x[threadIdx.x] = row[threadIdx.x];
}

extern "C" __global__ void read_static_unwritten(float* x, int* y) {
    __shared__ float row[64];
    __shared__ int counts[64];
    x[64 * blockIdx.x + threadIdx.x] = row[threadIdx.x];
    y[64 * blockIdx.x + threadIdx.x] = counts[threadIdx.x];
    __syncthreads();
    row[threadIdx.x] = 1.0f;  // what the block before leaves must not be seen by the next
    counts[threadIdx.x] = 1;
}

extern "C" __global__ void write_behind_dynamic(float* x) {
    DYNAMIC_SHARED(float, row);
    row[threadIdx.x] = x[threadIdx.x];
}

extern "C" __global__ void outside_shared(float* x, int offset) {
    __shared__ float row[64];
    float* volatile first = row;  // the compiler forgets how long the array is
    first[threadIdx.x + offset] = 1.0f;
    __syncthreads();
    x[threadIdx.x] = row[threadIdx.x];
}

extern "C" __global__ void outside_shared_index(float* x, int offset) {
    __shared__ float row[64];
    row[threadIdx.x + offset] = 1.0f;
    __syncthreads();
    x[threadIdx.x] = row[threadIdx.x];
}

extern "C" __global__ void outside_global(float* x, int offset) { x[threadIdx.x + offset] = 1.0f; }

extern "C" __global__ void misaligned_vector(const float* x, float* y, int offset) {
    y[0] = load_pack<4>(x + offset).values[0];
}

extern "C" __global__ void deep_stack(float* x) {
    volatile float local[200000];
    for (int i = 199999; i >= 0; --i) local[i] = x[0];
    x[0] = local[0];
}

// ---- arguments -----------------------------------------------------------------------------------------------------

struct Segment {
    long long offset;
    float rate, decay;
};

extern "C" __global__ void many_kinds(const float* x, __half* y, const __nv_bfloat16* z, double d, unsigned long long n,
                                      bool flag, const Segment* segments, const void* any) {
    y[0] = narrow<__half>(x[0] + widen(z[0]) + float(d) + float(n) + (flag ? 1.0f : 0.0f) + segments[1].rate +
                          float(*static_cast<const signed char*>(any)));
}

// Each thread writes its six coordinates: x (grid z, y, x, block z, y, x, 6).
extern "C" __global__ void where_am_i(int* x) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int* own = x + 6 * (block * blockDim.x * blockDim.y * blockDim.z + thread);
    own[0] = blockIdx.x, own[1] = blockIdx.y, own[2] = blockIdx.z;
    own[3] = threadIdx.x, own[4] = threadIdx.y, own[5] = threadIdx.z;
}

extern "C" __global__ void write_both(float* x, float* y) {
    x[0] = 1.0f;
    y[1] = 2.0f;
}

extern "C" __global__ void is_null(const int* x, int* y) { y[0] = x == nullptr; }
