"""Logits of +-1e4, gaps of 1e4, rows of one number, the tails of GELU, squares that overflow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from trap_tools import Floats, values_and_gradients

from minitl import Tensor, ops, optim
from minitl.kernels.select import select

EPS = float(np.finfo(np.float32).eps)
WIDTHS = (1, 2, 3, 31, 32, 33, 127, 1000, 30522)
GAPS = (0.0, 1.0, 10.0, 87.0, 104.0, 1e3, 1e4)
BASES = (-1e4, -100.0, 0.0, 100.0, 1e4)


def extreme_logits(random: np.random.Generator, rows: int, width: int, dtype: str) -> Floats:
    """Rows (rows, width) within +-1e4 with every gap and level; one column holds the largest, one the smallest."""
    gap, base = random.choice(GAPS, (rows, 1)), random.choice(BASES, (rows, 1))
    x = base - gap * random.random((rows, width))
    x[:, :1] = base - gap
    x[:, -1:] = base
    return np.clip(x, -1e4, 1e4).astype(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 5e-6), ("float64", 1e-13)])
def test_softmax_of_extreme_scores(dtype: str, tolerance: float) -> None:
    """Relative errors: the difference of two scores, rounded at 87 by half an ulp, 3.8e-6, is all of it in float32; at
    700, 5.7e-14 in float64. Below the smallest normal number there is no relative accuracy."""
    random = np.random.default_rng(0)
    for width in WIDTHS:
        x = extreme_logits(random, max(4, min(1500, 60_000 // width)), width, dtype)
        upstream = random.standard_normal(x.shape).astype(dtype)
        p, gradient = values_and_gradients(ops.softmax, [x], upstream)
        wide = x.astype(np.longdouble)  # wider than float64 on most machines
        gold = np.exp(wide - wide[:, -1:])  # the last column is a largest
        gold /= gold.sum(axis=1, keepdims=True)
        assert np.isfinite(p).all()
        assert np.isfinite(gradient).all()
        normal = gold > 2 * np.finfo(dtype).tiny
        assert np.abs(p[normal] / gold[normal] - 1).max() <= tolerance
        assert not p[gold == 0].any()
        exact = gold * (upstream - (gold * upstream).sum(axis=1, keepdims=True))
        assert np.abs(gradient - exact).max() <= tolerance * np.abs(upstream).max()


def loss_and_gradient(x: Floats, label: int) -> tuple[float, Floats, float, Floats]:
    """One row's loss and gradient, and the same in a wider float."""
    loss, gradient = values_and_gradients(lambda x: ops.cross_entropy(x, np.array([label])), [x], np.ones(()))
    wide = x[0].astype(np.longdouble)
    exponentials = np.exp(wide - wide.max())
    gold = np.log(exponentials.sum()) + (wide.max() - wide[label])
    return float(loss), gradient[0], float(gold), exponentials / exponentials.sum() - (np.arange(wide.size) == label)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_of_extreme_logits(dtype: str) -> None:
    """360 rows, where log(softmax) would be -inf. The log of a sum near 1 is right to an eps of 1, the rest of the loss
    to an eps of itself."""
    random = np.random.default_rng(1)
    eps = float(np.finfo(dtype).eps)
    for width in WIDTHS:
        for x in extreme_logits(random, 40, width, dtype):
            loss, gradient, gold, gold_gradient = loss_and_gradient(x[None], int(random.choice([0, width - 1])))
            assert abs(loss - gold) <= 4 * eps * (1 + gold)
            assert np.abs(gradient - gold_gradient).max() <= 4 * eps


@pytest.mark.parametrize("level", [100.0, 1e4])
def test_cross_entropy_does_not_depend_on_the_level_of_the_logits(level: float) -> None:
    """Adding one number to all logits changes nothing: these are exact in float32 at every level."""
    row = np.array([[0.0, -1.0, 2.5, 0.125]], np.float32)
    for label in range(4):
        loss, gradient, gold, gold_gradient = loss_and_gradient(row + np.float32(level), label)
        assert abs(loss - gold) <= 4 * EPS * gold
        assert np.abs(gradient - gold_gradient).max() <= 4 * EPS


