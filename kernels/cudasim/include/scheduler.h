// scheduler.h - the fibers of the block that is running: which one goes next, how it waits, how all of them stop.
//
// A fiber that waits names a counter and the value it has seen; it may go on once the counter has another value. A
// barrier is then one counter, and "nobody can run, but not all are done" is a deadlock, found at once.
#pragma once
#if defined(__SANITIZE_ADDRESS__)
#define CUDASIM_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDASIM_ADDRESS_SANITIZER 1
#endif
#endif
#ifdef CUDASIM_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif
#include <sys/mman.h>

namespace cudasim {

constexpr unsigned max_threads = 1024;  // of a block, CUDA's limit
constexpr unsigned warp_size = 32;
constexpr size_t stack_bytes = 256 << 10;  // of a fiber: address space only, memory comes with the first touch
constexpr unsigned spare_stacks = 4;       // below all others
constexpr uint64_t stack_end_mark = 0x1d2c3b4a59687786;

enum ThreadOrder { ascending, descending, random_order, by_warp };

// A place in a kernel's text. CUDA's functions below take it as a last argument whose default is where they are called.
struct Site {
    const char* file;
    int line;
    const char* operation;

    const char* name() const {  // the file without its folders
        const char* slash = strrchr(file, '/');
        return slash ? slash + 1 : file;
    }
};
#define CUDASIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

struct Fiber {
    uint3 thread;    // threadIdx
    unsigned index;  // threads counted through: x fastest, then y, then z
    char* stack;
    void* stack_pointer;  // while it does not run
    bool started, done;
    const unsigned* counter;  // waits while *counter == seen; null if it does not wait
    unsigned seen;
    Site site;               // where it waits
    unsigned atomics;        // since it last waited, see `spin`
};

static Fiber fibers[max_threads];
static Fiber* current;          // the one that runs
static unsigned thread_count;   // of the block
static unsigned alive;          // threads of the block that have not finished
static unsigned idle_turns;     // given away in `spin` since somebody got on
static uint3 block_index;       // blockIdx
static dim3 block_size, grid_size;

static ThreadOrder thread_order;
static uint64_t random_state;

static void (*kernel_body)(void*);  // the kernel with its arguments, as a function of one pointer
static void* kernel_arguments;
static void* main_stack_pointer;  // of whoever launched
static char* free_stacks[max_threads];
static unsigned free_stack_count;

static char error[1024];  // empty: all is well

static unsigned lane() { return current->index % warp_size; }
static unsigned warp() { return current->index / warp_size; }

static uint64_t random_number() {  // xorshift64; Marsaglia, "Xorshift RNGs" (2003)
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

// Append to the error message, as printf.
__attribute__((format(printf, 1, 2))) static void say(const char* format, ...) {
    const size_t length = strlen(error);
    va_list values;
    va_start(values, format);
    vsnprintf(error + length, sizeof error - length, format, values);
    va_end(values);
}

// Abandon the kernel with the message in `error`; the fibers are never continued.
[[noreturn]] static void abandon() {
    static void* never_again;
    cudasim_switch(&never_again, main_stack_pointer);
    abort();  // not reached
}

// Abandon the kernel with "file:line: operation in thread (x,y,z) of block (x,y,z): " and the message, as printf.
#define CUDASIM_FAIL(site, ...)                                                                                        \
    do {                                                                                                               \
        cudasim::blame(site);                                                                                          \
        cudasim::say(__VA_ARGS__);                                                                                     \
        cudasim::abandon();                                                                                            \
    } while (false)

static void blame(const Site& site) {
    say("%s:%d: %s in thread (%u,%u,%u) of block (%u,%u,%u): ", site.name(), site.line, site.operation,
        current->thread.x, current->thread.y, current->thread.z, block_index.x, block_index.y, block_index.z);
}

static bool can_run(const Fiber& fiber) { return !fiber.done && (!fiber.counter || *fiber.counter != fiber.seen); }

// The next fiber that can run, in the order that was asked for; null if there is none.
static Fiber* next_runnable() {
    const unsigned last = thread_count - 1;
    if (thread_order == by_warp && current) {  // as long as the warp has one
        const unsigned first = current->index / warp_size * warp_size;
        for (unsigned i = first; i < first + warp_size && i <= last; ++i)
            if (can_run(fibers[i])) return &fibers[i];
    }
    unsigned index;  // of the first to look at
    if (thread_order == random_order)
        index = unsigned(random_number() % thread_count);
    else if (thread_order == ascending || thread_order == by_warp)
        index = current && current->index < last ? current->index + 1 : 0;
    else
        index = current && current->index > 0 ? current->index - 1 : last;
    for (unsigned looked_at = 0; looked_at < thread_count; ++looked_at) {
        Fiber& fiber = fibers[index];
        if (can_run(fiber)) return &fiber;
        if (thread_order == descending)
            index = index > 0 ? index - 1 : last;
        else
            index = index < last ? index + 1 : 0;
    }
    return nullptr;
}

// Nobody can run: say who waits where, the threads of one place together.
[[noreturn]] static void deadlock() {
    unsigned waiting = 0;
    for (unsigned i = 0; i < thread_count; ++i) waiting += fibers[i].started && !fibers[i].done;
    say("deadlock in block (%u,%u,%u): %u of %u threads wait for others that never come:", block_index.x,
        block_index.y, block_index.z, waiting, thread_count);
    std::vector<bool> told(thread_count);
    for (unsigned i = 0; i < thread_count; ++i) {
        const Fiber& first = fibers[i];
        if (!first.started || first.done || told[i]) continue;
        unsigned together = 0;
        for (unsigned j = i; j < thread_count; ++j) {
            const Fiber& other = fibers[j];
            if (!other.started || other.done || other.site.line != first.site.line) continue;
            if (strcmp(other.site.operation, first.site.operation) || strcmp(other.site.file, first.site.file))
                continue;
            told[j] = true;
            ++together;
        }
        say(" %u at %s:%d %s (the first is thread (%u,%u,%u));", together, first.site.name(), first.site.line,
            first.site.operation, first.thread.x, first.thread.y, first.thread.z);
    }
    error[strlen(error) - 1] = '.';
    abandon();
}

static void fiber_main();

// Continue with `fiber`; where the present stack ends is written to *save.
static void run(Fiber* fiber, void** save) {
    current = fiber;
    fiber->counter = nullptr;
    if (!fiber->started) {
        fiber->started = true;
        fiber->stack = free_stacks[--free_stack_count];
#ifdef CUDASIM_ADDRESS_SANITIZER
        // The function that had this stack before never returned: marks around its variables are still there.
        __asan_unpoison_memory_region(fiber->stack, stack_bytes);
#endif
        memcpy(fiber->stack, &stack_end_mark, sizeof stack_end_mark);
        // Stacks that end at like addresses would fight for the same lines of the cache: stagger their ends.
        const size_t staggered = stack_bytes - fiber->index * 13 * 64 % (32 << 10);
        fiber->stack_pointer = prepare_stack(fiber->stack, staggered, fiber_main);
    }
    cudasim_switch(save, fiber->stack_pointer);
}

// Let others run until *counter is no longer what it is now.
static void wait_for(const unsigned* counter, const Site& site) {
    Fiber* self = current;
    self->counter = counter;
    self->seen = *counter;
    self->site = site;
    self->atomics = 0;
    idle_turns = 0;
    Fiber* next = next_runnable();
    if (!next) deadlock();
    run(next, &self->stack_pointer);
}

// Called by every atomic operation. A thread that repeats them may be waiting for another thread to write something (a
// spin lock), and fibers are not interrupted: so after some of them it gives the others a turn. If turns go round and
// round and nobody reaches a barrier or the end, all are waiting.
static void spin(const Site& site) {
    constexpr unsigned patience = 256, rounds = 1 << 18;
    Fiber* self = current;
    if (++self->atomics % patience) return;
    if (++idle_turns > rounds)
        CUDASIM_FAIL(site, "livelock: threads of this block go on with atomic operations, and none gets any further "
                           "(blocks run one after another, so a block must not wait for a later one)");
    Fiber* next = next_runnable();
    if (next != self) run(next, &self->stack_pointer);
}

static void leave_block_barrier();  // barriers.h: a thread has finished; perhaps the others wait only for it
static void leave_warp();           // warps.h: likewise

// What a fiber does: run the kernel as one thread, then hand over. A thread that has not started takes over the very
// stack that became free, so threads that never wait run like a plain loop, on one stack that stays in the cache.
static void fiber_main() {
    static void* never_again;
    for (;;) {
        kernel_body(kernel_arguments);
        Fiber* self = current;
        if (memcmp(self->stack, &stack_end_mark, sizeof stack_end_mark)) {
            say("thread (%u,%u,%u) of block (%u,%u,%u) has more local variables than the simulator's %zu KiB a thread",
                self->thread.x, self->thread.y, self->thread.z, block_index.x, block_index.y, block_index.z,
                stack_bytes >> 10);
            abandon();
        }
        self->done = true;
        --alive;
        idle_turns = 0;
        leave_warp();
        leave_block_barrier();
        Fiber* next = alive ? next_runnable() : nullptr;
        if (alive && !next) deadlock();
        if (next && !next->started) {
            next->started = true;
            next->stack = self->stack;
            current = next;
            continue;
        }
        free_stacks[free_stack_count++] = self->stack;
        if (next)
            run(next, &never_again);
        else
            cudasim_switch(&never_again, main_stack_pointer);
    }
}

// All threads of the present block, from the first to the last.
static void run_block() {
    static char* stacks = nullptr;
    if (!stacks) {
        void* memory = mmap(nullptr, stack_bytes * (max_threads + spare_stacks), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            say("no address space for the stacks of %u threads", max_threads);
            return;
        }
        stacks = static_cast<char*>(memory);
    }
    // The highest stack is taken first: what overflows it runs into others, where it is noticed, not out of our memory.
    char* const lowest = stacks + stack_bytes * (max_threads + spare_stacks - thread_count);
    for (free_stack_count = 0; free_stack_count < thread_count; ++free_stack_count)
        free_stacks[free_stack_count] = lowest + stack_bytes * free_stack_count;
    uint3 thread = {0, 0, 0};
    for (unsigned i = 0; i < thread_count; ++i) {
        fibers[i] = Fiber{thread, i, nullptr, nullptr, false, false, nullptr, 0, Site{"", 0, ""}, 0};
        if (++thread.x < block_size.x) continue;
        thread.x = 0;
        if (++thread.y < block_size.y) continue;
        thread.y = 0;
        ++thread.z;
    }
    alive = thread_count;
    idle_turns = 0;
    current = nullptr;
    run(next_runnable(), &main_stack_pointer);
}

}  // namespace cudasim

#define threadIdx (cudasim::current->thread)
#define blockIdx (cudasim::block_index)
#define blockDim (cudasim::block_size)
#define gridDim (cudasim::grid_size)
#define warpSize 32
