// launch.h - the loop over the blocks of a grid, and the description of a kernel that Python checks arguments against.
#pragma once

namespace cudasim {

struct Request {  // Python fills this in: kernels/cudasim/libraries.py has the same fields
    uint32_t grid[3], block[3];
    uint32_t thread_order;  // ThreadOrder
    uint32_t block_order;   // ascending or descending
    uint64_t seed;          // of random_order
    uint64_t shared_bytes;
    int64_t traced_block;  // -1: none
};

// A GPU runs blocks in any order. The simulator runs them one after another, from the first or from the last.
static void run_grid(const Request& request) {
    const dim3 grid(request.grid[0], request.grid[1], request.grid[2]);
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    for (uint64_t turn = 0; turn < blocks && !error[0]; ++turn) {
        const uint64_t number = request.block_order == descending ? blocks - 1 - turn : turn;
        block_index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y),
                       unsigned(number / (uint64_t(grid.x) * grid.y))};
        tracing = int64_t(number) == request.traced_block;
        block_barrier = BlockBarrier{};
        start_warps();
        start_async_copies();
        poison_shared();
        run_block();
        if (!error[0]) check_guard();
    }
    tracing = false;
}

// Run the kernel; 0 if all went well, else `error` says what did not.
static int launch(const Request& request, void (*body)(void*), void* arguments) {
    error[0] = 0;
    events.clear();
    grid_size = dim3(request.grid[0], request.grid[1], request.grid[2]);
    block_size = dim3(request.block[0], request.block[1], request.block[2]);
    thread_count = block_size.x * block_size.y * block_size.z;
    thread_order = static_cast<ThreadOrder>(request.thread_order);
    random_state = (request.seed + 1) * 0x9e3779b97f4a7c15u | 1;  // never 0, where xorshift stays for ever
    kernel_body = body;
    kernel_arguments = arguments;
    find_static_shared();
    allocate_dynamic_shared(request.shared_bytes);
    if (!error[0]) run_grid(request);
    free(dynamic_shared);
    return error[0] != 0;
}

template <class... P, size_t... i>
static int launch_unpacked(void (*kernel)(P...), const Request& request, void** arguments, std::index_sequence<i...>) {
    auto call = [=] { kernel(*static_cast<std::remove_const_t<P>*>(arguments[i])...); };
    return launch(request, [](void* packed) { (*static_cast<decltype(call)*>(packed))(); }, &call);
}

// NumPy's name of a C++ type; "struct" for any other.
template <class T> static const char* type_name() {
    if (std::is_void<T>::value) return "void";
    if (std::is_same<T, bool>::value) return "bool";
    if (std::is_same<T, __half>::value) return "float16";
    if (std::is_same<T, __nv_bfloat16>::value) return "bfloat16";
    if (std::is_same<T, float>::value) return "float32";
    if (std::is_same<T, double>::value) return "float64";
    if constexpr (std::is_integral<T>::value) {
        static const char* const names[2][4] = {{"uint8", "uint16", "uint32", "uint64"},
                                                {"int8", "int16", "int32", "int64"}};
        return names[std::is_signed<T>::value][sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3];
    }
    return "struct";
}

template <class T> static size_t type_bytes() {
    if constexpr (std::is_void<T>::value) return 1;
    else return sizeof(T);
}

// One parameter in the language of kernels/cudasim/arguments.py: "pointer float32 4", "constant pointer int32 4" (what
// it points to may not be written) or "value uint64 8".
template <class P> static void describe(char* text, size_t size) {
    using T = std::remove_cv_t<std::remove_pointer_t<P>>;
    const char* kind = !std::is_pointer<P>::value                                ? "value"
                       : std::is_const<std::remove_pointer_t<P>>::value ? "constant pointer"
                                                                                 : "pointer";
    const size_t length = strlen(text);
    snprintf(text + length, size - length, "%s %s %zu\n", kind, type_name<T>(), type_bytes<T>());
}

struct Kernel {
    int (*launch)(const Request&, void**);
    void (*describe)(char* text, size_t size);
};

template <class F> struct Unpack;
template <class... P> struct Unpack<void (*)(P...)> {
    template <void (*kernel)(P...)> static int launch(const Request& request, void** arguments) {
        return launch_unpacked(kernel, request, arguments, std::index_sequence_for<P...>{});
    }
    static void describe_all(char* text, size_t size) {
        text[0] = 0;
        (describe<std::remove_cv_t<P>>(text, size), ...);
    }
};

template <auto kernel> constexpr Kernel kernel_entry() {
    using Of = Unpack<decltype(kernel)>;
    return {&Of::template launch<kernel>, &Of::describe_all};
}

}  // namespace cudasim

// The generated text (kernels/cudasim/source.py) has the table `cudasim_kernels` behind the kernels, and then these.
#define CUDASIM_EXPORTS                                                                                                \
    extern "C" int cudasim_launch(int kernel, const cudasim::Request* request, void** arguments) {                     \
        return cudasim_kernels[kernel].launch(*request, arguments);                                                    \
    }                                                                                                                  \
    extern "C" const char* cudasim_describe(int kernel) {                                                              \
        static char text[4096];                                                                                        \
        cudasim_kernels[kernel].describe(text, sizeof text);                                                           \
        return text;                                                                                                   \
    }                                                                                                                  \
    extern "C" const char* cudasim_error() { return cudasim::error; }                                                  \
    extern "C" const cudasim::Event* cudasim_events(int64_t* count) {                                                  \
        *count = int64_t(cudasim::events.size());                                                                      \
        return cudasim::events.data();                                                                                 \
    }