# -- layer norm --------------------------------------------------------------------------------------------------------

WIDTHS_OF_ROWS = (1, 2, 3, 5, 8, 16, 31, 32, 33, 64, 100, 127, 128, 255, 384, 768, 1000, 1024, 3072, 4095, 4096)


def normalise(x: Floats, eps: float, weight: Floats | None = None, bias: Floats | None = None) -> Any:
    """The kernel's ``(y, total, mean, rstd)``."""
    ones = np.ones(x.shape[1], x.dtype)
    weight, bias = ones if weight is None else weight, 0 * ones if bias is None else bias
    return select("layer_norm", "cpu").forward(x, None, weight, bias, eps=eps)


def variance_error(width: int, mean: float) -> float:
    """The largest relative error of variance + eps over 64 rows of float32 numbers around ``mean``."""
    x = (mean + np.random.default_rng(width).standard_normal((64, width))).astype(np.float32)
    rstd = normalise(x, 1e-12)[3].astype(np.float64)
    return float(np.abs(1 / rstd**2 / (x.astype(np.float64).var(axis=1) + 1e-12) - 1).max())


@pytest.mark.parametrize("mean", [0.0, 1.0, 10.0, 1e2, 1e3, 1e4])
def test_variance_at_every_width(mean: float) -> None:
    """E[x^2] - E[x]^2 would be negative at mean 1e4; two numbers near it may be a single ulp apart."""
    errors = {width: variance_error(width, mean) for width in WIDTHS_OF_ROWS}
    assert max(errors.values()) <= 2e-6, max(errors, key=lambda width: errors[width])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_rows_give_the_bias(dtype: str) -> None:
    """Whatever the constant is: a mean that is off by one ulp, divided by sqrt(eps) = 1e-6, would be of order 1."""
    random = np.random.default_rng(2)
    for width in WIDTHS_OF_ROWS:
        constants = np.concatenate([random.standard_normal(20), random.uniform(-1e4, 1e4, 20), [0.1, 1e4, 1e4 / 3]])
        x = np.repeat(constants.astype(dtype)[:, None], width, axis=1)
        weight, bias = (random.standard_normal(width).astype(dtype) for _ in range(2))
        y = normalise(x, 1e-12, weight, bias)[0]
        assert (y == bias).all(), width


@pytest.mark.parametrize("width", [8, 384])
def test_layer_norm_at_mean_1e4(width: int) -> None:
    """Result and gradients in float32 against float64 from the same numbers: their spread is 1, their ulp 1e-3, and
    differences of neighbours are exact. Sums of 384 terms then cost some ten roundings of numbers below 4."""
    random = np.random.default_rng(3)
    x = (1e4 + random.standard_normal((64, width))).astype(np.float32)
    upstream = random.standard_normal(x.shape).astype(np.float32)
    runs = []
    for dtype in ("float32", "float64"):
        arrays: list[Floats] = [x.astype(dtype), np.ones(width, dtype), np.zeros(width, dtype)]
        runs.append(values_and_gradients(lambda *t: ops.layer_norm(*t, eps=1e-5), arrays, upstream))
    for found, wanted in zip(*runs, strict=True):
        assert np.abs(found - wanted).max() <= 40 * EPS * np.abs(wanted).max()


# -- GELU --------------------------------------------------------------------------------------------------------------


