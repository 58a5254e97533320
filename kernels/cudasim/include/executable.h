// executable.h - kernels as a program of their own, for sanitize=True in Python.
//
// The address sanitizer replaces malloc and must be in a process from its start, and an error it finds ends the
// process. So each launch is a process. Python writes the launch to a file; the program gives every array memory of
// exactly its size, so that one byte too far is seen, runs the kernel and writes the arrays back.
//
//   program --describe          print the parameters of all kernels, one a line, "end" after each kernel
//   program <launch> <arrays>   run; exit code 0, or 3 with the simulator's message on stderr
//
// The file of a launch, in the machine's own byte order (kernels/cudasim/libraries.py writes it):
//
//   int32 kernel, Request, int32 arrays, {uint64 bytes, the bytes} for each,
//   int32 arguments, {int32 kind, uint64 array | nothing | uint64 bytes, the bytes} for each
#pragma once

namespace cudasim {

enum ArgumentKind { value_argument, array_argument, null_argument };

static void must(bool fine, const char* what) {
    if (fine) return;
    fprintf(stderr, "cudasim: %s\n", what);
    exit(4);
}

static void read_bytes(FILE* file, void* to, size_t bytes) {
    must(fread(to, 1, bytes, file) == bytes, "the file of the launch ends too early");
}

template <class T> static T read_one(FILE* file) {
    T value;
    read_bytes(file, &value, sizeof value);
    return value;
}

static char* read_block(FILE* file, uint64_t& bytes) {  // aligned as the GPU's allocations are
    bytes = read_one<uint64_t>(file);
    void* memory = nullptr;
    must(posix_memalign(&memory, 256, bytes) == 0, "no memory");
    read_bytes(file, memory, bytes);
    return static_cast<char*>(memory);
}

static int run_program(const char* input_path, const char* output_path, const Kernel* kernels) {
    FILE* input = fopen(input_path, "rb");
    must(input != nullptr, "cannot open the file of the launch");
    const auto kernel = read_one<int32_t>(input);
    const auto request = read_one<Request>(input);
    std::vector<std::pair<char*, uint64_t>> arrays(size_t(read_one<int32_t>(input)));
    for (auto& [memory, bytes] : arrays) memory = read_block(input, bytes);
    std::vector<void*> pointers(size_t(read_one<int32_t>(input)));  // what pointer arguments are
    std::vector<void*> arguments(pointers.size());                  // where each argument stands
    for (size_t i = 0; i < arguments.size(); ++i) {
        const auto kind = read_one<int32_t>(input);
        uint64_t bytes;
        if (kind == value_argument) {
            arguments[i] = read_block(input, bytes);
        } else {
            pointers[i] = kind == array_argument ? arrays[read_one<uint64_t>(input)].first : nullptr;
            arguments[i] = &pointers[i];
        }
    }
    fclose(input);
    if (kernels[kernel].launch(request, arguments.data())) {
        fprintf(stderr, "cudasim: %s\n", error);
        return 3;
    }
    FILE* output = fopen(output_path, "wb");
    must(output != nullptr, "cannot open the file for the arrays");
    for (const auto& [memory, bytes] : arrays)
        must(fwrite(memory, 1, bytes, output) == bytes, "cannot write the arrays");
    must(fclose(output) == 0, "cannot write the arrays");
    return 0;
}

static int describe_program(const Kernel* kernels, size_t count) {
    char text[4096];
    for (size_t i = 0; i < count; ++i) {
        kernels[i].describe(text, sizeof text);
        printf("%send\n", text);
    }
    return 0;
}

}  // namespace cudasim

#define CUDASIM_PROGRAM                                                                                                \
    int main(int count, char** words) {                                                                                \
        if (count == 2 && !strcmp(words[1], "--describe"))                                                             \
            return cudasim::describe_program(cudasim_kernels, sizeof cudasim_kernels / sizeof cudasim_kernels[0]);     \
        cudasim::must(count == 3, "usage: program --describe | program <launch> <arrays>");                            \
        return cudasim::run_program(words[1], words[2], cudasim_kernels);                                              \
    }
