// AdamW over flat buffers, and the squares of the global norm; see reference.py.
//
// A block for each line of a table of chunks (table.py): begin, end, segment, and whether its rows rest, which is not
// used here. Every element is read once and, but for the gradient, written once. Each operation is rounded by itself,
// as the reference's are: CUDA would else make one instruction of a multiplication and an addition. (In __launch_bounds__
// the 1 lets a thread have all the registers it wants; a guess by the compiler would spill.)
#include "arithmetic.cuh"

// The columns of the table of options, as in table.py.
enum Option { FACTOR, STEP_SIZE, CORRECTION, EPS, DECAYS, DECAY, RESTS, NEAR_GRADIENT, BETA1, WEIGHT1, BETA2, WEIGHT2,
              OPTIONS };

__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double times(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double plus(double a, double b) { return __dadd_rn(a, b); }

template <class T>
__global__ void __launch_bounds__(256, 1)
    adamw_update(T* __restrict__ parameters, const T* __restrict__ gradients, T* __restrict__ first_moment,
                 T* __restrict__ second_moment, const int64* __restrict__ table, const T* __restrict__ all_options) {
    const int64* line = table + 4 * (int64)blockIdx.x;
    const T* options = all_options + line[2] * OPTIONS;
    for (int64 i = line[0] + threadIdx.x; i < line[1]; i += blockDim.x) {
        const T gradient = times(options[FACTOR], gradients[i]), p = parameters[i];
        const T m = plus(times(options[BETA1], first_moment[i]), times(options[WEIGHT1], gradient));
        const T v = plus(times(options[BETA2], second_moment[i]), times(times(options[WEIGHT2], gradient), gradient));
        T change = times(options[STEP_SIZE], m / plus(square_root(v) / options[CORRECTION], options[EPS]));
        if (options[DECAYS] != T(0)) change = plus(change, times(options[DECAY], p));
        first_moment[i] = m;
        second_moment[i] = v;
        parameters[i] = p - change;
    }
}

// PyTorch's operations in PyTorch's order: both moments are products and sums in double, rounded once.
template <class T>
__global__ void __launch_bounds__(256, 1)
    adamw_update_of_torch(T* __restrict__ parameters, const T* __restrict__ gradients, T* __restrict__ first_moment,
                          T* __restrict__ second_moment, const int64* __restrict__ table,
                          const T* __restrict__ all_options) {
    const int64* line = table + 4 * (int64)blockIdx.x;
    const T* options = all_options + line[2] * OPTIONS;
    for (int64 i = line[0] + threadIdx.x; i < line[1]; i += blockDim.x) {
        const T gradient = times(options[FACTOR], gradients[i]), old = first_moment[i];
        const T p = options[DECAYS] != T(0) ? times(options[DECAY], parameters[i]) : parameters[i];
        const T target = options[NEAR_GRADIENT] != T(0) ? gradient : old;
        const T m = (T)plus(times((double)(gradient - old), (double)options[WEIGHT1]), (double)target);
        const T decayed = times(options[BETA2], second_moment[i]), weighted = times(options[WEIGHT2], gradient);
        const T v = (T)plus(times((double)weighted, (double)gradient), (double)decayed);
        const T divisor = plus(square_root(v) / options[CORRECTION], options[EPS]);
        first_moment[i] = m;
        second_moment[i] = v;
        parameters[i] = plus(p, times(options[STEP_SIZE], m) / divisor);
    }
}

// sums (chunks): the sum of the squares of `chunk` elements, in double: 1e20 squared is more than a float holds
template <class T>
__global__ void __launch_bounds__(256, 1)
    sum_of_squares(const T* __restrict__ x, double* __restrict__ sums, int64 count, int64 chunk) {
    const int64 begin = (int64)blockIdx.x * chunk;
    double total = 0;
    for (int64 i = begin + threadIdx.x; i < begin + chunk && i < count; i += 256) total += (double)x[i] * (double)x[i];
    total = block_reduce<256>(total, Sum());
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}
