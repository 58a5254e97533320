"""Elementary functions of compiled kernels against the C library in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minitl.kernels.compiled import compiled
from minitl.kernels.vector_math import exp, largest, normal_distribution, tanh_distribution, total

EPS = np.finfo(np.float32).eps


@compiled
def each_exp(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = exp(x[i])


@compiled
def each_normal(x, y, z):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i], z[i] = normal_distribution(x[i])


@compiled
def each_tanh(x, y, z):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i], z[i] = tanh_distribution(x[i])


@compiled
def total_and_largest(x):  # type: ignore[no-untyped-def]
    return total(x), largest(x)


def wide(function: object, x: np.ndarray) -> np.ndarray:
    return np.array([function(float(value)) for value in x])  # type: ignore[operator]


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(found - wanted) / np.abs(wanted)))


def test_exp_where_its_value_is_a_normal_float32() -> None:
    """Within 1.2 eps: the polynomial is good to half of one, and the last two operations round."""
    x = np.linspace(-87.2, 88.7, 200_001).astype(np.float32)
    y = np.empty_like(x)
    each_exp(x, y)
    assert relative_error(y, wide(math.exp, x)) < 1.2 * EPS


def test_exp_at_its_ends() -> None:
    x = np.array([-np.inf, -1e30, -104, -88, 0, -0.0, 88.73, 1e30, np.inf, np.nan], np.float32)
    y = np.empty_like(x)
    each_exp(x, y)
    np.testing.assert_array_equal(y, np.array([0, 0, 0, 0, 1, 1, np.inf, np.inf, np.inf, np.nan], np.float32))


def test_exp_of_float64_is_that_of_the_c_library() -> None:
    x = np.linspace(-700, 700, 1001)
    y = np.empty_like(x)
    each_exp(x, y)
    np.testing.assert_array_equal(y, wide(math.exp, x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_distribution(dtype: type) -> None:
    """The tail keeps its relative error down to -12, where ``u * u / 2 = 72`` is rounded before the exponential.

    In float64 there is nothing wider to compare with: both sides round ``z = u / sqrt(2)``, and what that takes away
    counts ``2 z^2 = 144`` times in ``erfc(z)``.
    """
    x = np.linspace(-12, 12, 50_001).astype(dtype)
    distribution, density = np.empty_like(x), np.empty_like(x)
    each_normal(x, distribution, density)
    eps = float(np.finfo(dtype).eps)
    wanted = wide(lambda u: 0.5 * math.erfc(-u / math.sqrt(2)), x.astype(np.float64))
    assert relative_error(distribution, wanted) < (72 if dtype is np.float32 else 2 * 144) * eps
    near = np.abs(x) < 1
    assert relative_error(distribution[near], wanted[near]) < 4 * eps
    wanted = wide(lambda u: math.exp(-0.5 * u * u) / math.sqrt(2 * math.pi), x.astype(np.float64))
    assert relative_error(density, wanted) < 72 * eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_distribution_at_its_ends(dtype: type) -> None:
    x = np.array([-np.inf, -1e30, 0, 1e30, np.inf, np.nan], dtype)
    distribution, density = np.empty_like(x), np.empty_like(x)
    each_normal(x, distribution, density)
    np.testing.assert_array_equal(distribution, np.array([0, 0, 0.5, 1, 1, np.nan], dtype))
    np.testing.assert_array_equal(density[[0, 1, 3, 4, 5]], np.array([0, 0, 0, 0, np.nan], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_distribution_is_that_of_tanh(dtype: type) -> None:
    """Absolute error of 4 roundings: the value is at most 1, its derivative at most 1.2."""
    x = np.linspace(-25, 25, 50_001).astype(dtype)
    distribution, slope = np.empty_like(x), np.empty_like(x)
    each_tanh(x, distribution, slope)
    root, u = math.sqrt(2 / math.pi), x.astype(np.float64)
    tanh = np.tanh(root * (u + 0.044715 * u**3))
    eps = float(np.finfo(dtype).eps)
    assert np.max(np.abs(distribution - 0.5 * (1 + tanh))) < 4 * eps
    wanted = 0.5 * (1 - tanh**2) * root * (1 + 3 * 0.044715 * u**2)
    assert np.max(np.abs(slope - wanted)) < 16 * eps  # steepest where the cube counts: it is rounded three times


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 31, 33, 100, 1000])
def test_total_and_largest_of_a_row(size: int) -> None:
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    found_total, found_largest = total_and_largest(x)
    assert found_largest == x.max()
    # sums of `size` numbers of size 1 in 16 lanes
    assert abs(found_total - x.astype(np.float64).sum()) < (4 + size / 16) * EPS * np.abs(x).sum()
    x[size // 2] = np.nan
    found_total, _ = total_and_largest(x)
    assert math.isnan(found_total)


@pytest.mark.parametrize("shift", range(0, 80, 4))
def test_total_does_not_depend_on_where_a_row_lies(shift: int) -> None:
    memory = np.empty(400, np.uint8)
    x = np.random.default_rng(0).standard_normal(37).astype(np.float32)
    moved = memory[shift : shift + 4 * 37].view(np.float32)
    moved[:] = x
    assert total_and_largest(moved)[0] == total_and_largest(x)[0]
