"""Threads that wait for each other: what is legal passes in every order, what is not is reported with its place."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np
import pytest
from cudasim_files import compiled, line_in
from simulator import needs_compiler

from minitl.kernels import cudasim

pytestmark = needs_compiler
ORDERS = [("ascending", 0), ("descending", 0), *(("random", seed) for seed in range(5))]
in_all_orders = pytest.mark.parametrize(("order", "seed"), ORDERS)


def run(name: str, *arguments: Any, grid: int = 1, block: int = 32, **options: Any) -> None:
    compiled("mistakes.cu").kernel(name)((grid,), (block,), arguments, **options)


def at(kernel: str, text: str) -> str:
    return f"mistakes.cu:{line_in('mistakes.cu', kernel, text)}"


def fails(name: str, message: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(cudasim.KernelError, match=f"^{re.escape(f'{name}: {message}')}$"):
        run(name, *arguments, **options)


# ---- races -----------------------------------------------------------------------------------------------------------


def reversed_in(name: str, order: Any, seed: int) -> np.ndarray:
    x = np.arange(64, dtype=np.float32)
    run(name, x, block=64, order=order, seed=seed)
    return x


@in_all_orders
def test_with_the_barrier_every_order_agrees(order: Any, seed: int) -> None:
    np.testing.assert_array_equal(reversed_in("reverse", order, seed), np.arange(63, -1, -1))


def test_a_missing_barrier_shows_in_every_order_and_differently() -> None:
    right = np.arange(63, -1, -1)
    seen = [reversed_in("reverse_without_barrier", order, seed) for order, seed in ORDERS]
    # the thread that comes first reads what nobody has written yet: NaN
    assert np.isnan(seen[0][0])
    assert np.isnan(seen[1][63])
    for result in seen:
        written = ~np.isnan(result)
        np.testing.assert_array_equal(result[written], right[written])
    assert len({np.isnan(result).tobytes() for result in seen}) == len(ORDERS)


def test_a_seed_repeats_its_order() -> None:
    first, second = (reversed_in("reverse_without_barrier", "random", 7) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("block_order", "last"), [("ascending", 4), ("descending", 0)])
def test_block_order(block_order: Any, last: int) -> None:
    x = np.zeros(1, np.int32)
    run("last_block_wins", x, grid=5, block_order=block_order)
    assert x[0] == last


def test_the_schedule_holds_inside_with_only() -> None:
    x = np.zeros(1, np.int32)
    with cudasim.schedule(block_order="descending"):
        run("last_block_wins", x, grid=5)
        assert x[0] == 0
        run("last_block_wins", x, grid=5, block_order="ascending")
        assert x[0] == 4
    run("last_block_wins", x, grid=3)
    assert x[0] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "sideways"}, "order must be one of ascending, descending, random, warps, not 'sideways'"),
        ({"block_order": "random"}, "block_order must be one of ascending, descending, not 'random'"),
        ({"seed": -1}, "seed must be 0 to 2^64 - 1, not -1"),
    ],
)
def test_wrong_schedules(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        run("reverse", np.zeros(64, np.float32), **options)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cudasim.Schedule(**options)


# ---- barriers of the block -------------------------------------------------------------------------------------------


def test_divergent_barrier() -> None:
    line = line_in("mistakes.cu", "divergent_barrier", "__syncthreads")
    fails(
        "divergent_barrier",
        f"mistakes.cu:{line}: __syncthreads in thread (1,0,0) of block (0,0,0): divergent barrier: thread (0,0,0) "
        f"waits at mistakes.cu:{line + 2} __syncthreads",
        np.zeros(64, np.float32),
    )


def test_deadlock() -> None:
    fails(
        "deadlock",
        "deadlock in block (0,0,0): 64 of 64 threads wait for others that never come: "
        f"40 at {at('deadlock', '__syncthreads')} __syncthreads (the first is thread (0,0,0)); "
        f"24 at {at('deadlock', '__syncwarp')} __syncwarp (the first is thread (40,0,0)).",
        np.zeros(64, np.float32),
        block=64,
    )


def test_after_a_failure_the_next_launch_is_fine() -> None:
    with pytest.raises(cudasim.KernelError, match="deadlock"):
        run("deadlock", np.zeros(64, np.float32), block=64)
    np.testing.assert_array_equal(reversed_in("reverse", "ascending", 0), np.arange(63, -1, -1))


@in_all_orders
def test_threads_may_leave_before_a_barrier(order: Any, seed: int) -> None:
    x = np.zeros(64, np.float32)
    run("early_exit", x, block=64, order=order, seed=seed)
    np.testing.assert_array_equal(x, np.repeat([2, 0], [41, 23]))


@in_all_orders
def test_votes_of_the_block(order: Any, seed: int) -> None:
    x = np.zeros((50, 3), np.int32)
    run("block_votes", x, block=64, order=order, seed=seed)
    np.testing.assert_array_equal(x, np.tile([10, 1, 0], (50, 1)))


def test_a_block_that_spins_for_a_later_block_is_no_hang() -> None:
    line = line_in("mistakes.cu", "spin_for_a_later_block", "while")
    fails(
        "spin_for_a_later_block",
        f"mistakes.cu:{line}: atomicAdd in thread (0,0,0) of block (0,0,0): livelock: threads of this block go on with "
        "atomic operations, and none gets any further (blocks run one after another, so a block must not wait for a "
        "later one)",
        np.zeros(1, np.int32),
        grid=2,
    )


@in_all_orders
def test_a_thread_may_spin_for_a_later_thread(order: Any, seed: int) -> None:
    x = np.zeros(1, np.int32)
    run("spin_for_a_later_thread", x, order=order, seed=seed)
    assert x[0] > 0


# ---- warps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "thread", "message"),
    [
        (
            "shuffle_after_exit",
            "__shfl_xor_sync",
            8,
            "__shfl_xor_sync in thread (8,0,0) of block (0,0,0): the mask 0xffffffff names lane 0, which has finished "
            "or was never there",
        ),
        (
            "exit_before_shuffle",
            "__shfl_down_sync",
            31,
            "__shfl_down_sync in thread (31,0,0) of block (0,0,0): the mask 0xffffffff names lane 31, which has "
            "finished or was never there",
        ),
        (
            "mask_without_caller",
            "__shfl_xor_sync",
            0,
            "__shfl_xor_sync in thread (0,0,0) of block (0,0,0): the mask 0x0000fff0 does not name the calling lane 0",
        ),
        (
            "masks_that_differ",
            "__shfl_sync",
            16,
            "__shfl_sync in thread (16,0,0) of block (0,0,0): the mask 0xffffffff names lane 15, which has finished or "
            "was never there",
        ),
        (
            "source_outside_the_mask",
            "__shfl_sync",
            0,
            "__shfl_sync in thread (0,0,0) of block (0,0,0): lane 0 reads from lane 20, which the mask 0x0000ffff does "
            "not name",
        ),
    ],
)
def test_wrong_shuffles(name: str, text: str, thread: int, message: str) -> None:
    fails(name, f"{at(name, text)}: {message}", np.zeros(64, np.int32))


def test_lanes_of_one_mask_that_do_different_things() -> None:
    name = "operations_that_differ"
    fails(
        name,
        f"{at(name, '__any_sync')}: __any_sync in thread (16,0,0) of block (0,0,0): other lanes of the mask 0xffffffff "
        f"wait at {at(name, '__shfl_xor_sync')} __shfl_xor_sync",
        np.zeros(32, np.int32),
    )


def test_a_block_that_fills_no_warp_cannot_shuffle_with_a_full_mask() -> None:
    with pytest.raises(cudasim.KernelError, match="the mask 0xffffffff names lane 20, which has finished or was never"):
        run("segments", np.zeros(128, np.int32), block=20)


@in_all_orders
def test_half_warps(order: Any, seed: int) -> None:
    x = np.arange(32, dtype=np.int32)
    run("half_warps", x, order=order, seed=seed)
    np.testing.assert_array_equal(x, np.repeat([120, 376], 16))


@in_all_orders
def test_halves_that_do_not_keep_step(order: Any, seed: int) -> None:
    x = np.arange(32, dtype=np.int32)
    run("uneven_halves", x, order=order, seed=seed)
    lanes = np.arange(32)
    # three times exchanged with the neighbour and 1 more each time
    np.testing.assert_array_equal(x, np.where(lanes < 16, lanes ^ 1, lanes - 3)[::-1] + 3)


@in_all_orders
def test_a_fast_lane_does_not_overwrite_what_a_slow_one_reads(order: Any, seed: int) -> None:
    x = np.arange(32, dtype=np.int32)
    run("fast_lanes", x, order=order, seed=seed)
    lanes = np.arange(32)
    np.testing.assert_array_equal(x, 31 - lanes + np.where(lanes < 16, 100 * (31 - (lanes ^ 8)), 0))


@in_all_orders
def test_a_warp_meets_as_often_as_it_likes(order: Any, seed: int) -> None:
    x = np.arange(32, dtype=np.int32)
    run("many_meetings", x, order=order, seed=seed)
    wanted = np.arange(32)
    for _ in range(1000):
        wanted = np.roll(wanted[np.arange(32) ^ 1] + 1, -1)
    np.testing.assert_array_equal(x, wanted)


@in_all_orders
def test_votes_do_without_lanes_that_are_not_there(order: Any, seed: int) -> None:
    x = np.zeros((40, 2), np.uint32)
    run("votes", x, block=64, order=order, seed=seed)
    even = np.repeat([0x55555555, 0x00000055], [32, 8])
    some_and_all = np.repeat([0, 3], [32, 8])
    np.testing.assert_array_equal(x, np.stack([even, some_and_all], axis=1))


@in_all_orders
def test_segments_of_a_warp(order: Any, seed: int) -> None:
    x = np.zeros((4, 32), np.int32)
    run("segments", x, order=order, seed=seed)
    lanes = np.arange(32)
    place, segment = lanes % 8, lanes - lanes % 8
    up = np.where(place >= 1, lanes - 1, lanes)
    down = np.where(place + 3 < 8, lanes + 3, lanes)
    # beyond its own segment a lane reads from earlier ones only, and otherwise itself
    crossed = np.where((lanes ^ 12) < segment + 8, lanes ^ 12, lanes)
    np.testing.assert_array_equal(x, [up, down, segment + 1, crossed])


def test_threads_of_three_dimensions_are_counted_x_first() -> None:
    kernel = compiled("mistakes.cu").kernel("where_am_i")
    x = np.zeros((4, 3, 2, 5, 4, 3, 6), np.int32)  # grid z, y, x, block z, y, x
    for block_order, order in product(("ascending", "descending"), ("ascending", "descending", "random")):
        x[:] = -1
        kernel((2, 3, 4), (3, 4, 5), (x,), block_order=block_order, order=order)
        np.testing.assert_array_equal(np.moveaxis(x, -1, 0), np.indices(x.shape[:-1])[[2, 1, 0, 5, 4, 3]])
