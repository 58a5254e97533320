"""CUDA kernels on bfloat16 and float16: the result in float32, rounded once."""

from __future__ import annotations

import numpy as np
import pytest
from simulator import needs_compiler

from minitl.kernels.dropout import cuda as dropout
from minitl.kernels.launch import bfloat16

SHORT = [bfloat16(), np.dtype(np.float16)]


def normal(*shape: int, dtype: np.dtype, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(dtype)


@needs_compiler
@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("rows", [None, np.array([7, 2, 9])])
def test_dropout(dtype: np.dtype, rows: np.ndarray | None) -> None:
    x = normal(3, 13, dtype=dtype)
    options = {"probability": 0.3, "seed": 5, "call": 6, "rows": rows}
    wanted = dropout.forward(x.astype(np.float32), **options).astype(dtype)
    y = dropout.forward(x, **options)
    assert y.dtype == dtype
    assert (y == 0).any()
    np.testing.assert_array_equal(y.view(np.uint16), wanted.view(np.uint16))
