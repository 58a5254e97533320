"""Every wrong argument is refused before anything runs, with the kernel, the place and the fix in the message."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cudasim_files import compiled
from simulator import needs_compiler

from minitl.kernels.cudasim.arguments import Parameter, check_arguments, check_shape

pytestmark = needs_compiler
SEGMENT = np.dtype([("offset", np.int64), ("rate", np.float32), ("decay", np.float32)])


def good() -> list[Any]:
    """Arguments of ``many_kinds``; each is a different kind of parameter."""
    segments = np.array([(0, 0, 0), (0, 32, 0)], SEGMENT)
    return [
        np.array([1], np.float32),
        np.zeros(1, np.float16),
        np.array([0x4000], np.uint16),  # 2 in bfloat16
        np.float64(4),
        np.uint64(8),
        np.bool_(True),
        segments,
        np.array([64], np.int8),
    ]


def launch(arguments: list[Any], grid: Any = (1,), block: Any = (1,), **options: Any) -> None:
    compiled("mistakes.cu").kernel("many_kinds")(grid, block, arguments, **options)


def test_right_arguments_arrive() -> None:
    arguments = good()
    launch(arguments)
    assert arguments[1][0] == 1 + 2 + 4 + 8 + 1 + 32 + 64


def test_the_parameters_are_those_of_the_text() -> None:
    wanted = [
        "const float*",
        "__half*",
        "const __nv_bfloat16*",
        "double",
        "unsigned long long",
        "bool",
        "const struct of 16 bytes *",
        "const void*",
    ]
    assert [str(parameter) for parameter in compiled("mistakes.cu").kernel("many_kinds").parameters] == wanted


def test_bfloat16_of_ml_dtypes() -> None:
    """``ml_dtypes`` is no dependency; whoever has it may use its arrays."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the package ml_dtypes is not here")
    arguments = good()
    arguments[2] = np.array([2], ml_dtypes.bfloat16)
    launch(arguments)
    assert arguments[1][0] == 112


def test_none_is_the_null_pointer() -> None:
    kernel = compiled("mistakes.cu").kernel("is_null")
    x = np.full(2, -1, np.int32)
    kernel((1,), (1,), (None, x))
    kernel((1,), (1,), (x, x[1:]))
    np.testing.assert_array_equal(x, [1, 0])


@pytest.mark.parametrize(
    ("place", "value", "error", "message"),
    [
        (0, np.zeros(1), TypeError, "(const float*) got an array of float64; convert it: array.astype(np.float32)"),
        (0, np.zeros(1, ">f4"), TypeError, "(const float*) got an array of >f4; convert it: array.astype(np.float32)"),
        (0, 5, TypeError, "(const float*) must be a NumPy array or None, not int"),
        (0, np.float32(5), TypeError, "(const float*) must be a NumPy array or None, not float32"),
        (
            1,
            np.zeros(1, np.uint16),
            TypeError,
            "(__half*) got an array of uint16; convert it: array.astype(np.float16)",
        ),
        (
            2,
            np.zeros(1, np.float16),
            TypeError,
            "(const __nv_bfloat16*) got an array of float16; pass the 16 bits of each element, dtype uint16, or an "
            "array of ml_dtypes.bfloat16",
        ),
        (
            3,
            4.0,
            TypeError,
            "(double) must be a NumPy scalar, not float; pass np.float64(...) (Python's numbers have no width)",
        ),
        (3, np.float32(4), TypeError, "(double) got float32; pass np.float64(...)"),
        (
            3,
            np.zeros(1),
            TypeError,
            "(double) must be a NumPy scalar, not ndarray; pass np.float64(...) (Python's numbers have no width)",
        ),
        (4, np.int64(4), TypeError, "(unsigned long long) got int64; pass np.uint64(...)"),
        (4, np.uint32(4), TypeError, "(unsigned long long) got uint32; pass np.uint64(...)"),
        (
            5,
            True,
            TypeError,
            "(bool) must be a NumPy scalar, not bool; pass np.bool_(...) (Python's numbers have no width)",
        ),
        (6, np.zeros(2), TypeError, "(const struct of 16 bytes *) got an array of float64; its elements have 8 bytes"),
        (
            0,
            np.zeros((4, 4), np.float32)[:, :2],
            ValueError,
            "(const float*) got strides (16, 4) for shape (4, 2); a kernel sees no strides, so pass "
            "np.ascontiguousarray(array)",
        ),
        (
            1,
            np.frombuffer(bytes(2), np.float16),
            ValueError,
            "(__half*) may be written, and the array is read-only; pass array.copy(), or declare it const",
        ),
        (
            0,
            np.zeros(5, np.uint8)[1:].view(np.float32),  # NumPy's own memory begins at a multiple of 16
            ValueError,
            "(const float*): the memory does not begin at a multiple of 4 bytes; pass array.copy()",
        ),
    ],
)
def test_wrong_arguments(place: int, value: Any, error: Any, message: str) -> None:
    arguments = good()
    arguments[place] = value
    with pytest.raises(error, match=f"^{re.escape(f'many_kinds: argument {place + 1} of 8 {message}')}$"):
        launch(arguments)
    assert arguments[1][0] == 0, "the kernel has run"


