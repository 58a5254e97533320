// AdamW over flat buffers, and the squares of the global norm; see reference.py.
//
// A block for each line of a table of chunks (table.py): begin, end, segment, and whether the segment has a shadow. Every
// element is read once and, but for the gradient, written once, in packs of 16 bytes. Each operation is rounded by itself, as
// the reference's are: CUDA would else make one instruction of a multiplication and an addition. (In __launch_bounds__ the 1
// lets a thread have all the registers it wants; a guess by the compiler would spill.)
#include "arithmetic.cuh"

// The columns of the table of options, as in table.py.
enum Option { FACTOR, STEP_SIZE, CORRECTION, EPS, DECAYS, DECAY, RESTS, NEAR_GRADIENT, BETA1, WEIGHT1, BETA2, WEIGHT2,
              OPTIONS };

// One element's step; returns the new parameter.
template <class T>
__device__ __forceinline__ T step_of(T p, T gradient, T& first_moment, T& second_moment, const T* options) {
    const T m = plus(times(options[BETA1], first_moment), times(options[WEIGHT1], gradient));
    const T v = plus(times(options[BETA2], second_moment), times(times(options[WEIGHT2], gradient), gradient));
    T change = times(options[STEP_SIZE], m / plus(square_root(v) / options[CORRECTION], options[EPS]));
    if (options[DECAYS] != T(0)) change = plus(change, times(options[DECAY], p));
    first_moment = m;
    second_moment = v;
    return p - change;
}

// PyTorch's operations in PyTorch's order: both moments are products and sums in double, rounded once.
template <class T>
__device__ __forceinline__ T step_of_torch(T p, T gradient, T& first_moment, T& second_moment, const T* options) {
    const T old = first_moment, decayed_p = options[DECAYS] != T(0) ? times(options[DECAY], p) : p;
    const T target = options[NEAR_GRADIENT] != T(0) ? gradient : old;
    const T m = (T)plus(times((double)(gradient - old), (double)options[WEIGHT1]), (double)target);
    const T decayed = times(options[BETA2], second_moment), weighted = times(options[WEIGHT2], gradient);
    const T v = (T)plus(times((double)weighted, (double)gradient), (double)decayed);
    const T divisor = plus(square_root(v) / options[CORRECTION], options[EPS]);
    first_moment = m;
    second_moment = v;
    return plus(decayed_p, times(options[STEP_SIZE], m) / divisor);
}

// shadow (P,): the new parameters rounded to bfloat16, for the segments whose lines want it; null for none. clip: a factor
// of all gradients, on the device; NaN means that no step is to be taken; null is 1.
template <class T, bool TORCH>
__global__ void __launch_bounds__(256, 1)
    adamw_update(T* __restrict__ parameters, const T* __restrict__ gradients, T* __restrict__ first_moment,
                 T* __restrict__ second_moment, const int64* __restrict__ table, const T* __restrict__ all_options,
                 __nv_bfloat16* __restrict__ shadow, const T* __restrict__ clip) {
    constexpr int N = PACK_LENGTH<T>;
    const int64 *line = table + 4 * (int64)blockIdx.x, begin = line[0], end = line[1];
    if (line[3] == 0) shadow = nullptr;
    T options[OPTIONS];
#pragma unroll
    for (int i = 0; i < OPTIONS; ++i) options[i] = all_options[line[2] * OPTIONS + i];
    if (clip) options[FACTOR] = times(options[FACTOR], *clip);
    if (options[FACTOR] != options[FACTOR]) return;
    auto updated = [&](T p, T gradient, T& m, T& v) {
        gradient = times(options[FACTOR], gradient);
        return TORCH ? step_of_torch(p, gradient, m, v, options) : step_of(p, gradient, m, v, options);
    };

    // packs, where all buffers have them at the same places
    const int64 full = (begin + N - 1) / N * N;
    const bool aligned = (reinterpret_cast<uint64>(parameters + full) | reinterpret_cast<uint64>(gradients + full) |
                          reinterpret_cast<uint64>(first_moment + full) | reinterpret_cast<uint64>(second_moment + full)) %
                             16 ==
                         0;
    const int64 body = aligned && full < end ? full : end, body_end = body + (end - body) / N * N;
    for (int64 i = body + (int64)threadIdx.x * N; i < body_end; i += (int64)blockDim.x * N) {
        Pack<T, N> p = load_pack<N>(parameters + i), m = load_pack<N>(first_moment + i);
        Pack<T, N> v = load_pack<N>(second_moment + i);
        const Pack<T, N> g = load_pack<N>(gradients + i);
        Pack<__nv_bfloat16, N> rounded;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            p.values[j] = updated(p.values[j], g.values[j], m.values[j], v.values[j]);
            rounded.values[j] = __float2bfloat16_rn((float)p.values[j]);
        }
        store_pack(parameters + i, p);
        store_pack(first_moment + i, m);
        store_pack(second_moment + i, v);
        if (shadow) store_pack(shadow + i, rounded);
    }

    // what is before the first pack and behind the last, one by one
    const int64 before = body - begin, singles = before + (end - body_end);
    for (int64 k = threadIdx.x; k < singles; k += blockDim.x) {
        const int64 i = k < before ? begin + k : body_end + (k - before);
        const T p = updated(parameters[i], gradients[i], first_moment[i], second_moment[i]);
        parameters[i] = p;
        if (shadow) shadow[i] = __float2bfloat16_rn((float)p);
    }
}

// sums (lines of the table): the sum of the squares of each, in double: 1e20 squared is more than a float holds
template <class T>
__global__ void __launch_bounds__(256, 1)
    sum_of_squares(const T* __restrict__ x, const int64* __restrict__ table, double* __restrict__ sums) {
    const int64 begin = table[4 * (int64)blockIdx.x], end = table[4 * (int64)blockIdx.x + 1];
    double total = 0;
    constexpr int N = PACK_LENGTH<T>;
    const int64 body = reinterpret_cast<uint64>(x + begin) % 16 ? end : begin;  // where packs begin
    const int64 packed_end = body + (end - body) / N * N;
    for (int64 i = body + (int64)threadIdx.x * N; i < packed_end; i += (int64)blockDim.x * N) {
        const Pack<T, N> pack = load_pack<N>(x + i);
#pragma unroll
        for (int j = 0; j < N; ++j) total += (double)pack.values[j] * (double)pack.values[j];
    }
    for (int64 i = (body == end ? begin : packed_end) + threadIdx.x; i < end; i += blockDim.x)
        total += (double)x[i] * (double)x[i];
    total = block_reduce<256>(total, Sum());
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// One block. norm: the root of all sums together; clip: what gradients are to be multiplied by, so that their norm is at most
// `most`; NaN where the norm is not finite.
template <class T>
__global__ void __launch_bounds__(256, 1)
    clip_factor(const double* __restrict__ sums, T* __restrict__ clip, double* __restrict__ norm, int64 count,
                double most) {
    double total = 0;
    for (int64 i = threadIdx.x; i < count; i += 256) total += sums[i];
    total = sqrt(block_reduce<256>(total, Sum()));
    if (threadIdx.x) return;
    const double factor = most / (total + 1e-6);
    *norm = total;
    *clip = (T)(total - total != 0 ? total - total : factor < 1 ? factor : 1);
}
