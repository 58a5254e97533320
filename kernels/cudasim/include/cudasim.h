// cudasim.h - run CUDA C++ kernels on the CPU. Include this, and the text of a kernel compiles as ordinary C++.
//
// A GPU runs the threads of a block side by side. Here every thread is a *fiber*, a function call with a stack of its
// own, and one CPU thread runs them all in turn: a fiber runs until it must wait for others, at a barrier or in a
// shuffle, and then the scheduler goes on with the next. Nothing else ever interrupts a fiber. That makes runs
// repeatable, and the scheduler, which knows what each fiber waits for, can say what is wrong where a GPU would hang or
// read garbage.
//
// Read the files in this order; each is one idea.
//
//   vectors.h         dim3, float4 and their kin
//   context_switch.h  how one fiber stops and another continues: a page of assembly
//   scheduler.h       which fiber runs next; waiting; failing with a message
//   trace.h           WATCH, and the diary of one block
//   shared_memory.h   __shared__ memory, filled with NaN before each block
//   barriers.h        __syncthreads and its votes
//   warps.h           __syncwarp, shuffles and votes: 32 lanes meet and read each other's values
//   atomics.h         atomicAdd and its kin
//   half_types.h      half and bfloat16, bit by bit
//   intrinsics.h      the small functions that CUDA has and C++ has not
//   async_copy.h      copies that land only when they are waited for (cp.async)
//   launch.h          the loop over blocks, and what Python calls
//   executable.h      the same as a program of its own, for the sanitizers
//
// Everything is `static`: one translation unit, one shared library, one set of fibers.
#pragma once
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#define CUDASIM 1

// CUDA's words that mean nothing here. __launch_bounds__ guides a register allocator that we do not have.
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

#include "vectors.h"

#include "context_switch.h"
#include "scheduler.h"
#include "trace.h"

#include "shared_memory.h"
#include "barriers.h"
#include "warps.h"
#include "atomics.h"

#include "half_types.h"
#include "intrinsics.h"
#include "async_copy.h"

#include "launch.h"

#ifdef CUDASIM_EXECUTABLE
#include "executable.h"
#else
#define CUDASIM_PROGRAM
#endif