@pytest.mark.parametrize("count", [0, 7, 9])
def test_a_wrong_number_of_arguments(count: int) -> None:
    arguments = [*good(), np.int32(0)][:count]
    message = (
        "many_kinds takes 8 arguments (const float*, __half*, const __nv_bfloat16*, double, unsigned long long, bool, "
        f"const struct of 16 bytes *, const void*), not {count}"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        launch(arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"block": (2048,)}, ValueError, "block.x is 2048, and CUDA's limit is 1024"),
        ({"block": (1, 1, 65)}, ValueError, "block.z is 65, and CUDA's limit is 64"),
        (
            {"block": (32, 32, 2)},
            ValueError,
            "block (32, 32, 2) has 2048 threads, and CUDA's limit is 1024; take more blocks",
        ),
        ({"block": (0,)}, ValueError, "block (0, 1, 1) is empty; leave the launch out where there is nothing to do"),
        ({"grid": (0, 4)}, ValueError, "grid (0, 4, 1) is empty; leave the launch out where there is nothing to do"),
        ({"grid": (1, 65536)}, ValueError, "grid.y is 65536, and CUDA's limit is 65535"),
        ({"grid": (2**31,)}, ValueError, "grid.x is 2147483648, and CUDA's limit is 2147483647"),
        ({"grid": (1, 1, 1, 1)}, ValueError, "grid must have one to three numbers, not 4"),
        ({"grid": 5}, TypeError, "grid must be a tuple of one to three integers, not 5"),
        ({"block": (1.0,)}, TypeError, "block must be a tuple of one to three integers, not (1.0,)"),
        (
            {"shared_memory": 227 * 1024 + 1},
            ValueError,
            "shared_memory is 232449 bytes; it must be 0 to 232448 (227 KiB)",
        ),
        ({"shared_memory": -1}, ValueError, "shared_memory is -1 bytes; it must be 0 to 232448 (227 KiB)"),
    ],
)
def test_wrong_sizes(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(f'many_kinds: {message}')}$"):
        launch(good(), **options)


def test_the_largest_sizes_pass() -> None:
    assert check_shape("kernel", (2**31 - 1, 65535, 65535), (1024,), 232448) == (
        (2**31 - 1, 65535, 65535),
        (1024, 1, 1),
    )
    assert check_shape("kernel", [1], (np.int32(4), 4, 64), 0) == ((1, 1, 1), (4, 4, 64))


def test_a_struct_is_passed_by_value_as_a_numpy_record() -> None:
    parameter = Parameter.parse("value struct 16")
    record = np.zeros(1, SEGMENT)[0]
    check_arguments("kernel", [parameter], [record])
    with pytest.raises(TypeError, match=r"^kernel: argument 1 of 1 \(struct of 16 bytes \) got int64; it has 8 bytes$"):
        check_arguments("kernel", [parameter], [np.int64(1)])
    with pytest.raises(
        TypeError, match=r"^kernel: argument 1 of 1 \(struct of 16 bytes \) must be a NumPy scalar, not int "
    ):
        check_arguments("kernel", [parameter], [1])
