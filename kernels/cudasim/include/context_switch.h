// context_switch.h - how one fiber stops and another continues.
//
// A function that calls another expects to find some registers unchanged when the call returns (the platform's calling
// convention names them), and to find its own stack. So a switch is a function call that pushes those registers onto
// the present stack, notes where that stack ends, goes over to another stack and pops the registers that were pushed
// there when that fiber stopped. Its `return` then lands where the other fiber had called. A barrier costs about 20
// nanoseconds a thread this way; with the C library's swapcontext, which makes a system call each time, it would be
// over 250.
#pragma once

// Mach-O (macOS) puts an underscore before names of C, ELF (Linux) does not.
#ifdef __APPLE__
#define CUDASIM_FUNCTION                                                                                               \
    ".text\n.private_extern _cudasim_switch\n.globl _cudasim_switch\n.p2align 4\n_cudasim_switch:\n"
#else
#define CUDASIM_FUNCTION ".text\n.globl cudasim_switch\n.hidden cudasim_switch\n.p2align 4\ncudasim_switch:\n"
#endif

// Stop here: write to *save where our stack ends. Continue on the stack that ends at `next`.
extern "C" void cudasim_switch(void** save, void* next);

#if defined(__x86_64__)

__asm__(CUDASIM_FUNCTION
        "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n"
        "mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
        "ret\n");

namespace cudasim {
// Fill a fresh stack so that the first switch to it "returns" into `entry`; return where it ends. A called function
// finds its stack 8 bytes off a multiple of 16, for the call has pushed an address: hence the three words left free on
// top.
static void* prepare_stack(char* stack, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + bytes) - 3;
    *--top = reinterpret_cast<void*>(entry);
    top -= 6;  // rbp ... r15
    memset(top, 0, 6 * sizeof(void*));
    return top;
}
}  // namespace cudasim

#elif defined(__aarch64__)

__asm__(CUDASIM_FUNCTION
        "sub sp, sp, #160\n"
        "stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n"
        "stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
        "mov x9, sp\n str x9, [x0]\n"
        "mov sp, x1\n"
        "ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n"
        "ldp x25, x26, [sp, #48]\n ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
        "ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
        "add sp, sp, #160\n"
        "ret\n");

namespace cudasim {
// As above; here a return goes to the address in register x30, which the switch loads from byte 88.
static void* prepare_stack(char* stack, size_t bytes, void (*entry)()) {
    char* top = stack + bytes - 160;
    memset(top, 0, 160);
    memcpy(top + 88, &entry, sizeof entry);
    return top;
}
}  // namespace cudasim

#else
#error "cudasim knows x86-64 and aarch64; for another processor, write cudasim_switch and prepare_stack here"
#endif
#undef CUDASIM_FUNCTION
