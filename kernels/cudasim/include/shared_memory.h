// shared_memory.h - memory that the threads of a block share, filled with NaN before each block.
//
// One block runs at a time, so a static variable *is* the memory that its threads share. On a GPU it holds whatever the
// block before has left there. Here every byte is 0xff when a block begins: a float, double, half or bfloat16 of such
// bytes is NaN, an integer -1, and a kernel that reads what nobody has written shows it.
//
// To fill all arrays without a word in the kernels we must know where they are. A variable that each thread of the
// operating system has for itself (__thread) is laid by the linker beside all others of that kind, and the loader
// tells where they begin and end. Nothing else in a kernel's library is of that kind.
#pragma once

// The address sanitizer does not watch such variables, and macOS does not tell where they lie. There, shared arrays are
// plain statics without poison.
#if defined(__linux__) && !defined(CUDASIM_ADDRESS_SANITIZER)
#define CUDASIM_POISONS_STATIC 1
#include <link.h>
#define __shared__ static __thread
#else
#define __shared__ static
#endif

namespace cudasim {

constexpr size_t guard_bytes = 256;  // behind the dynamic shared memory; a write into them is reported
constexpr int poison = 0xff;
static char *dynamic_shared, *static_shared;
static size_t dynamic_shared_bytes, static_shared_bytes;

#ifdef CUDASIM_POISONS_STATIC

static __thread char anchor[16];  // there is one such variable at least

// Called for each library of the process, until one has the anchor among its __thread variables.
static int look_for_anchor(dl_phdr_info* library, size_t, void*) {
    for (int i = 0; i < library->dlpi_phnum; ++i) {
        if (library->dlpi_phdr[i].p_type != PT_TLS || !library->dlpi_tls_data) continue;
        char* start = static_cast<char*>(library->dlpi_tls_data);
        const size_t bytes = library->dlpi_phdr[i].p_memsz;
        if (anchor < start || anchor >= start + bytes) continue;
        static_shared = start;
        static_shared_bytes = bytes;
        return 1;
    }
    return 0;
}

// At every launch: another Python thread has other variables.
static void find_static_shared() {
    memset(anchor, poison, sizeof anchor);  // the first touch makes them
    static_shared_bytes = 0;
    dl_iterate_phdr(look_for_anchor, nullptr);
    if (!static_shared_bytes) say("the loader does not tell where shared arrays lie");
}

static bool is_shared(const void* address) {
    const char* byte = static_cast<const char*>(address);
    return (byte >= static_shared && byte < static_shared + static_shared_bytes) ||
           (byte >= dynamic_shared && byte < dynamic_shared + dynamic_shared_bytes);
}

#else

static void find_static_shared() {}
static bool is_shared(const void*) { return true; }  // cannot be told

#endif

static void allocate_dynamic_shared(size_t bytes) {
    void* memory = nullptr;
#ifdef CUDASIM_ADDRESS_SANITIZER
    const size_t guard = 0;  // the sanitizer puts its own
#else
    const size_t guard = guard_bytes;
#endif
    if (posix_memalign(&memory, 256, bytes + guard)) say("no memory for %zu bytes of dynamic shared memory", bytes);
    dynamic_shared = static_cast<char*>(memory);
    dynamic_shared_bytes = bytes;
}

static void poison_shared() {
    if (static_shared_bytes) memset(static_shared, poison, static_shared_bytes);
#ifdef CUDASIM_ADDRESS_SANITIZER
    memset(dynamic_shared, poison, dynamic_shared_bytes);
#else
    memset(dynamic_shared, poison, dynamic_shared_bytes + guard_bytes);
#endif
}

// After a block: has it written behind the dynamic shared memory that the launch asked for?
static void check_guard() {
#ifndef CUDASIM_ADDRESS_SANITIZER
    for (size_t i = 0; i < guard_bytes; ++i)
        if (static_cast<unsigned char>(dynamic_shared[dynamic_shared_bytes + i]) != poison) {
            say("block (%u,%u,%u) has written to byte %zu of dynamic shared memory; the launch asked for %zu bytes",
                block_index.x, block_index.y, block_index.z, dynamic_shared_bytes + i, dynamic_shared_bytes);
            return;
        }
#endif
}

}  // namespace cudasim

// Shared memory whose size the launch says: DYNAMIC_SHARED(float, row). On a GPU: extern __shared__
// (kernels/common.cuh).
#define DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(cudasim::dynamic_shared)
