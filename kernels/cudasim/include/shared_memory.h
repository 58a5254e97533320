// shared_memory.h - memory that the threads of a block share, filled with NaN before each block.
//
// One block runs at a time, so a static variable *is* the memory that its threads share. On a GPU it holds whatever the
// block before has left there. Here every byte is 0xff when a block begins: a float, double, half or bfloat16 of such
// bytes is NaN, an integer -1, and a kernel that reads what nobody has written shows it. To reach all arrays without a
// word in the kernels, the linker gathers them in one section of the library and gives us its first and last address.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define CUDASIM_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDASIM_ADDRESS_SANITIZER 1
#endif
#endif

// The address sanitizer leaves variables in sections of one's own alone. Under it they are plain statics, without
// poison: that build is for finding accesses out of bounds.
#ifdef CUDASIM_ADDRESS_SANITIZER
#define __shared__ static
#elif defined(__APPLE__)
#define CUDASIM_SECTION __attribute__((section("__DATA,cudasim_shared")))
#define __shared__ static CUDASIM_SECTION
extern char cudasim_shared_start[] __asm("section$start$__DATA$cudasim_shared");
extern char cudasim_shared_stop[] __asm("section$end$__DATA$cudasim_shared");
#else
#define CUDASIM_SECTION __attribute__((section("cudasim_shared")))
#define __shared__ static CUDASIM_SECTION
extern "C" char __start_cudasim_shared[] __attribute__((visibility("hidden")));
extern "C" char __stop_cudasim_shared[] __attribute__((visibility("hidden")));
#define cudasim_shared_start __start_cudasim_shared
#define cudasim_shared_stop __stop_cudasim_shared
#endif

namespace cudasim {

constexpr size_t guard_bytes = 256;  // behind the dynamic shared memory; a write into them is reported
constexpr int poison = 0xff;
static char* dynamic_shared;
static size_t dynamic_shared_bytes;

#ifdef CUDASIM_ADDRESS_SANITIZER
static void poison_static_shared() {}
static bool is_shared(const void*) { return true; }  // cannot be told
#else
CUDASIM_SECTION __attribute__((used)) static char section_anchor[16];  // the section exists though no kernel shares

static void poison_static_shared() {
    memset(cudasim_shared_start, poison, size_t(cudasim_shared_stop - cudasim_shared_start));
}
static bool is_shared(const void* address) {
    const char* byte = static_cast<const char*>(address);
    return (byte >= cudasim_shared_start && byte < cudasim_shared_stop) ||
           (byte >= dynamic_shared && byte < dynamic_shared + dynamic_shared_bytes);
}
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
    poison_static_shared();
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
