"""Where arithmetic is hard: tails, large means, extreme logits, masked rows."""

from __future__ import annotations

from typing import Any

import gold
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.kernels.attention import reference as attention
from minitl.kernels.cross_entropy import reference as cross_entropy
from minitl.kernels.dropout import reference as dropout
from minitl.kernels.embedding import reference as embedding
from minitl.kernels.gelu import reference as gelu
from minitl.kernels.layer_norm import reference as layer_norm
from minitl.kernels.matmul import reference as matmul
from minitl.kernels.softmax import reference as softmax

f32 = np.float32


def test_gelu_tails_in_float32() -> None:
    """Relative down to -12, where (1 + erf) / 2 would be 0 below -5.6.

    The exponent u^2 / 2 = 72 is rounded by half an eps of it, 36 * 1.2e-7 = 4.3e-6; the rest is a few eps.
    """
    x = np.linspace(-12, 12, 4801, dtype=f32)[None]
    y = gelu.forward(x, None, approximate="none")
    wanted = gold.gelu(x, "none")
    inside = x != 0
    assert np.abs(y[inside] / wanted[inside] - 1).max() < 1e-5
    near = x < 6
    assert np.abs(y - wanted)[near].max() < 5e-7  # one ulp of values just below 6 is 4.8e-7
    assert gelu.forward(np.zeros((1, 1), f32), None, approximate="none")[0, 0] == 0


def test_gelu_variants_differ_as_said() -> None:
    x = np.linspace(-6, 6, 2401)[None]
    difference = np.abs(gelu.forward(x, None, approximate="none") - gelu.forward(x, None, approximate="tanh")).max()
    assert 4.6e-4 < difference < 4.8e-4


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_out(approximate: str) -> None:
    x = np.array([[-1e4, 1e4]], f32)
    assert gelu.forward(x, None, approximate=approximate).tolist() == [[0.0, 1e4]]
    assert gelu.backward(np.ones_like(x), x, None, approximate=approximate)[0].tolist() == [[0.0, 1.0]]


def test_layer_norm_variance_beside_a_large_mean() -> None:
    """At mean 1e4 the numbers are float32's multiples of 2^-10; E[x^2] - E[x]^2 would be off by 100 %.

    Two passes leave the rounding of sums of 384 terms: pairwise, below 10 eps = 1.2e-6.
    """
    x = (1e4 + np.random.default_rng(0).standard_normal((64, 384))).astype(f32)
    _, _, mean, rstd = layer_norm.forward(x, None, np.ones(384, f32), np.zeros(384, f32), eps=0.0)
    wide = x.astype(np.float64)
    assert np.abs(1 / rstd.astype(np.float64) ** 2 / wide.var(axis=1) - 1).max() < 2e-6
    assert np.abs(mean / wide.mean(axis=1) - 1).max() < 2e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 7, 8, 384])
def test_layer_norm_of_a_constant_row_is_the_bias(columns: int, dtype: Any) -> None:
    """Also where the mean of equal numbers is not that number: one ulp of 0.1, divided by sqrt(eps), is 0.007."""
    x = np.repeat(np.array([[3.0], [0.1], [-77.7], [1e4 + 0.3]], dtype), columns, axis=1)
    bias = np.arange(columns, dtype=dtype)
    y, *_ = layer_norm.forward(x, None, np.ones(columns, dtype), bias, eps=1e-12)
    np.testing.assert_array_equal(y, np.tile(bias, (4, 1)))


def test_layer_norm_dropout_acts_on_x_and_not_on_the_residual() -> None:
    x, residual = np.full((2, 4), 10.0), np.ones((2, 4))
    _, total, *_ = layer_norm.forward(x, residual, np.ones(4), np.zeros(4), eps=1.0, dropout=0.5, seed=4, call=1)
    np.testing.assert_array_equal(total, gold.dropped(x, 0.5, 4, 1) + 1)
    assert set(np.unique(total)) == {1.0, 21.0}


def test_softmax_extremes() -> None:
    x = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], f32)
    y, p = softmax.forward(x, None, scale=1.0)
    assert y is p
    np.testing.assert_array_equal(y, [[1, 0, 0], np.full(3, 1, f32) / f32(3)])
    assert np.isfinite(softmax.backward(np.ones_like(x), p, scale=1.0)).all()


