// barriers.h - __syncthreads: nobody goes on before everybody is here.
//
// CUDA asks that all threads of the block reach the same __syncthreads. Threads that have finished are not waited for.
// If two threads wait at barriers in different lines, a GPU may hang or go on with garbage; here it is an error.
#pragma once

namespace cudasim {

struct BlockBarrier {
    unsigned generation;        // goes up by one when all are there: what the waiting look at
    unsigned arrived, agreed;   // how many are there, and how many of them brought "true"
    unsigned members, result;   // of the last generation: how many they were, how many agreed
    Site site;                  // where the first of them waits
    uint3 first;
};
static BlockBarrier block_barrier;

static void release_block(const Site& site) {
    BlockBarrier& barrier = block_barrier;
    note(barrier_released, 0, site);
    barrier.members = barrier.arrived;
    barrier.result = barrier.agreed;
    barrier.arrived = barrier.agreed = 0;
    ++barrier.generation;
}

static void leave_block_barrier() {
    note(thread_finished, 0, Site{"", 0, "end"});
    if (block_barrier.arrived && block_barrier.arrived == alive) release_block(block_barrier.site);
}

// Wait for the block; return how many threads brought "true".
static unsigned meet_block(bool vote, const Site& site) {
    BlockBarrier& barrier = block_barrier;
    if (barrier.arrived == 0) {
        barrier.site = site;
        barrier.first = current->thread;
    } else if (barrier.site.line != site.line || strcmp(barrier.site.file, site.file) ||
               strcmp(barrier.site.operation, site.operation)) {
        CUDASIM_FAIL(site, "divergent barrier: thread (%u,%u,%u) waits at %s:%d %s", barrier.first.x, barrier.first.y,
                     barrier.first.z, barrier.site.name(), barrier.site.line, barrier.site.operation);
    }
    note(thread_arrived, 0, site);
    ++barrier.arrived;
    barrier.agreed += vote;
    if (barrier.arrived == alive)
        release_block(site);
    else
        wait_for(&barrier.generation, site);
    return barrier.result;
}

}  // namespace cudasim

inline void __syncthreads(CUDASIM_HERE) { cudasim::meet_block(false, {file, line, "__syncthreads"}); }

inline int __syncthreads_count(int predicate, CUDASIM_HERE) {
    return int(cudasim::meet_block(predicate != 0, {file, line, "__syncthreads_count"}));
}
inline int __syncthreads_or(int predicate, CUDASIM_HERE) {
    return cudasim::meet_block(predicate != 0, {file, line, "__syncthreads_or"}) > 0;
}
inline int __syncthreads_and(int predicate, CUDASIM_HERE) {
    return cudasim::meet_block(predicate != 0, {file, line, "__syncthreads_and"}) == cudasim::block_barrier.members;
}
