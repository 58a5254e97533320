"""erf, erfc and the normal distribution against the C library's, with a small relative error everywhere.

The tolerances count float roundings (eps each). exp(-z^2) turns the rounding of z^2, half an eps of it, into a relative
error of z^2 / 2 eps, and exp itself rounds; so the tails are allowed 4 eps (1 + 2 z^2).
"""

from __future__ import annotations

import math
from typing import Any

import gold
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.kernels.special import erf, erfc, normal_distribution

# where erfc(x) leaves the normal numbers: 26.5 in float64, 9.1 in float32
TAILS = {"float32": 9.0, "float64": 26.0}
each_dtype = pytest.mark.parametrize("dtype", TAILS)


def relative(actual: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.abs(actual.astype(np.float64) / wanted - 1)


@each_dtype
def test_erf(dtype: str) -> None:
    tiny = 10.0 ** -np.arange(1.0, 37.0)
    x = np.concatenate([np.linspace(-7, 7, 2001), tiny, -tiny]).astype(dtype)
    x = x[x != 0]
    assert relative(erf(x), gold.each(math.erf, x)).max() < 4 * np.finfo(dtype).eps
    assert erf(np.zeros(1, dtype))[0] == 0.0
    np.testing.assert_array_equal(erf(-x), -erf(x))


@each_dtype
def test_erfc(dtype: str) -> None:
    x = np.linspace(-TAILS[dtype], TAILS[dtype], 4001).astype(dtype)
    allowed = 4 * np.finfo(dtype).eps * (1 + 2 * np.maximum(x, 0).astype(np.float64) ** 2)
    assert (relative(erfc(x), gold.each(math.erfc, x)) < allowed).all()


@each_dtype
def test_normal_distribution_and_density(dtype: str) -> None:
    """u^2 / 2 takes the place of z^2, so the tails are allowed 4 eps (1 + u^2)."""
    edge = TAILS[dtype] * math.sqrt(2)
    u = np.linspace(-edge, edge, 4001).astype(dtype)
    distribution, density = normal_distribution(u)
    square = u.astype(np.float64) ** 2
    allowed = 4 * np.finfo(dtype).eps * (1 + np.where(u < 0, square, 0))
    wanted = gold.each(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)), u)
    assert (relative(distribution, wanted) < allowed).all()
    wanted = gold.each(lambda v: math.exp(-v * v / 2) / math.sqrt(2 * math.pi), u)
    assert (relative(density, wanted) < 4 * np.finfo(dtype).eps * (1 + square)).all()


@given(st.floats(allow_nan=False))
def test_any_float(x: float) -> None:
    """No overflow, no warning, the right limits; 1e-12 is 4 eps (1 + 2 z^2) at z = 26, rounded up."""
    assert erf(np.array([x]))[0] == pytest.approx(math.erf(x), rel=1e-15)  # 4 eps
    assert erfc(np.array([x]))[0] == pytest.approx(math.erfc(x), rel=2e-12, abs=5e-324 * 2**52)  # subnormal below
    assert normal_distribution(np.array([x]))[0][0] == pytest.approx(
        0.5 * math.erfc(-x / math.sqrt(2)), rel=2e-12, abs=2e-308
    )


@each_dtype
def test_infinities_and_nan(dtype: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan], dtype)
    assert erf(x)[:2].tolist() == [1.0, -1.0]
    assert erfc(x)[:2].tolist() == [0.0, 2.0]
    distribution, density = normal_distribution(x)
    assert distribution[:2].tolist() == [1.0, 0.0]
    assert density[:2].tolist() == [0.0, 0.0]
    for result in (erf(x), erfc(x), distribution, density):
        assert np.isnan(result[2])


@each_dtype
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
def test_shape_and_dtype_stay(dtype: str, shape: Any) -> None:
    x = np.full(shape, 0.5, dtype)
    for result in (erf(x), erfc(x), *normal_distribution(x)):
        assert np.shape(result) == shape
        assert result.dtype == dtype
