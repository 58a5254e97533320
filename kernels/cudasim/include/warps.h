// warps.h - what the 32 lanes of a warp do together: wait, exchange values, vote.
//
// All of it is one thing, a *meeting*: each lane that the mask names puts a value on the table, waits for the rest, and
// reads what the others have put there. A shuffle reads one value, a vote one bit of each, a matrix instruction all.
// Meetings of different lanes may be open at once (half a warp here, half a warp there), and a fast lane may open the
// next while a slow one still reads; hence a few tables for each warp, free again when the last lane has read.
//
// Where CUDA leaves the result undefined, this reports: a mask without the calling lane, operations that differ among
// the lanes that meet, a value read from a lane that is not there. (Lanes whose masks differ never meet: a deadlock.)
// Shuffles are held to a stricter rule: all lanes that the mask names must take part, also those whose value nobody
// reads. __syncwarp and votes do not wait for lanes that have finished, or that a block of, say, 40 threads does not
// have.
#pragma once

namespace cudasim {

constexpr unsigned full_mask = 0xffffffffu;
constexpr size_t slot_bytes = 64;

struct Meeting {
    unsigned mask;      // of the lanes that meet
    unsigned arrived;   // lanes that are here
    unsigned unread;    // lanes that have not left yet
    unsigned complete;  // 1 when all are here: what the waiting look at
    bool all_or_none;   // a lane that has finished is an error
    Site site;          // of the first to come
    alignas(16) char slots[warp_size][slot_bytes];

    template <class T> T value_of(unsigned lane) const {
        T value;
        memcpy(&value, slots[lane], sizeof value);
        return value;
    }
};

struct Warp {
    unsigned present;           // lanes that exist and have not finished
    unsigned taken;             // which tables are in use
    Meeting tables[warp_size];  // a lane sits at one table at a time, so they suffice
};
static Warp warps[max_threads / warp_size];

static void start_warps() {
    for (unsigned w = 0; w * warp_size < thread_count; ++w) {
        const unsigned lanes = thread_count - w * warp_size;
        warps[w].present = lanes >= warp_size ? full_mask : (1u << lanes) - 1;
        warps[w].taken = 0;
    }
}

static void complete(Meeting& meeting) {
    note(barrier_released, meeting.mask, meeting.site);
    for (unsigned lanes = meeting.arrived; lanes; lanes &= lanes - 1) ++meeting.unread;
    meeting.complete = 1;
}

// The present lane has read what it wanted.
static void leave(Meeting& meeting) {
    Warp& own = warps[warp()];
    if (--meeting.unread == 0) own.taken &= ~(1u << (&meeting - own.tables));
}

static void absent_lanes(const Site& site, unsigned mask, unsigned absent) {
    CUDASIM_FAIL(site, "the mask 0x%08x names lane %d, which has finished or was never there", mask,
                 __builtin_ctz(absent));
}

// The present lane puts `bytes` at `value` on the table and waits for all that `mask` names. Whoever calls this reads
// what it needs from the meeting and then leaves it.
static Meeting& meet(unsigned mask, const void* value, size_t bytes, bool all_or_none, const Site& site) {
    Warp& own = warps[warp()];
    const unsigned self = 1u << lane();
    if (!(mask & self)) CUDASIM_FAIL(site, "the mask 0x%08x does not name the calling lane %u", mask, lane());
    if (all_or_none && (mask & ~own.present)) absent_lanes(site, mask, mask & ~own.present);
    Meeting* meeting = nullptr;
    for (unsigned taken = own.taken; taken && !meeting; taken &= taken - 1) {
        Meeting& table = own.tables[__builtin_ctz(taken)];
        if (!table.complete && table.mask == mask) meeting = &table;
    }
    if (meeting && strcmp(meeting->site.operation, site.operation))
        CUDASIM_FAIL(site, "other lanes of the mask 0x%08x wait at %s:%d %s", mask, meeting->site.name(),
                     meeting->site.line, meeting->site.operation);
    if (!meeting) {
        const int table = __builtin_ctz(~own.taken);
        own.taken |= 1u << table;
        meeting = &own.tables[table];
        meeting->mask = mask;
        meeting->arrived = meeting->unread = meeting->complete = 0;
        meeting->all_or_none = all_or_none;
        meeting->site = site;
    }
    memcpy(meeting->slots[lane()], value, bytes);
    meeting->arrived |= self;
    note(thread_arrived, mask, site);
    if (meeting->arrived == (mask & own.present))
        complete(*meeting);
    else
        wait_for(&meeting->complete, site);
    return *meeting;
}

// The present thread has finished: whoever meets with it will not see it.
static void leave_warp() {
    Warp& own = warps[warp()];
    own.present &= ~(1u << lane());
    for (unsigned taken = own.taken; taken; taken &= taken - 1) {
        Meeting& table = own.tables[__builtin_ctz(taken)];
        if (table.complete || !(table.mask & 1u << lane())) continue;
        if (table.all_or_none) absent_lanes(table.site, table.mask, 1u << lane());
        if (table.arrived == (table.mask & own.present)) complete(table);
    }
}

// Put a value on the table and take that of another lane.
template <class T> static T exchange(unsigned mask, T value, unsigned source, const Site& site) {
    static_assert(sizeof(T) <= slot_bytes, "too wide for a shuffle");
    if (!(mask >> source & 1))
        CUDASIM_FAIL(site, "lane %u reads from lane %u, which the mask 0x%08x does not name", lane(), source, mask);
    Meeting& meeting = meet(mask, &value, sizeof value, true, site);
    const T result = meeting.value_of<T>(source);
    leave(meeting);
    return result;
}

// Every lane of the warp puts a value on the table and takes all 32 (matrix instructions, see kernels/ptx.cuh).
template <class T> static void gather(T (&values)[warp_size], const T& value, const Site& site) {
    static_assert(sizeof(T) <= slot_bytes, "too wide for a table");
    Meeting& meeting = meet(full_mask, &value, sizeof value, true, site);
    for (unsigned source = 0; source < warp_size; ++source) values[source] = meeting.value_of<T>(source);
    leave(meeting);
}

// The lanes whose predicate holds, as bits.
static unsigned vote(unsigned mask, bool predicate, const Site& site) {
    Meeting& meeting = meet(mask, &predicate, sizeof predicate, false, site);
    unsigned result = 0;
    for (unsigned source = 0; source < warp_size; ++source)
        if ((meeting.arrived >> source & 1) && meeting.value_of<bool>(source)) result |= 1u << source;
    leave(meeting);
    return result;
}

}  // namespace cudasim

