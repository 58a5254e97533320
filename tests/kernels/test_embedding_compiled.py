"""Embedding compiled: the reference's bits, forward and backward, for small calls and on several threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minitl.kernels.embedding import cpu, reference


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tables", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("tokens", "columns"), [(5, 3), (300, 129)])
def test_sums_of_rows(tokens: int, columns: int, tables: int, dtype: Any) -> None:
    """Added in the order of the tables, also where there are more than are taken in one pass."""
    random = np.random.default_rng(tables)
    heights = [3 + number for number in range(tables)]
    some = [random.standard_normal((height, columns)).astype(dtype) for height in heights]
    indices = [random.integers(0, height, tokens) for height in heights]
    np.testing.assert_array_equal(cpu.forward(some, indices), reference.forward(some, indices))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("padding_index", [None, 0, 1])
@pytest.mark.parametrize(("tokens", "columns"), [(5, 3), (300, 64), (300, 129)])
def test_rows_are_added_in_the_order_of_the_tokens(
    tokens: int, columns: int, padding_index: int | None, dtype: Any
) -> None:
    """Three rows, so that each gets many tokens: any other order would round otherwise."""
    random = np.random.default_rng(0)
    grad_y = random.standard_normal((tokens, columns)).astype(dtype)
    index = random.permutation(tokens) % 3
    start = random.standard_normal((3, columns)).astype(dtype)
    found, wanted = (
        module.backward(grad_y, index, out=start.copy(), padding_index=padding_index) for module in (cpu, reference)
    )
    np.testing.assert_array_equal(found, wanted)
    assert (found != start).all(axis=1).tolist() == [row != padding_index for row in range(3)]
