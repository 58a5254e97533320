// ptx.cuh - tensor cores and asynchronous copies: the only file with inline PTX. Needs sm_80.
//
// Each wrapper stands beside its twin for the simulator, which follows the layouts of the PTX ISA manual ("Matrix
// Fragments for mma.m16n8k16", "ldmatrix", "cp.async"). The twins report what the hardware would do something undefined
// with.
//
// A matrix that a warp multiplies is spread over the registers of its 32 lanes: its *fragment*. With group = lane / 4
// and member = lane % 4, a lane holds of
//   a (16 x 16)   register r: row group + 8 (r % 2), columns 2 member + 8 (r / 2) and the one after
//   b (16 x 8)    register r: rows 2 member + 8 r and the one after, column group
//   accumulator   value v: row group + 8 (v / 2), column 2 member + v % 2      (16 x 8, float)
#pragma once
#include "common.cuh"

// Two 16-bit values in one register, the first in the lower half, as matrix fragments hold them.
template <class T> __device__ __forceinline__ uint32 pack_pair(float first, float second) {
    const Pack<T, 2> pair = {{narrow<T>(first), narrow<T>(second)}};
    return *reinterpret_cast<const uint32*>(&pair);
}

#ifdef CUDASIM

namespace simulated {

template <class T> inline float half_of_register(uint32 bits, int which) {
    return widen(cudasim::same_bits<T>(static_cast<uint16_t>(bits >> 16 * which)));
}

struct Fragments {  // what a lane brings to a matrix product, widened
    float a[8], b[4];
};

}  // namespace simulated

// accumulator += a b, for a (16 x 16) of T, b (16 x 8) of T, all lanes of the warp together. T is half or bfloat16.
template <class T>
inline void mma_m16n8k16(float (&accumulator)[4], const uint32 (&a)[4], const uint32 (&b)[2], CUDASIM_HERE) {
    simulated::Fragments own, all[WARP_SIZE];
    for (int i = 0; i < 8; ++i) own.a[i] = simulated::half_of_register<T>(a[i / 2], i % 2);
    for (int i = 0; i < 4; ++i) own.b[i] = simulated::half_of_register<T>(b[i / 2], i % 2);
    cudasim::gather(all, own, {file, line, "mma_m16n8k16"});
    const int group = cudasim::lane() / 4, member = cudasim::lane() % 4;
    for (int v = 0; v < 4; ++v) {
        const int row = group + 8 * (v / 2), column = 2 * member + v % 2;
        for (int k = 0; k < 16; ++k) {
            const auto& left = all[4 * (row % 8) + k % 8 / 2];  // the lane that holds a[row, k]
            const auto& right = all[4 * column + k % 8 / 2];    // the lane that holds b[k, column]
            accumulator[v] += left.a[4 * (k / 8) + 2 * (row / 8) + k % 2] * right.b[2 * (k / 8) + k % 2];
        }
    }
}

// Load four 8 x 8 matrices of 16-bit values from shared memory. Lane l brings the address of row l % 8 of matrix l / 8
// (16 bytes, aligned to 16). Register m of a lane gets two neighbours of matrix m: row lane / 4, columns 2 (lane % 4)
// and the one after; with `transpose`, those of the transposed matrix.
template <bool transpose> inline void ldmatrix_x4(uint32 (&registers)[4], const void* row, CUDASIM_HERE) {
    const cudasim::Site site = {file, line, "ldmatrix_x4"};
    if (reinterpret_cast<uintptr_t>(row) % 16) CUDASIM_FAIL(site, "the address of the row is not aligned to 16 bytes");
    if (!cudasim::is_shared(row)) CUDASIM_FAIL(site, "the row is not in shared memory");
    const char *own = static_cast<const char*>(row), *rows[WARP_SIZE];
    cudasim::gather(rows, own, site);
    for (int matrix = 0; matrix < 4; ++matrix) {
        uint16_t pair[2];
        for (int i = 0; i < 2; ++i) {
            const int down = cudasim::lane() / 4, across = 2 * (cudasim::lane() % 4) + i;
            const char* source = rows[8 * matrix + (transpose ? across : down)] + 2 * (transpose ? down : across);
            memcpy(&pair[i], source, 2);
        }
        registers[matrix] = pair[0] | uint32(pair[1]) << 16;
    }
}

// Start to copy 16 bytes from global to shared memory, or 16 zeros where `valid` is false (`source` is then not read).
inline void copy_async_16(void* destination, const void* source, bool valid, CUDASIM_HERE) {
    cudasim::copy_later(destination, valid ? source : nullptr, 16, {file, line, "copy_async_16"});
}
// The copies that this thread has started since the last commit become one group.
inline void copy_async_commit() { cudasim::close_copy_group(); }
// Wait until all groups of this thread but the latest `pending` have landed. A barrier must follow before other threads
// may read them.
template <int pending> inline void copy_async_wait() { cudasim::land_copies(pending); }

#else

template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&accumulator)[4], const uint32 (&a)[4], const uint32 (&b)[2]);

#define MMA_M16N8K16(type, suffix)                                                                                     \
    template <>                                                                                                        \
    __device__ __forceinline__ void mma_m16n8k16<type>(float (&accumulator)[4], const uint32 (&a)[4],                  \
                                                       const uint32 (&b)[2]) {                                         \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." suffix "." suffix ".f32 "                                \
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                           \
                     : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])          \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                              \
    }
MMA_M16N8K16(__half, "f16")
MMA_M16N8K16(__nv_bfloat16, "bf16")
#undef MMA_M16N8K16

template <bool transpose> __device__ __forceinline__ void ldmatrix_x4(uint32 (&registers)[4], const void* row) {
    const uint32 address = (uint32)__cvta_generic_to_shared(row);
    if (transpose)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                     : "r"(address)
                     : "memory");
}

__device__ __forceinline__ void copy_async_16(void* destination, const void* source, bool valid) {
    const uint32 address = (uint32)__cvta_generic_to_shared(destination);
    const int bytes_read = valid ? 16 : 0;  // the rest of the 16 are zeros
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(address), "l"(source), "r"(bytes_read)
                 : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#endif