inline void __syncwarp(unsigned mask = cudasim::full_mask, CUDASIM_HERE) {
    cudasim::leave(cudasim::meet(mask, "", 0, false, {file, line, "__syncwarp"}));
}

// `width` cuts the warp into segments of that many lanes; no shuffle reaches over the edge of one.
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDASIM_HERE) {
    const unsigned segment = cudasim::lane() & ~unsigned(width - 1);
    const unsigned from = segment | (unsigned(source) & unsigned(width - 1));
    return cudasim::exchange(mask, value, from, {file, line, "__shfl_sync"});
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lane_bits, int width = 32, CUDASIM_HERE) {
    const unsigned lane = cudasim::lane(), source = lane ^ unsigned(lane_bits);
    const unsigned segment_end = (lane & ~unsigned(width - 1)) + unsigned(width);  // earlier segments may be read
    return cudasim::exchange(mask, value, source < segment_end ? source : lane, {file, line, "__shfl_xor_sync"});
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDASIM_HERE) {
    const unsigned lane = cudasim::lane(), place = lane & unsigned(width - 1);
    const unsigned source = place + delta < unsigned(width) ? lane + delta : lane;
    return cudasim::exchange(mask, value, source, {file, line, "__shfl_down_sync"});
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDASIM_HERE) {
    const unsigned lane = cudasim::lane(), place = lane & unsigned(width - 1);
    return cudasim::exchange(mask, value, place >= delta ? lane - delta : lane, {file, line, "__shfl_up_sync"});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDASIM_HERE) {
    return cudasim::vote(mask, predicate != 0, {file, line, "__ballot_sync"});
}
inline int __any_sync(unsigned mask, int predicate, CUDASIM_HERE) {
    return cudasim::vote(mask, predicate != 0, {file, line, "__any_sync"}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDASIM_HERE) {  // no lane says "no"
    return cudasim::vote(mask, predicate == 0, {file, line, "__all_sync"}) == 0;
}
