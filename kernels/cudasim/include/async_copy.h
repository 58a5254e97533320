// async_copy.h - copies from global to shared memory that go on while the thread computes (cp.async, since Ampere).
//
// On a GPU a copy lands some time after it was asked for, and a kernel that reads too early often gets the right bytes
// by luck. Here it lands at the last moment that is allowed: when the thread waits for its group. A missing wait then
// reads what was there before, which in a fresh block is NaN. With order="warps" it lands at the first moment, at once,
// where a missing barrier lets it overwrite what other warps still read; in random order at the one or the other.
#pragma once

namespace cudasim {

struct AsyncCopy {
    void* destination;
    const void* source;  // null: write zeros
    size_t bytes;
    int group;
};
struct AsyncQueue {
    std::vector<AsyncCopy> copies;
    int group;  // number of the one that is being filled
};
static AsyncQueue async_queues[max_threads];
static bool async_queues_used;  // since they were cleared

static void start_async_copies() {
    if (!async_queues_used) return;
    async_queues_used = false;
    for (AsyncQueue& queue : async_queues) {
        queue.copies.clear();
        queue.group = 0;
    }
}

static void land(const AsyncCopy& copy) {
    if (copy.source)
        memcpy(copy.destination, copy.source, copy.bytes);
    else
        memset(copy.destination, 0, copy.bytes);
}

static void copy_later(void* destination, const void* source, size_t bytes, const Site& site) {
    if (!is_shared(destination)) CUDASIM_FAIL(site, "the destination is not in shared memory");
    if (reinterpret_cast<uintptr_t>(destination) % bytes)
        CUDASIM_FAIL(site, "the destination is not aligned to %zu bytes", bytes);
    if (reinterpret_cast<uintptr_t>(source) % bytes)
        CUDASIM_FAIL(site, "the source is not aligned to %zu bytes", bytes);
    async_queues_used = true;
    AsyncQueue& queue = async_queues[current->index];
    const AsyncCopy copy = {destination, source, bytes, queue.group};
    if (thread_order == by_warp || (thread_order == random_order && random_number() % 2))
        land(copy);
    else
        queue.copies.push_back(copy);
}

static void close_copy_group() {
    async_queues_used = true;
    ++async_queues[current->index].group;
}

// All groups but the last `pending` closed ones land.
static void land_copies(int pending) {
    AsyncQueue& queue = async_queues[current->index];
    size_t kept = 0;
    for (const AsyncCopy& copy : queue.copies) {
        if (copy.group >= queue.group - pending)
            queue.copies[kept++] = copy;
        else
            land(copy);
    }
    queue.copies.resize(kept);
}

}  // namespace cudasim
