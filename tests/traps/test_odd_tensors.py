"""Integers, booleans, arrays without elements: NumPy's answer or an error, never a NaN, a warning or a wrong dtype."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fused_cases import VARIANTS
from op_cases import Variant

from minitl import Tensor, ops
from minitl.tensor import DTYPES

SHAPES = [(2, 3), (3,), (2, 3, 2)]


def whole_number_cases() -> list[Any]:
    dtypes = ("int64", "int8", "uint8", "bool")
    return [pytest.param(variant, dtype, id=f"{variant}-{dtype}") for variant in VARIANTS for dtype in dtypes]


@pytest.mark.parametrize(("variant", "dtype"), whole_number_cases())
def test_whole_numbers(variant: Variant, dtype: str) -> None:
    """Each operation of the table on whole numbers from 0 to 3 (warnings are errors here)."""
    random = np.random.default_rng(zlib.crc32(str(variant).encode()))
    case = variant.build(next(shape for shape in SHAPES if variant.takes(shape)), random)
    arrays = [random.integers(0, 4, array.shape).astype(dtype) for array in case.arrays]
    try:
        result = case.call(*(Tensor(array) for array in arrays))
    except TypeError:
        return
    assert result.dtype in DTYPES
    assert not result.requires_grad
    np.testing.assert_array_equal(result.numpy(), case.gold(*arrays))


def test_most_operations_refuse_whole_numbers_or_keep_them() -> None:
    """The test above would pass if everything were refused."""
    x = Tensor(np.array([[3, 0], [1, 2]]))
    results = [x + x, x - 1, x * x, -x, abs(x), x**2, x @ x, x.sum(), x.max(axis=0), x[0], x.T, ops.relu(x)]
    assert {result.dtype for result in results} == {np.dtype("int64")}
    assert (x @ x).numpy().tolist() == [[9, 0], [5, 4]]


@pytest.mark.parametrize("number", [300, -1])
def test_numbers_that_do_not_fit_are_refused(number: int) -> None:
    with pytest.raises(OverflowError, match=f"{number} out of bounds for uint8"):
        Tensor(np.array([1, 2], np.uint8)) + number


@pytest.mark.parametrize("join", [ops.concatenate, ops.stack])
def test_joining_promotes_nothing_silently(join: Callable[[list[Tensor]], Tensor]) -> None:
    """Either refused, or float32 with a gradient that comes back."""
    x = Tensor([1.0], requires_grad=True)
    try:
        result = join([Tensor(np.array([1])), x])
    except TypeError:
        return
    assert result.dtype == np.float32
    result.sum().backward()
    assert x.grad is not None


NOTHING: dict[str, tuple[Callable[[Tensor], Tensor], Any]] = {
    # of a (0, 3) tensor: the answer, or the error
    "sum": (lambda x: x.sum(axis=0), np.zeros(3)),
    "sum of rows": (lambda x: x.sum(axis=1), np.zeros(0)),
    "mean": (lambda x: x.mean(axis=0), ValueError),
    "mean of rows": (lambda x: x.mean(axis=1), np.zeros(0)),
    "max": (lambda x: x.max(), ValueError),
    "min": (lambda x: x.min(axis=0), ValueError),
    "argmax": (lambda x: x.argmax(axis=0), ValueError),
    "softmax": (ops.softmax, np.zeros((0, 3))),
    "softmax of no columns": (lambda x: ops.softmax(x.T), ValueError),
    "gelu": (ops.gelu, np.zeros((0, 3))),
    "layer norm": (lambda x: ops.layer_norm(x, x.sum(axis=0), x.sum(axis=0), eps=1e-5), np.zeros((0, 3))),
    "layer norm of no columns": (lambda x: ops.layer_norm(x.T, x[:, 0], x[:, 0], eps=1e-5), ValueError),
    "linear": (lambda x: ops.linear(x, Tensor(np.ones((2, 3)))), np.zeros((0, 2))),
    "linear of no columns": (lambda x: ops.linear(x.T, Tensor(np.ones((2, 0)))), np.zeros((3, 2))),
    "product": (lambda x: x.T @ x, np.zeros((3, 3))),
    "cross entropy": (lambda x: ops.cross_entropy(x, np.zeros(0, np.int64)), np.zeros(())),
    "cross entropy of no classes": (lambda x: ops.cross_entropy(x.T, np.zeros(3, np.int64)), ValueError),
    "embedding of no ids": (lambda x: ops.embedding(x, np.zeros(0, np.int64)), np.zeros((0, 3))),
    "embedding of no rows": (lambda x: ops.embedding(x, np.zeros(1, np.int64)), ValueError),
    "attention of no tokens": (lambda x: ops.attention(x, x, x, np.array([0, 0]), heads=1), ValueError),
    "attention of no columns": (lambda x: ops.attention(x.T, x.T, x.T, np.array([0, 3]), heads=1), ValueError),
    "scatter": (lambda x: ops.scatter_rows(x, np.zeros(0, np.int64), 2), np.zeros((2, 3))),
    "dropout": (lambda x: ops.dropout(x, 0.5), np.zeros((0, 3))),
    "join": (lambda x: ops.concatenate([x, x]), np.zeros((0, 3))),
    "erf": (ops.erf, np.zeros((0, 3))),
}


@pytest.mark.parametrize("name", NOTHING)
def test_nothing(name: str) -> None:
    """Of no elements there is a sum and no mean; gradients have the shape of the nothing they belong to."""
    call, wanted = NOTHING[name]
    x = Tensor(np.zeros((0, 3)), requires_grad=True)
    if wanted is ValueError:
        with pytest.raises(ValueError, match=r"\w+ .*\w+"):
            call(x)
        return
    result = call(x)
    assert result.shape == wanted.shape
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result.numpy(), wanted)
    result.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 3)