def test_softmax_masked() -> None:
    x = np.array([[1.0, np.nan, 2.0], [1.0, 2.0, 3.0]])
    mask = np.array([[True, False, True], [False, False, False]])
    y, p = softmax.forward(x, mask, scale=2.0)
    np.testing.assert_allclose(y, gold.softmax(x, mask, 2.0), rtol=1e-15)  # a few roundings of quotients near 1
    assert y[1].tolist() == [0.0, 0.0, 0.0]
    grad = softmax.backward(np.array([[1.0, 7.0, 3.0], [5.0, 6.0, 7.0]]), p, scale=2.0)
    assert grad[1].tolist() == [0.0, 0.0, 0.0]
    assert grad[0, 1] == 0.0
    assert grad[0, 0] == pytest.approx(-grad[0, 2], rel=1e-14)  # the row sums to 0 but for a few roundings
    assert grad[0, 0] < -0.1


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_attention_extremes(scale: float) -> None:
    """Scores of +-1e4 choose one key; where the chosen key is unique its weight is 1."""
    q = np.ones((3, 2), f32)
    k = np.array([[1, 0], [0, 0], [-1, 0]], f32)
    v = np.array([[1, 2], [3, 4], [5, 6]], f32)
    context, log_sum_exp = attention.forward(q, k, v, np.array([0, 3]), heads=1, scale=scale)
    assert context.tolist() == [v[0 if scale > 0 else 2].tolist()] * 3
    assert log_sum_exp.tolist() == [[1e4] * 3]
    options: dict[str, Any] = {"heads": 1, "scale": scale}
    for grad in attention.backward(np.ones_like(q), q, k, v, log_sum_exp, np.array([0, 3]), **options):
        assert np.isfinite(grad).all()


def test_attention_stays_within_its_sentence() -> None:
    """Changing one sentence changes no bit of another, forward or backward."""
    random = np.random.default_rng(0)
    q, k, v, grad = (random.standard_normal((7, 4)).astype(f32) for _ in range(4))
    offsets = np.array([0, 3, 7])
    options: dict[str, Any] = {"heads": 2, "scale": 0.5}

    def first_sentence() -> list[np.ndarray]:
        context, log_sum_exp = attention.forward(q, k, v, offsets, **options)
        grads = attention.backward(grad, q, k, v, log_sum_exp, offsets, **options)
        return [array[:3].copy() for array in (context, *grads)]

    before = first_sentence()
    for rows in (q, k, v, grad):
        rows[3:] = 1e30
    with np.errstate(all="ignore"):
        for one, other in zip(before, first_sentence(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_attention_gives_the_key_bias_no_gradient() -> None:
    """Adding one vector to all keys of a sentence moves all scores of a row alike: their gradients sum to 0.

    With a log_sum_exp near 32, probabilities computed from it sum to 1 only within 2e-6, and the sum here would be 3e-4
    of the largest gradient. What remains is the rounding of numbers near 150, in sums of 24.
    """
    random = np.random.default_rng(0)
    q, k, v, grad = (random.standard_normal((24, 16)).astype(f32) for _ in range(4))
    q, k, v = q + 3, k + 3, v + 50
    options: dict[str, Any] = {"heads": 2, "scale": 0.35}
    _, log_sum_exp = attention.forward(q, k, v, np.array([0, 24]), **options)
    _, grad_k, _ = attention.backward(grad, q, k, v, log_sum_exp, np.array([0, 24]), **options)
    assert np.abs(grad_k.sum(axis=0)).max() < 1e-4 * np.abs(grad_k).max()


def test_attention_with_values_and_keys_of_large_means() -> None:
    """The gradients of a row's scores sum to 0, and grad_q is their sum weighted by the keys: with values around 50,
    what one rounding of that mean leaves in the sum, times keys around 10, would be 560 to 1,200 eps of grad_q. In two
    passes it is 20 to 50, measured for six seeds: the rounding of grad_p itself."""
    random = np.random.default_rng(0)
    q, k, v, grad = (random.standard_normal((24, 16)).astype(f32) for _ in range(4))
    options: dict[str, Any] = {"heads": 2, "scale": 0.35}
    gradients = []
    for dtype in (np.float32, np.float64):
        rows = [array.astype(dtype) for array in (q, k + 10, v + 50)]
        _, log_sum_exp = attention.forward(*rows, np.array([0, 24]), **options)
        gradients.append(attention.backward(grad.astype(dtype), *rows, log_sum_exp, np.array([0, 24]), **options))
    for found, wanted in zip(*gradients, strict=True):
        assert np.abs(found - wanted).max() < 150 * np.finfo(f32).eps * np.abs(wanted).max()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_extremes(smoothing: float) -> None:
    """-log softmax written as log(softmax) would be infinite here."""
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], f32)
    labels = np.array([1, 1])
    options: dict[str, Any] = {"ignore_index": -100, "label_smoothing": smoothing}
    loss, log_sum_exp, total = cross_entropy.forward(logits, labels, None, **options)
    assert loss == pytest.approx(1e4, rel=1e-6)  # each of the two rows' smoothed parts adds up to it again, in float32
    grad = cross_entropy.backward(f32(1), logits, labels, None, log_sum_exp, total, **options)
    # the target of a smoothed label is 1 - s / 2 and s / 2; every share is divided by the 2 rows
    share = (1 - smoothing / 2) / 2
    np.testing.assert_allclose(grad, [[share, -share], [-smoothing / 4, smoothing / 4]], atol=1e-7)  # a rounding of 0.5


