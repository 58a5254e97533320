"""Every registered operation through the checks of ``minitl.testing``: fixed shapes, and whatever Hypothesis draws."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from drawn import cases
from fused_cases import VARIANTS
from hypothesis import given, settings
from op_cases import SHAPES, Case, Shape, Variant

from minitl import Tensor, ops, testing
from minitl.testing.properties import Use, check_layouts

# for every operation 200 points, in the long profile of conftest.py 1,000, in the quick one 20
EXAMPLES = min(2 * settings.default.max_examples, 1000)
BOTH = [
    pytest.param(variant, shape, id=f"{variant}-{shape}")
    for variant in VARIANTS
    for shape in SHAPES
    if variant.takes(shape)
]
LAYOUT_NAMES = [name for name in testing.LAYOUTS if name != "contiguous"]
# 64 terms of the longest sum here times float64's 1.1e-16, and ten times that for the functions' own rounding
ROUNDING = 1e-13


def make(variant: Variant, shape: Shape, seed: int = 0) -> Case:
    return variant.build(shape, np.random.default_rng([seed, zlib.crc32(str(variant).encode())]))


def close(actual: Any, wanted: Any) -> None:
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert actual.shape == wanted.shape
    assert actual.dtype == wanted.dtype
    np.testing.assert_allclose(actual, wanted, rtol=ROUNDING, atol=ROUNDING)


def variants_of(name: str) -> list[Variant]:
    return [variant for variant in VARIANTS if variant.op == name]


def test_every_operation_has_cases() -> None:
    assert {variant.op for variant in VARIANTS} == set(ops.OPS)
    assert len({str(variant) for variant in VARIANTS}) == len(VARIANTS), "two variants of one name"


def test_every_operation_meets_25_shapes_and_8_layouts() -> None:
    for name in ops.OPS:
        taken = [shape for shape in SHAPES if any(variant.takes(shape) for variant in variants_of(name))]
        assert len(taken) >= 25, name
    for variant in VARIANTS:
        assert sum(variant.takes(shape) for shape in SHAPES) >= 8, variant
    assert len(LAYOUT_NAMES) >= 8


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


@pytest.mark.parametrize("name", ops.OPS)
def test_valid_function(name: str) -> None:
    """All properties of ``assert_valid_function``, over variants, shapes, values, and indices, labels or masks."""

    def call(*tensors: Tensor, case: Case) -> Tensor:
        return case.call(*tensors)

    call.__qualname__ = name
    drawn = cases(variants_of(name)).map(lambda case: (*case.arrays, {"case": case}))
    testing.assert_valid_function(call, drawn, max_examples=EXAMPLES, keeps_dtype=name != "astype")


@pytest.mark.parametrize("name", ops.OPS)
def test_value_anywhere(name: str) -> None:
    @settings(max_examples=EXAMPLES // 8)
    @given(case=cases(variants_of(name)))
    def value(case: Case) -> None:
        close(case.call(*(Tensor(array) for array in case.arrays)).numpy(), case.gold(*case.arrays))

    value()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_memory_layout_changes_nothing(variant: Variant) -> None:
    """Arguments, and the gradient that arrives, lie in memory in other ways; values and gradients stay.

    Each shape meets three of the layouts, and so does each of the points of ``test_valid_function``.
    """
    for number, shape in enumerate(shape for shape in SHAPES if variant.takes(shape)):
        case = make(variant, shape)
        layouts = [LAYOUT_NAMES[(3 * number + i) % len(LAYOUT_NAMES)] for i in range(3)]
        check_layouts(Use(case.call, f"{variant} at {shape}", case.arrays), layouts)


def run(case: Case, arrays: list[np.ndarray], weight: np.ndarray) -> list[np.ndarray]:
    leaves = [Tensor(array, requires_grad=True) for array in arrays]
    result = case.call(*leaves)
    result.backward(Tensor(weight))
    return [result.numpy(), *(leaf.grad.numpy() for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant.op != "astype"], ids=str)
def test_float32_stays_float32(variant: Variant) -> None:
    """A float64 constant inside an operation would promote; the result must be float64's to float32's rounding."""
    shape = next(shape for shape in [(2, 3), (3,), (2, 3, 2)] if variant.takes(shape))
    case = make(variant, shape)
    arrays = [array.astype(np.float32) for array in case.arrays]
    weight = np.random.default_rng(1).standard_normal(np.shape(case.gold(*case.arrays)))
    actual = run(case, arrays, np.asarray(weight, dtype=np.float32))
    wanted = run(case, [array.astype(np.float64) for array in arrays], np.asarray(weight))
    assert len(actual) == 1 + len(arrays)
    for one, reference in zip(actual, wanted, strict=True):
        assert one.dtype == np.float32
        # sums of at most 14 terms of size ~1: a few float32 roundings (6e-8) of the largest
        np.testing.assert_allclose(one, reference, rtol=0, atol=3e-6 * max(1.0, np.abs(reference).max()))
