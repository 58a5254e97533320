"""Attention's dropout: the designed element numbers, in the fused kernel and in the composition of plain operations."""

from __future__ import annotations

import math

import gold
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitl
from minitl import Tensor, ops
from minitl.models.composed_attention import composed_attention
from minitl.random import default_generator


def one_hot_values(lengths: list[int], heads: int, width: int) -> np.ndarray:
    """Values (T, heads * width) with which the context shows the weights: token j is the j-th unit vector."""
    return np.concatenate([np.tile(np.eye(length, width), (1, heads)) for length in lengths])


def fused_weights(q: np.ndarray, k: np.ndarray, lengths: list[int], heads: int, rate: float) -> np.ndarray:
    """The fused op's weights after dropout, in the order in which the design numbers them."""
    width = q.shape[1] // heads
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    v = one_hot_values(lengths, heads, width)
    context = ops.attention(Tensor(q), Tensor(k), Tensor(v), offsets, heads=heads, dropout=rate).numpy()
    by_sentence = []
    for start, length in zip(offsets[:-1], lengths, strict=True):
        rows = context[start : start + length].reshape(length, heads, width)
        by_sentence.append(rows.transpose(1, 0, 2)[:, :, :length].reshape(-1))
    return np.concatenate(by_sentence)


@settings(max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), heads=st.integers(1, 3), seed=st.integers(0, 2**64 - 1)
)
def test_elements_are_numbered_as_designed(lengths: list[int], heads: int, seed: int) -> None:
    """Element ``H * sum_{j<b} len_j^2 + (h * len_b + q) * len_b + k``: sentence, head, query, key, in this order."""
    rate, width = 0.4, 5
    random = np.random.default_rng(0)
    q, k = (random.standard_normal((sum(lengths), heads * width)) for _ in range(2))
    minitl.manual_seed(seed)
    kept = fused_weights(q, k, lengths, heads, rate) != 0
    threshold = math.floor(rate * 2**32)
    assert kept.tolist() == [gold.word(element, seed, 0) >= threshold for element in range(kept.size)]
    assert default_generator().call == 1, "one call for all sentences and heads"


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), heads=st.integers(1, 3))
def test_fused_and_composed_drop_the_same(lengths: list[int], heads: int) -> None:
    random = np.random.default_rng(1)
    width = 6
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    q, k = (random.standard_normal((sum(lengths), heads * width)) for _ in range(2))
    minitl.manual_seed(11)
    fused = fused_weights(q, k, lengths, heads, 0.5)
    minitl.manual_seed(11)
    v = Tensor(one_hot_values(lengths, heads, width))
    context, weights = composed_attention(Tensor(q), Tensor(k), v, offsets, heads=heads, dropout=0.5)
    np.testing.assert_array_equal(fused == 0, weights.numpy() == 0)
    np.testing.assert_allclose(
        fused, weights.numpy(), rtol=1e-14
    )  # a BLAS may sum the products of a row in another order
    assert context.shape == q.shape


def test_gradients_of_fused_and_composed_agree() -> None:
    offsets = np.array([0, 4, 5, 9])
    results = []
    for fused in (True, False):
        minitl.manual_seed(5)
        q, k, v = (Tensor(np.random.default_rng(i).standard_normal((9, 6)), requires_grad=True) for i in range(3))
        if fused:
            context = ops.attention(q, k, v, offsets, heads=2, dropout=0.3)
        else:
            context, _ = composed_attention(q, k, v, offsets, heads=2, dropout=0.3)
        weight = np.random.default_rng(3).standard_normal((9, 6))
        context.backward(Tensor(weight))
        results.append([context.numpy(), *(x.grad.numpy() for x in (q, k, v))])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)  # values of size 1, float64, a few sums of 4


def test_rows_are_numbered_row_by_row() -> None:
    """Everywhere else the element number is ``t * D + d``."""
    x = np.ones((3, 5))
    threshold = math.floor(0.5 * 2**32)
    kept = [[gold.word(t * 5 + d, 9, 0) >= threshold for d in range(5)] for t in range(3)]
    minitl.manual_seed(9)
    assert (ops.dropout(Tensor(x), 0.5).numpy() != 0).tolist() == kept
    minitl.manual_seed(9)
    weight, bias = Tensor(np.ones(5)), Tensor(np.zeros(5))
    y = ops.layer_norm(Tensor(x), weight, bias, eps=1e-5, dropout=0.5).numpy()
    assert all(any(row) and not all(row) for row in kept), "each row must show both, or the next line shows nothing"
    assert (y > 0).tolist() == kept  # equal inputs: what is kept lies above the row's mean, what is dropped below


def test_probability_zero_and_evaluation_draw_nothing() -> None:
    minitl.manual_seed(1)
    x = Tensor(np.ones((2, 4)))
    ops.attention(x, x, x, np.array([0, 2]), heads=2)
    ops.softmax(x)
    ops.layer_norm(x, x[0], x[0], eps=1e-5)
    assert default_generator().call == 0
    with pytest.raises(ValueError, match="dropout probability"):
        ops.attention(x, x, x, np.array([0, 2]), heads=2, dropout=1.0)
