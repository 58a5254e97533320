"""NaN and Inf go through every operation as through plain NumPy, and gradients that are not finite are never lost."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from fused_cases import VARIANTS
from op_cases import Case, Variant
from trap_tools import values_and_gradients

from minitl import Tensor, ops

SHAPES = [(3,), (2, 3), (4, 2), (2, 3, 2)]

# where the plain answers cannot say: math.log and math.sqrt refuse -Inf; 1 / (x sqrt(x)) is NaN where IEEE's power is
# 0; and a loss that is written out class by class takes 0 * Inf for a class that is not the target
NOT_DEFINED = {("log", -np.inf), ("sqrt", -np.inf), ("power", -np.inf), ("cross_entropy", -np.inf)}


def cases(variant: Variant) -> Iterator[Case]:
    """The largest two shapes that the variant takes: masks and dropout may hide all of the smallest."""
    taken = [shape for shape in SHAPES if variant.takes(shape)]
    for shape in taken[-2:]:
        yield variant.build(shape, np.random.default_rng(zlib.crc32(str(variant).encode())))


def kinds(array: np.ndarray) -> list[str]:
    """What each element is, in words that compare NaN with NaN."""
    return ["finite" if np.isfinite(value) else str(value) for value in np.asarray(array, np.float64).ravel()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_results_are_not_finite_where_the_plain_answer_is_not(variant: Variant, dtype: str) -> None:
    """NaN, Inf and -Inf in every element of every argument: the same element of the result is finite, NaN or Inf."""
    for case in cases(variant):
        places = [(number, element) for number, array in enumerate(case.arrays) for element in range(array.size)]
        for (number, element), poison in itertools.product(places, (np.nan, np.inf, -np.inf)):
            if (variant.op, poison) in NOT_DEFINED:
                continue
            arrays = [one.copy() for one in case.arrays]
            arrays[number].reshape(-1)[element] = poison
            with np.errstate(all="ignore"):
                found = case.call(*(Tensor(one.astype(dtype)) for one in arrays)).numpy()
                wanted = case.gold(*arrays)
            assert kinds(found) == kinds(wanted), (number, element, poison)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradients_are_not_finite_where_they_must_not_be(variant: Variant) -> None:
    """NaN or Inf arrives at one element: every input that moves this element gets it, by a Jacobian that is finite."""
    reached = False
    for case in cases(variant):
        arrays = list(case.arrays)
        shape = case.call(*(Tensor(array) for array in arrays)).shape
        for element in range(math.prod(shape)):
            upstream = np.zeros(shape)
            upstream.reshape(-1)[element] = 1
            jacobian = values_and_gradients(case.call, arrays, upstream)[1:]
            for poison in (np.nan, np.inf):
                upstream.reshape(-1)[element] = poison
                with np.errstate(all="ignore"):
                    gradients = values_and_gradients(case.call, arrays, upstream)[1:]
                for slope, gradient in zip(jacobian, gradients, strict=True):
                    assert not np.isfinite(gradient[slope != 0]).any(), element
                    reached |= bool((slope != 0).any())
    assert reached != (str(variant) == "power-zero")  # x^0 is 1, whatever x is


def test_minus_infinity_is_a_class_without_probability() -> None:
    """The rows that the table's plain answer cannot judge: a class at -Inf takes no part, and one that is the label
    costs an infinite loss."""
    x = np.array([[0.0, -np.inf, 0.0]])
    loss, gradient = values_and_gradients(lambda x: ops.cross_entropy(x, np.array([0])), [x], np.ones(()))
    assert loss == pytest.approx(np.log(2), rel=1e-15)
    np.testing.assert_allclose(gradient, [[-0.5, 0, 0.5]], rtol=1e-15)  # a rounding or two
    assert ops.cross_entropy(Tensor(x), np.array([1])).item() == np.inf
    p = ops.softmax(Tensor(x)).numpy()
    assert p.tolist() == [[0.5, 0.0, 0.5]]


def test_logarithms_of_what_has_none() -> None:
    with np.errstate(invalid="ignore"):
        for function in (ops.log, ops.sqrt):
            assert np.isnan(function(Tensor([-np.inf, -1.0])).numpy()).all()


@pytest.mark.parametrize("mask", [None, [[True, True, False]]])
def test_a_row_of_minus_infinity_has_no_distribution(mask: list[list[bool]] | None) -> None:
    """Only a mask makes zeros: scores that overflowed give NaN, as they do in attention."""
    chosen = None if mask is None else np.array(mask)
    with np.errstate(invalid="ignore"):
        p = ops.softmax(Tensor(np.full((1, 3), -np.inf)), chosen).numpy()
    assert np.isnan(p[0, :2]).all()


def test_attention_of_scores_that_overflowed_is_nan() -> None:
    q, v = np.ones((2, 1)), np.array([[1.0], [2.0]])
    with np.errstate(invalid="ignore"):
        context = ops.attention(Tensor(q), Tensor(np.full((2, 1), -np.inf)), Tensor(v), np.array([0, 2]), heads=1)
    assert np.isnan(context.numpy()).all()
