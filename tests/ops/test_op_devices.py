"""Every operation where CUDA kernels compute: the values and gradients of the CPU, and of finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from fused_cases import VARIANTS
from op_cases import SHAPES, Case, Variant
from simulator import DEVICE, here, needs_device

from minitl import Tensor

pytestmark = needs_device


def run(case: Case, dtype: str, device: str) -> list[np.ndarray]:
    """Return the value and the gradients."""
    leaves = [Tensor(array.astype(dtype), requires_grad=True, device=device) for array in case.arrays]
    result = case.call(*leaves)
    weight = np.random.default_rng(1).standard_normal(result.shape)
    result.backward(Tensor(np.asarray(weight, result.dtype), device=device))
    return [here(tensor.array) for tensor in [result, *(leaf.grad for leaf in leaves)] if tensor is not None]


# Sums of up to 100 terms in another order, and other polynomials for exp, tanh and erf
TOLERANCES = {"float64": 1e-11, "float32": 2e-5}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_equal_to_the_cpu(variant: Variant, dtype: str) -> None:
    shapes = [shape for shape in SHAPES if variant.takes(shape)]
    for shape in shapes if DEVICE == "cuda" else shapes[:: max(1, len(shapes) // 5)]:
        case = variant.build(shape, np.random.default_rng(0))
        for found, wanted in zip(run(case, dtype, DEVICE), run(case, dtype, "cpu"), strict=True):
            assert found.dtype == wanted.dtype
            assert found.shape == wanted.shape
            np.testing.assert_allclose(
                found, wanted, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype] * (1 + np.abs(wanted).max(initial=0))
            )


@pytest.mark.parametrize(
    "variant", [variant for variant in VARIANTS if variant.op in ("linear", "attention", "layer_norm")], ids=str
)
def test_gradients_by_finite_differences(variant: Variant) -> None:
    """In float64, along one random direction for each argument: central differences err by the square of their step."""
    step, random = 1e-4, np.random.default_rng(2)
    shape = next(shape for shape in reversed(SHAPES) if variant.takes(shape) and 0 not in shape)
    case = variant.build(shape, np.random.default_rng(0))
    _, *gradients = run(case, "float64", DEVICE)
    leaves = [Tensor(array, device=DEVICE) for array in case.arrays]
    weight = np.random.default_rng(1).standard_normal(case.call(*leaves).shape)
    for number, (array, gradient) in enumerate(zip(case.arrays, gradients, strict=True)):
        direction = random.standard_normal(array.shape)
        values = []
        for sign in (1, -1):
            moved = Tensor(array + sign * step * direction, device=DEVICE)
            values.append((here(case.call(*leaves[:number], moved, *leaves[number + 1 :]).array) * weight).sum())
        slope = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-6)
