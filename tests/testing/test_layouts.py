"""The layouts are what they say: the same values, in memory that an operation might misread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minitl.testing import LAYOUTS
from minitl.testing.layouts import zero_stride

SHAPES = [(), (1,), (5,), (2, 3), (3, 1, 2), (0,), (2, 0)]
DTYPES = ["float64", "float32", "int64", "bool"]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_shape_and_dtype_stay(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    laid_out = LAYOUTS[name](array)
    assert type(laid_out) is np.ndarray
    assert (laid_out.shape, laid_out.dtype) == (array.shape, array.dtype)
    assert not np.may_share_memory(laid_out, array)
    wanted = np.broadcast_to(array[:1], shape) if name == "zero-stride" and shape else array
    np.testing.assert_array_equal(laid_out, wanted)


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("contiguous", lambda array: array.flags.c_contiguous and array.flags.aligned and array.flags.writeable),
        ("fortran", lambda array: array.flags.f_contiguous and not array.flags.c_contiguous),
        ("transposed", lambda array: array.strides[0] == array.itemsize),
        ("sliced", lambda array: array.strides[-1] == 2 * array.itemsize),
        ("block", lambda array: array.strides == (8 * 6 * 5, 8 * 6, 8)),
        ("reversed", lambda array: all(stride < 0 for stride in array.strides)),
        ("zero-stride", lambda array: array.strides[0] == 0),
        ("unaligned", lambda array: array.flags.c_contiguous and not array.flags.aligned),
        ("read-only", lambda array: array.flags.c_contiguous and not array.flags.writeable),
    ],
)
def test_they_are_what_they_say(name: str, holds: Any) -> None:
    assert holds(LAYOUTS[name](np.arange(24.0).reshape(2, 3, 4)))


@pytest.mark.parametrize("name", ["sliced", "block"])
def test_what_lies_between_is_poison(name: str) -> None:
    """Whoever reads the memory as if it were contiguous finds NaN."""
    array = LAYOUTS[name](np.ones((2, 3)))
    start = array.ctypes.data - array.base.ctypes.data
    flat = array.base.reshape(-1)[start // 8 :][: array.size]
    assert np.isnan(flat).any()


def test_all_are_tested_here() -> None:
    assert LAYOUTS["zero-stride"] is zero_stride
    assert len(LAYOUTS) == 9
