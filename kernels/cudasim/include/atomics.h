// atomics.h - read, change and write back without anybody in between. Fibers are not interrupted, so plain code is
// atomic.
//
// What a GPU does not promise is the order: floats that atomicAdd sums up may be added in any, and their last bits
// differ from run to run. Run such a kernel in other thread and block orders to see it.
#pragma once

namespace cudasim {
template <class T> using Same = std::common_type_t<T>;  // T, but not deduced from this argument: atomicAdd(&x, 1)

template <class T> static T replace(T* address, T value, const Site& site) {
    const T old = *address;
    *address = value;
    spin(site);
    return old;
}
}  // namespace cudasim

template <class T> inline T atomicAdd(T* address, cudasim::Same<T> value, CUDASIM_HERE) {
    return cudasim::replace(address, T(*address + value), {file, line, "atomicAdd"});
}
template <class T> inline T atomicSub(T* address, cudasim::Same<T> value, CUDASIM_HERE) {
    return cudasim::replace(address, T(*address - value), {file, line, "atomicSub"});
}
template <class T> inline T atomicMax(T* address, cudasim::Same<T> value, CUDASIM_HERE) {
    return cudasim::replace(address, *address < value ? value : *address, {file, line, "atomicMax"});
}
template <class T> inline T atomicMin(T* address, cudasim::Same<T> value, CUDASIM_HERE) {
    return cudasim::replace(address, value < *address ? value : *address, {file, line, "atomicMin"});
}
template <class T> inline T atomicOr(T* address, cudasim::Same<T> value, CUDASIM_HERE) {
    return cudasim::replace(address, T(*address | value), {file, line, "atomicOr"});
}
template <class T> inline T atomicAnd(T* address, cudasim::Same<T> value, CUDASIM_HERE) {
    return cudasim::replace(address, T(*address & value), {file, line, "atomicAnd"});
}
template <class T> inline T atomicExch(T* address, cudasim::Same<T> value, CUDASIM_HERE) {
    return cudasim::replace(address, T(value), {file, line, "atomicExch"});
}
template <class T>
inline T atomicCAS(T* address, cudasim::Same<T> expected, cudasim::Same<T> value, CUDASIM_HERE) {
    return cudasim::replace(address, *address == expected ? T(value) : *address, {file, line, "atomicCAS"});
}
// The next number, back to 0 after `last`: how blocks draw tickets.
inline unsigned atomicInc(unsigned* address, unsigned last, CUDASIM_HERE) {
    return cudasim::replace(address, *address >= last ? 0u : *address + 1u, {file, line, "atomicInc"});
}

// Fences order what other threads see of our writes; here everybody sees everything at once.
inline void __threadfence_block() {}
inline void __threadfence() {}
inline void __threadfence_system() {}