def test_cross_entropy_of_nothing_scored() -> None:
    logits = np.array([[1.0, np.nan], [np.inf, 2.0]])
    labels = np.array([-100, -100])
    options: dict[str, Any] = {"ignore_index": -100, "label_smoothing": 0.1}
    with np.errstate(invalid="ignore"):
        loss, log_sum_exp, total = cross_entropy.forward(logits, labels, None, **options)
        grad = cross_entropy.backward(np.float64(1), logits, labels, None, log_sum_exp, total, **options)
    assert (loss, total) == (0.0, 0.0)
    assert grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_dropped_infinity_is_zero() -> None:
    x = np.full(64, np.inf)
    y = dropout.forward(x, probability=0.5, seed=1, call=1)
    assert set(y) == {0.0, np.inf}
    assert dropout.forward(x, probability=0.0, seed=1, call=1) is x


@given(st.booleans(), st.booleans(), st.sampled_from([(1, 1, 1), (2, 3, 5), (31, 1, 4), (3, 33, 2)]))
def test_matmul(transpose_a: bool, transpose_b: bool, sizes: tuple[int, int, int]) -> None:
    """Whole numbers, so that every product and sum is exact."""
    m, k, n = sizes
    random = np.random.default_rng(0)
    a, b = random.integers(-4, 5, (m, k)).astype(f32), random.integers(-4, 5, (k, n)).astype(f32)
    wanted = np.einsum("mk,kn->mn", a, b)
    left = np.ascontiguousarray(a.T) if transpose_a else a
    right = np.ascontiguousarray(b.T) if transpose_b else b
    options: dict[str, Any] = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    np.testing.assert_array_equal(matmul.matmul(left, right, **options), wanted)
    out = np.full((m, n), np.nan, f32)
    assert matmul.matmul(left, right, out=out, **options) is out
    np.testing.assert_array_equal(out, wanted)
    matmul.matmul(left, right, out=out, accumulate=True, **options)
    np.testing.assert_array_equal(out, 2 * wanted)


def test_embedding_backward_adds_to_what_is_there() -> None:
    grad = np.array([[1.0], [2.0], [4.0], [8.0]])
    out = np.array([[100.0], [200.0], [300.0]])
    assert embedding.backward(grad, np.array([2, 0, 2, 1]), out=out, padding_index=1) is out
    assert out.tolist() == [[102.0], [200.0], [305.0]]


def test_embedding_forward_leaves_the_tables() -> None:
    """The first table's rows are a copy, which is then added to."""
    tables = [np.ones((2, 2)), np.full((2, 2), 5.0)]
    assert embedding.forward(tables, [np.array([0]), np.array([1])]).tolist() == [[6.0, 6.0]]
    assert tables[0].tolist() == [[1.0, 1.0], [1.0, 1.0]]
