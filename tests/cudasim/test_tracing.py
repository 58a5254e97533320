"""The diary of a block: barriers with their threads, watched values, and the page that is printed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cudasim_files import FILES, compiled, line_in, sanitized
from simulator import needs_compiler

from minitl.kernels import cudasim

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def watched() -> cudasim.Module:
    return cudasim.Module(FILES / "watched.cu", ["phases", "kinds", "warp_sum"])


def line(kernel: str, text: str) -> int:
    return line_in("watched.cu", kernel, text)


def test_barriers_and_values_in_order(watched: cudasim.Module) -> None:
    x = np.arange(8, dtype=np.int32)
    trace = cudasim.trace(watched.kernel("phases"), (2,), (4,), (x,), block_index=(1, 0, 0))
    np.testing.assert_array_equal(x, [3, 2, 1, 0, 7, 6, 5, 4])
    first, second, neighbour = (line("phases", text) for text in ('WATCH("before"', "__syncthreads", 'WATCH("after"'))
    assert trace.barriers == [cudasim.Barrier("watched.cu", second, "__syncthreads", [0, 1, 2, 3], True)]
    before = [cudasim.Watched("watched.cu", first, "before", thread, 4 + thread) for thread in range(4)]
    after = [cudasim.Watched("watched.cu", neighbour, "after", thread, 7 - thread) for thread in (3, 0, 1, 2)]
    assert [step for step in trace.steps if step in before] == before
    assert [step for step in trace.steps if step in after] == after
    assert trace.values("before") == {0: [4], 1: [5], 2: [6], 3: [7]}
    assert trace.values("after") == {0: [7], 1: [6], 2: [5], 3: [4]}
    with pytest.raises(KeyError, match=r"nothing called 'befor' was watched, only \['after', 'before'\]"):
        trace.values("befor")


@pytest.mark.parametrize(("order", "arrivals"), [("ascending", [0, 1, 2, 3]), ("descending", [3, 2, 1, 0])])
def test_the_order_of_arrivals(watched: cudasim.Module, order: Any, arrivals: list[int]) -> None:
    trace = cudasim.trace(watched.kernel("phases"), (2,), (4,), (np.arange(8, dtype=np.int32),), order=order)
    assert trace.barriers[0].threads == arrivals
    assert trace.block_index == (0, 0, 0)


def test_the_random_order_is_in_the_trace(watched: cudasim.Module) -> None:
    arrivals = {
        tuple(
            cudasim.trace(
                watched.kernel("phases"), (1,), (4,), (np.arange(4, dtype=np.int32),), order="random", seed=seed
            )
            .barriers[0]
            .threads
        )
        for seed in range(20)
    }
    assert len(arrivals) > 10
    assert all(sorted(threads) == [0, 1, 2, 3] for threads in arrivals)


def test_kinds_of_values(watched: cudasim.Module) -> None:
    half, bfloat16 = np.array([0.1], np.float16), np.array([0x3DCD], np.uint16)
    trace = cudasim.trace(watched.kernel("kinds"), (1,), (1,), (half, bfloat16))
    found = {name: trace.values(name)[0][0] for name in ("half", "bfloat16", "double", "long", "bool", "unsigned")}
    assert found == {
        "half": float(half[0]),
        "bfloat16": float(np.uint32(0x3DCD0000).view(np.float32)),
        "double": 0.1,
        "long": 2**62 + 1,
        "bool": 1,
        "unsigned": 2**32 - 1,
    }
    assert [type(found[name]) for name in ("double", "long")] == [float, int]


def test_the_page(watched: cudasim.Module) -> None:
    x = np.arange(8, dtype=np.int32)
    x[1] = 0
    before, barrier, after = (line("phases", text) for text in ('WATCH("before"', "__syncthreads", 'WATCH("after"'))
    assert str(cudasim.trace(watched.kernel("phases"), (2,), (4,), (x,))) == (
        "block (0, 0, 0) of phases: 4 threads, ascending\n"
        f"watched.cu:{before}   before         0-1: 0  2: 2  3: 3\n"
        f"watched.cu:{barrier}   __syncthreads  0-3\n"
        f"watched.cu:{after}  after          0: 3  1: 2  2-3: 0"
    )


def test_warps_meet_in_shuffles(watched: cudasim.Module) -> None:
    x = np.arange(64, dtype=np.int32)
    trace = cudasim.trace(watched.kernel("warp_sum"), (1,), (64,), (x,), order="descending")
    shuffle = line("warp_sum", "__shfl_xor_sync")
    assert [(barrier.line, barrier.operation, barrier.complete) for barrier in trace.barriers] == [
        (shuffle, "__shfl_xor_sync", True)
    ] * 10
    assert {tuple(sorted(barrier.threads)) for barrier in trace.barriers} == {tuple(range(32)), tuple(range(32, 64))}
    assert f"watched.cu:{shuffle}  __shfl_xor_sync  " in str(trace)
    assert "0-31 (5 times)" in str(trace)
    # after the first exchange a lane has its own and that of the lane 16 further; after the last, all of its warp
    assert trace.values("sum")[40][0] == 40 + 56
    assert trace.values("sum")[40][-1] == sum(range(32, 64))


def test_a_failure_brings_the_trace_so_far() -> None:
    kernel = compiled("mistakes.cu").kernel("deadlock")
    with pytest.raises(cudasim.KernelError, match=r"^deadlock: deadlock in block \(0,0,0\)") as error:
        cudasim.trace(kernel, (1,), (64,), (np.zeros(64, np.float32),))
    barrier, warp = (line_in("mistakes.cu", "deadlock", text) for text in ("__syncthreads", "__syncwarp"))
    assert error.value.__notes__ == [
        "block (0, 0, 0) of deadlock: 64 threads, ascending\n"
        f"mistakes.cu:{barrier}  __syncthreads  0-39 of 64, then no more\n"
        f"mistakes.cu:{warp}  __syncwarp     40-63 of 64, then no more"
    ]


def test_a_launch_after_a_trace_keeps_no_diary(watched: cudasim.Module) -> None:
    kernel = watched.kernel("phases")
    x = np.arange(4, dtype=np.int32)
    assert cudasim.trace(kernel, (1,), (4,), (x,)).steps
    assert kernel.run((1,), (4,), (x,), 0, cudasim.Schedule())[1] == []


def test_there_must_be_such_a_block(watched: cudasim.Module) -> None:
    message = "phases: there is no block (2, 0, 0) in a grid of (2, 1, 1)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cudasim.trace(watched.kernel("phases"), (2,), (4,), (np.arange(8, dtype=np.int32),), block_index=(2, 0, 0))


def test_no_trace_under_the_sanitizers() -> None:
    with pytest.raises(ValueError, match=r"^reverse: a module with sanitize=True cannot be traced; make one without$"):
        cudasim.trace(sanitized("mistakes.cu").kernel("reverse"), (1,), (64,), (np.zeros(64, np.float32),))
