// watched.cu - kernels to be traced.
#include "common.cuh"

extern "C" __global__ void phases(int* x) {
    __shared__ int row[4];
    const int i = blockDim.x * blockIdx.x + threadIdx.x;
    row[threadIdx.x] = x[i];
    WATCH("before", x[i]);
    __syncthreads();
    x[i] = row[blockDim.x - 1 - threadIdx.x];
    WATCH("after", x[i]);
}

extern "C" __global__ void kinds(const __half* half, const __nv_bfloat16* bfloat16) {
    WATCH("half", half[0]);
    WATCH("bfloat16", bfloat16[0]);
    WATCH("double", 0.1);
    WATCH("long", (1ll << 62) + 1);
    WATCH("bool", half != nullptr);
    WATCH("unsigned", ~0u);
}

extern "C" __global__ void warp_sum(int* x) {
    int sum = x[threadIdx.x];
    for (int distance = 16; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(FULL_MASK, sum, distance);
        WATCH("sum", sum);
    }
    x[threadIdx.x] = sum;
}
