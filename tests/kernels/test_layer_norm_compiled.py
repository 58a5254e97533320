"""Layer norm compiled: rows of large means, rates of dropout near 0, and what is where in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minitl.kernels.layer_norm import cpu, reference

f32 = np.float32


def operands(rows: int, columns: int, dtype: Any = f32) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(rows)
    matrices = (random.standard_normal((rows, columns)) for _ in range(2))
    vectors = (random.uniform(0.5, 2, columns) for _ in range(2))
    return tuple(array.astype(dtype) for array in (*matrices, *vectors))


@pytest.mark.parametrize("dtype", [f32, np.float64])
@pytest.mark.parametrize("columns", [1, 7, 8, 384])
def test_a_constant_row_is_the_bias(columns: int, dtype: Any) -> None:
    x = np.repeat(np.array([[3.0], [0.1], [-77.7], [1e4 + 0.3]], dtype), columns, axis=1)
    bias = np.arange(columns, dtype=dtype)
    y, _, mean, _ = cpu.forward(x, None, np.ones(columns, dtype), bias, eps=1e-12)
    np.testing.assert_array_equal(y, np.tile(bias, (4, 1)))
    np.testing.assert_array_equal(mean, x[:, 0])


def test_variance_of_large_numbers() -> None:
    """As for the reference: rounding of sums of 384 terms, below 10 eps = 1.2e-6."""
    x = (1e4 + np.random.default_rng(0).standard_normal((64, 384))).astype(f32)
    _, _, mean, rstd = cpu.forward(x, None, np.ones(384, f32), np.zeros(384, f32), eps=0.0)
    wide = x.astype(np.float64)
    assert np.abs(1 / rstd.astype(np.float64) ** 2 / wide.var(axis=1) - 1).max() < 2e-6
    assert np.abs(mean / wide.mean(axis=1) - 1).max() < 2e-7  # within two units in the last place


@pytest.mark.parametrize("dropout", [1e-12, 1e-9, 1e-3, 0.999])
@pytest.mark.parametrize("rows", [3, 300])
def test_dropout_near_its_ends(rows: int, dropout: float) -> None:
    """Below 2^-32 nothing is dropped and nothing scaled, and yet the total is an array of its own, of these values."""
    x, residual, weight, bias = operands(rows, 40)
    options: dict[str, Any] = {"dropout": dropout, "seed": 5, "call": 7}
    for some in (None, residual):
        found, wanted = (module.forward(x, some, weight, bias, eps=1e-5, **options)[1] for module in (cpu, reference))
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)  # a rounding less where x is scaled and added
        assert found is not x
    _, total, mean, rstd = reference.forward(x, None, weight, bias, eps=1e-5)
    grad_x, grad_total, *_ = cpu.backward(residual, total, weight, mean, rstd, **options)
    expected, *_ = reference.backward(residual, total, weight, mean, rstd, **options)
    np.testing.assert_array_equal(grad_x == 0, expected == 0)
    assert grad_x is not grad_total


def test_nothing_is_copied_where_there_is_nothing_to_do() -> None:
    x, residual, weight, bias = operands(300, 40)
    _, total, mean, rstd = cpu.forward(x, None, weight, bias, eps=1e-5)
    assert total is x
    grad_x, grad_residual, *_ = cpu.backward(residual, total, weight, mean, rstd)
    assert grad_x is grad_residual


@pytest.mark.parametrize("rows", [100, 2000])
def test_rows_do_not_depend_on_their_company(rows: int) -> None:
    """One row alone, which a small call does, has the bits that it has among others, by its number."""
    x, residual, weight, bias = operands(rows, 100)
    options: dict[str, Any] = {"eps": 1e-5, "dropout": 0.3, "seed": 5, "call": 7}
    together = cpu.forward(x, residual, weight, bias, **options)
    backward: dict[str, Any] = {"dropout": 0.3, "seed": 5, "call": 7}
    gradients = cpu.backward(residual, together[1], weight, together[2], together[3], **backward)[:2]
    for n in (0, 1, rows // 2, rows - 1):
        number = np.array([n])
        alone = cpu.forward(x[n : n + 1], residual[n : n + 1], weight, bias, rows=number, **options)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], other[n])
        saved = (alone[1], weight, alone[2], alone[3])
        found = cpu.backward(residual[n : n + 1], *saved, rows=number, **backward)[:2]
        for one, other in zip(found, gradients, strict=True):
            np.testing.assert_array_equal(one[0], other[n])
