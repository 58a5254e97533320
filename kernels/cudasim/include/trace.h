// trace.h - the diary of one block, for people who want to see what a kernel does (trace() in Python).
//
// A kernel's author writes WATCH("running maximum", maximum) where a value is worth seeing; on a GPU that is nothing.
// When the chosen block runs, the diary takes down every watched value and every arrival at a barrier, in the order in
// which they happen. Python makes a page of it.
#pragma once

namespace cudasim {

enum EventKind { thread_arrived, barrier_released, thread_finished, watched_integer, watched_real };

struct Event {  // Python reads this struct: kernels/cudasim/tracing.py has the same fields
    int32_t kind;
    uint32_t thread;   // which thread: its index in the block
    uint32_t mask;     // which lanes meet; 0 stands for the whole block
    int32_t line;
    const char* file;
    const char* label;  // the operation, or the name of the value
    double real;
    int64_t integer;
};

static std::vector<Event> events;
static int64_t traced_block = -1;  // number of the block whose diary is kept, x fastest; -1 for none
static bool tracing;               // the present block is that one

static void note(EventKind kind, uint32_t mask, const Site& site, double real = 0, int64_t integer = 0) {
    if (tracing) events.push_back({kind, current->index, mask, site.line, site.file, site.operation, real, integer});
}

template <class T> static void watch(const char* name, T value, CUDASIM_HERE) {
    if constexpr (std::is_integral<T>::value || std::is_enum<T>::value)
        note(watched_integer, 0, Site{file, line, name}, 0, static_cast<int64_t>(value));
    else if constexpr (std::is_floating_point<T>::value)
        note(watched_real, 0, Site{file, line, name}, static_cast<double>(value));
    else  // __half and __nv_bfloat16
        note(watched_real, 0, Site{file, line, name}, static_cast<float>(value));
}

}  // namespace cudasim

#define WATCH(name, value) cudasim::watch(name, value)