def gelu_gold(u: Floats, approximate: str) -> tuple[Floats, Floats]:
    """GELU and its slope in float64."""
    if approximate == "none":
        distribution = 0.5 * np.vectorize(math.erfc)(-u / math.sqrt(2))
        return u * distribution, distribution + u * np.exp(-u * u / 2) / math.sqrt(2 * math.pi)
    # (1 + tanh(z)) / 2 = 1 / (1 + exp(-2 z)), which keeps its relative accuracy
    exponent = 2 * math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)
    share = 1 / (1 + np.exp(-exponent))
    slope = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * u * u)
    return u * share, share + u * share * (1 - share) * slope


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_at_a_million_points(approximate: str) -> None:
    """From -12 to 12 in float32. An ulp of values in [8, 12) is 9.5e-7, and they are rounded by half of it: 4.8e-7.

    The erf form is relatively right down to -12, where exp(-72) carries the rounding of 72, 3.8e-6. The slope of the
    tanh form is x times a difference that is rounded at 6e-8, times up to 2.8, where its 1 - tanh^2 is not yet 0.
    """
    x = np.linspace(-12, 12, 1_000_000, dtype=np.float32)
    y, gradient = values_and_gradients(lambda x: ops.gelu(x, approximate=approximate), [x], np.ones_like(x))
    gold, gold_gradient = gelu_gold(x.astype(np.float64), approximate)
    assert np.abs(y - gold).max() <= 5e-7
    assert np.abs(gradient - gold_gradient).max() <= (5e-7 if approximate == "none" else 2e-6)
    if approximate == "none":
        assert np.abs(y / gold - 1).max() <= 1e-5
    positive = x > 0
    assert np.abs(y[positive] / gold[positive] - 1).max() <= 5e-7  # four roundings


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu_of_huge_numbers(dtype: str, approximate: str) -> None:
    huge = float(np.finfo(dtype).max) / 4
    x = np.array([-huge, huge, -1e30, 1e30], dtype)
    y, gradient = values_and_gradients(lambda x: ops.gelu(x, approximate=approximate), [x], np.ones_like(x))
    np.testing.assert_array_equal(y, [0, huge, 0, x[3]])
    np.testing.assert_array_equal(gradient, [0, 1, 0, 1])


# -- sums and counters -------------------------------------------------------------------------------------------------


def test_norms_whose_squares_overflow() -> None:
    """1e20^2 is beyond float32; clipping brings such gradients to norm 1. Sums of 768 squares of 6e4 are, too, beyond
    float16, which is not there yet."""
    random = np.random.default_rng(4)
    for size in (1e20, 1e30, 6e4, 1e-20, 1e-30):
        values = (size * random.standard_normal(768)).astype(np.float32)
        p = Tensor(np.zeros(768, np.float32), requires_grad=True)
        p.grad = Tensor(values)
        norm = optim.clip_grad_norm([p], 1.0)
        assert norm == pytest.approx(math.sqrt(math.fsum(float(v) ** 2 for v in values)), rel=1e-14)  # float64 sums
        assert p.grad is not None
        after = np.linalg.norm(p.grad.numpy().astype(np.float64))
        assert after == pytest.approx(min(norm, 1.0), rel=1e-6)  # 1e-6 is added to the divisor


def test_sums_of_rows_near_the_largest_float() -> None:
    """Rows of 1e37 add up in an embedding's gradient and after a scatter, and nothing overflows."""
    rows = np.full((30, 4), 1e37, np.float32)
    (gradient,) = values_and_gradients(
        lambda table: ops.embedding(table, np.zeros(30, np.int64)), [np.zeros((2, 4), np.float32)], rows
    )[1:]
    assert gradient[0] == pytest.approx(3e38, rel=1e-6)
    assert not gradient[1].any()
    y = ops.scatter_rows(Tensor(rows), np.arange(30), 31).sum(axis=0)
    assert y.numpy() == pytest.approx(3e38, rel=1e-6)


def test_two_to_the_24_and_two() -> None:
    """A float32 counter stops at 2^24: sums go on, and a mean divides by the number there is."""
    x = Tensor(np.broadcast_to(np.ones(1, np.float32), (2**24 + 2,)))  # one number in memory
    assert x.sum().item() == 2**24 + 2
    assert x.mean().item() == 1
