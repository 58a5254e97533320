"""Every operation's backward against finite differences, its values against plain NumPy, in every memory layout."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from fused_cases import VARIANTS
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import SHAPES, Case, Shape, Variant

from minitl import Tensor, ops, testing

# all 100 of the ordinary profile would be 8,000 gradient checks; the long profile takes all of its own
EXAMPLES = 5 if settings.default.max_examples <= 100 else settings.default.max_examples
BOTH = [
    pytest.param(variant, shape, id=f"{variant}-{shape}")
    for variant in VARIANTS
    for shape in SHAPES
    if variant.takes(shape)
]
# 64 terms of the longest sum here times float64's 1.1e-16, and ten times that for the functions' own rounding
ROUNDING = 1e-13


def make(variant: Variant, shape: Shape, seed: int = 0) -> Case:
    return variant.build(shape, np.random.default_rng([seed, zlib.crc32(str(variant).encode())]))


def close(actual: Any, wanted: Any) -> None:
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert actual.shape == wanted.shape
    assert actual.dtype == wanted.dtype
    np.testing.assert_allclose(actual, wanted, rtol=ROUNDING, atol=ROUNDING)


def test_every_operation_has_cases() -> None:
    assert {variant.op for variant in VARIANTS} == set(ops.OPS)


def test_every_variant_is_run() -> None:
    counts = {str(variant): sum(variant.takes(shape) for shape in SHAPES) for variant in VARIANTS}
    assert len(counts) == len(VARIANTS), "two variants of one name"
    assert min(counts.values()) >= 2, counts


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_operation_of_the_variant_is_what_runs(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case filed under the wrong name would leave an operation unchecked."""
    ran = []
    function = ops.OPS[variant.op]
    original = function.forward
    monkeypatch.setattr(function, "forward", lambda self, *a, **o: ran.append(self) or original(self, *a, **o))
    case = make(variant, next(shape for shape in SHAPES if variant.takes(shape)))
    case.call(*(Tensor(array) for array in case.arrays))
    assert ran


@pytest.mark.parametrize(("variant", "shape"), BOTH)
def test_value_and_gradient(variant: Variant, shape: Shape) -> None:
    case = make(variant, shape)
    close(case.call(*(Tensor(array) for array in case.arrays)).numpy(), case.gold(*case.arrays))
    testing.check_gradients(case.call, *case.arrays)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_value_and_gradient_anywhere(variant: Variant, data: st.DataObject) -> None:
    sizes = st.sampled_from([1, 2, 3, 4])
    fewest, most = variant.dimensions
    shape = data.draw(st.lists(sizes, min_size=fewest, max_size=most).map(tuple), label="shape")
    case = make(variant, shape, data.draw(st.integers(0, 2**32), label="seed"))
    close(case.call(*(Tensor(array) for array in case.arrays)).numpy(), case.gold(*case.arrays))
    testing.check_gradients(case.call, *case.arrays)


def transposed(array: np.ndarray) -> np.ndarray:
    return np.array(array.T, order="C").T


def strided(array: np.ndarray) -> np.ndarray:
    """Every second column of a wider array, the others NaN, so that reading past the strides shows."""
    if array.ndim == 0:
        return array
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan)
    wide[..., ::2] = array
    return wide[..., ::2]


def backwards(array: np.ndarray) -> np.ndarray:
    return np.flip(np.flip(array).copy()) if array.ndim else array


def repeated(array: np.ndarray) -> np.ndarray:
    """The first row for all rows, with stride 0."""
    return np.broadcast_to(array[:1], array.shape) if array.ndim else np.broadcast_to(array, ())


LAYOUTS = [transposed, strided, backwards, repeated]


def run(case: Case, arrays: list[np.ndarray], weight: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    leaves = [Tensor(array, requires_grad=True) for array in arrays]
    result = case.call(*leaves)
    result.backward(Tensor(weight))
    gradients = []
    for leaf in leaves:
        assert leaf.grad is not None
        gradients.append(leaf.grad.numpy())
    return result.numpy(), gradients


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_memory_layout_changes_nothing(variant: Variant, layout: Any) -> None:
    """Arguments, and the gradient that arrives, lie in memory in other ways; values and gradients stay."""
    for shape in SHAPES:
        if not variant.takes(shape):
            continue
        case = make(variant, shape)
        arrays = [layout(array) for array in case.arrays]
        weight = layout(np.asarray(np.random.default_rng(1).standard_normal(np.shape(case.gold(*case.arrays)))))
        value, gradients = run(case, arrays, weight)
        plain_value, plain_gradients = run(case, [array.copy() for array in arrays], weight.copy())
        close(value, plain_value)
        for gradient, plain, array in zip(gradients, plain_gradients, arrays, strict=True):
            assert gradient.shape == array.shape
            close(gradient, plain)


def test_layouts_are_what_they_say() -> None:
    array = np.arange(6.0).reshape(2, 3)
    for layout in LAYOUTS:
        assert not layout(array).flags.c_contiguous
    assert repeated(array).strides[0] == 0
    assert all(stride < 0 for stride in backwards(array).strides)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant.op != "astype"], ids=str)
def test_float32_stays_float32(variant: Variant) -> None:
    """A float64 constant inside an operation would promote; the result must be float64's to float32's rounding."""
    shape = next(shape for shape in [(2, 3), (3,), (2, 3, 2)] if variant.takes(shape))
    case = make(variant, shape)
    arrays = [array.astype(np.float32) for array in case.arrays]
    weight = np.random.default_rng(1).standard_normal(np.shape(case.gold(*case.arrays)))
    value, gradients = run(case, arrays, np.asarray(weight, dtype=np.float32))
    wanted, wanted_gradients = run(case, [array.astype(np.float64) for array in arrays], np.asarray(weight))
    for actual, reference in zip([value, *gradients], [wanted, *wanted_gradients], strict=True):
        assert actual.dtype == np.float32
        # sums of at most 14 terms of size ~1: a few float32 roundings (6e-8) of the largest
        np.testing.assert_allclose(actual, reference, rtol=0, atol=3e-6 * max(1.0, np.abs(reference).max()))
