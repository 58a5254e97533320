"""Memory that nobody has written, that belongs to nobody, or that lies askew."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cudasim_files import compiled, line_in, sanitized
from simulator import needs_compiler

from minitl.kernels import cudasim, program
from minitl.kernels.layer_norm import cuda as layer_norm

pytestmark = needs_compiler


def run(name: str, *arguments: Any, file: str = "mistakes.cu", grid: int = 1, block: int = 64, **options: Any) -> None:
    compiled(file).kernel(name)((grid,), (block,), arguments, **options)


def fails(name: str, message: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(cudasim.KernelError, match=f"^{re.escape(f'{name}: {message}')}$"):
        run(name, *arguments, **options)


# ---- shared memory ---------------------------------------------------------------------------------------------------


def test_dynamic_shared_memory_is_poisoned() -> None:
    x = np.zeros(64, np.float32)
    run("read_dynamic_unwritten", x, shared_memory=256)
    assert np.isnan(x).all()


@pytest.mark.parametrize("block_order", ["ascending", "descending"])
def test_static_shared_memory_is_poisoned_before_each_block(block_order: Any) -> None:
    x, y = np.zeros(192, np.float32), np.zeros(192, np.int32)
    for _ in range(2):  # nor does one launch see what another has left
        run("read_static_unwritten", x, y, grid=3, block_order=block_order)
        assert np.isnan(x).all()
        np.testing.assert_array_equal(y, -1)


def test_a_write_behind_the_dynamic_shared_memory_is_seen() -> None:
    run("write_behind_dynamic", np.zeros(64, np.float32), shared_memory=256)
    fails(
        "write_behind_dynamic",
        "block (0,0,0) has written to byte 128 of dynamic shared memory; the launch asked for 128 bytes",
        np.zeros(64, np.float32),
        shared_memory=128,
    )


def test_local_variables_that_overflow_the_stack_are_seen() -> None:
    fails(
        "deep_stack",
        "thread (0,0,0) of block (0,0,0) has more local variables than the simulator's 256 KiB a thread",
        np.zeros(1, np.float32),
        block=1,
    )


# ---- asynchronous copies and ldmatrix --------------------------------------------------------------------------------


def test_a_copy_that_is_not_waited_for_has_not_landed() -> None:
    x, y = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
    run("copy_without_wait", x, y, file="pieces.cu", block=32)
    assert np.isnan(y).all()
    run("copy_without_wait", x, y, file="pieces.cu", block=32, order="warps")  # the earliest moment is allowed, too
    np.testing.assert_array_equal(y, x)
    run("copy_without_wait", x, y, file="pieces.cu", block=32, order="random")
    assert 0 < np.isnan(y).sum() < len(y)


def test_aligned_copies_land() -> None:
    x, y = np.arange(132, dtype=np.float32), np.zeros(32, np.float32)
    run("copy_unaligned", x, y, np.int32(4), np.int32(4), file="pieces.cu", block=32)
    # row[4 + 4 i] is x[4 + 4 i]; what stands before is unwritten
    np.testing.assert_array_equal(y, np.where(np.arange(32) < 4, np.nan, x[:32]))


@pytest.mark.parametrize(("start", "end", "which"), [(1, 0, "source"), (0, 2, "destination")])
def test_unaligned_copies(start: int, end: int, which: str) -> None:
    fails(
        "copy_unaligned",
        f"pieces.cu:{line_in('pieces.cu', 'copy_unaligned', 'copy_async_16')}: copy_async_16 in thread (0,0,0) of "
        f"block (0,0,0): the {which} is not aligned to 16 bytes",
        np.zeros(136, np.float32),
        np.zeros(32, np.float32),
        np.int32(start),
        np.int32(end),
        file="pieces.cu",
        block=32,
    )


def test_a_copy_to_global_memory() -> None:
    fails(
        "copy_to_global",
        f"pieces.cu:{line_in('pieces.cu', 'copy_to_global', 'copy_async_16')}: copy_async_16 in thread (0,0,0) of "
        "block (0,0,0): the destination is not in shared memory",
        np.zeros(4, np.float32),
        np.zeros(4, np.float32),
        file="pieces.cu",
        block=1,
    )


def test_unaligned_ldmatrix() -> None:
    fails(
        "load_matrices<false>",
        f"pieces.cu:{line_in('pieces.cu', 'load_matrices', 'ldmatrix_x4<transpose>')}: ldmatrix_x4 in thread (31,0,0) "
        "of block (0,0,0): the address of the row is not aligned to 16 bytes",
        np.zeros(256, np.uint16),
        np.zeros((32, 4), np.uint32),
        np.int32(1),
        file="pieces.cu",
        block=32,
    )


def test_ldmatrix_of_global_memory() -> None:
    x = np.zeros(1024, np.uint16)
    skipped = -x.ctypes.data % 16 // 2
    fails(
        "load_matrices_from_global",
        f"pieces.cu:{line_in('pieces.cu', 'load_matrices_from_global', 'ldmatrix_x4<false>')}: ldmatrix_x4 in thread "
        "(0,0,0) of block (0,0,0): the row is not in shared memory",
        x[skipped:],
        np.zeros(32, np.uint32),
        file="pieces.cu",
        block=32,
    )


def test_half_a_warp_cannot_multiply() -> None:
    with pytest.raises(
        cudasim.KernelError, match=r"mma_m16n8k16 in thread .* the mask 0xffffffff names lane 16, which"
    ):
        run("half_a_warp_multiplies", np.zeros(32, np.float32), file="pieces.cu", block=32, order="descending")


# ---- under the sanitizers --------------------------------------------------------------------------------------------


def found(name: str, *arguments: Any, block: int = 64, **options: Any) -> cudasim.KernelError:
    kernel = sanitized("mistakes.cu").kernel(name)
    before = [np.array(argument) for argument in arguments]
    with pytest.raises(cudasim.KernelError) as caught:
        kernel((1,), (block,), arguments, **options)
    for argument, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(argument, copy, err_msg="a launch that failed has written")
    return caught.value


def place(name: str, text: str) -> str:
    return f"mistakes.cu:{line_in('mistakes.cu', name, text)}"


def test_a_sanitized_kernel_computes_the_same() -> None:
    x = np.arange(64, dtype=np.float32)
    for order in ("ascending", "descending", "random"):
        sanitized("mistakes.cu").kernel("reverse")((1,), (64,), (x,), order=order)
    np.testing.assert_array_equal(x, np.arange(63, -1, -1))


def test_outside_a_shared_array() -> None:
    error = found("outside_shared", np.zeros(64, np.float32), np.int32(3))
    assert str(error).startswith("outside_shared: ")
    assert "global-buffer-overflow" in str(error)
    assert place("outside_shared", "first[") in str(error)
    assert "AddressSanitizer" in error.report


def test_outside_a_shared_array_by_its_index() -> None:
    error = found("outside_shared_index", np.zeros(64, np.float32), np.int32(3))
    assert f"{place('outside_shared_index', 'row[threadIdx.x + offset]')}:" in str(error)
    assert "index 64 out of bounds for type 'float" in str(error)


def test_outside_an_argument() -> None:
    error = found("outside_global", np.zeros(64, np.float32), np.int32(1))
    assert "heap-buffer-overflow" in str(error)
    assert place("outside_global", "x[threadIdx.x + offset]") in str(error)


def test_outside_dynamic_shared_memory_even_reading() -> None:
    error = found("read_dynamic_unwritten", np.zeros(64, np.float32), shared_memory=252)
    assert "heap-buffer-overflow" in str(error)
    assert place("read_dynamic_unwritten", "row[threadIdx.x]") in str(error)


def test_a_misaligned_vector() -> None:
    x, y = np.zeros(64, np.float32), np.zeros(1, np.float32)
    error = found("misaligned_vector", x, y, np.int32(1), block=1)
    assert "misaligned address" in str(error)
    assert "which requires 16 byte alignment" in str(error)
    assert place("misaligned_vector", "load_pack") in str(error), "the helper's line alone does not help"
    sanitized("mistakes.cu").kernel("misaligned_vector")((1,), (1,), (x, y, np.int32(4)))


def test_the_simulators_own_findings_come_from_there_too() -> None:
    error = found("deadlock", np.zeros(64, np.float32))
    assert str(error).startswith(
        "deadlock: deadlock in block (0,0,0): 64 of 64 threads wait for others that never come: "
    )
    assert error.report == ""


def test_one_array_twice_is_one_array_there_too() -> None:
    x = np.zeros(4, np.float32)
    kernel = sanitized("mistakes.cu").kernel("write_both")
    kernel((1,), (1,), (x, x))
    np.testing.assert_array_equal(x, [1, 2, 0, 0])
    with pytest.raises(
        ValueError, match=r"^sanitize=True gives every array memory of its own, and two of these arrays ov"
    ):
        kernel((1,), (1,), (x, x[1:]))


def test_a_stack_that_is_used_again_bears_no_old_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sanitizer marks what lies around a thread's arrays; in random order the next thread's lie elsewhere."""
    monkeypatch.setattr(program, "SANITIZE", True)
    monkeypatch.setattr(layer_norm.PROGRAM, "_libraries", {})
    x, ones = np.random.default_rng(0).normal(size=(53, 32)).astype(np.float32), np.ones(32, np.float32)
    options = {"eps": 1e-5, "dropout": 0.1, "seed": 1, "call": 2}
    wanted = layer_norm.forward(x, x, ones, ones, **options)
    with cudasim.schedule(order="random"):
        for one, other in zip(layer_norm.forward(x, x, ones, ones, **options), wanted, strict=True):
            np.testing.assert_array_equal(one, other)
