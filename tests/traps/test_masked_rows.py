"""10,000 random masks: a row that keeps nothing is zero with zero gradient, and no other row notices it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from trap_tools import (
    TOLERANCE,
    Bools,
    Floats,
    parameter_gradients,
    random_masks,
    same_bits,
    softmax_gold,
    softmax_gradient_gold,
    tiny_tagger,
    values_and_gradients,
)

from minitl import Tensor, ops
from minitl.random import Generator

CALLS, MASKS, ROWS = 100, 100, 2  # 10,000 masks of two rows on every path
SCALES = (1.0, 0.125, 0.7, -1.3)
RATE = 0.3


def fused(x: Tensor, mask: Bools, scale: float, rate: float) -> Tensor:
    return ops.softmax(x, mask, scale=scale, dropout=rate, generator=Generator(5, 9))


def composed(x: Tensor, mask: Bools, scale: float, rate: float) -> Tensor:
    """The same of plain operations: what a user would write who has no fused one."""
    scores = ops.where(mask, x * scale, -1e30)
    exponentials = ops.where(mask, ops.exp(scores - scores.max(axis=-1, keepdims=True)), 0.0)
    total = exponentials.sum(axis=-1, keepdims=True)
    p = exponentials / ops.where(mask.any(axis=-1, keepdims=True), total, 1.0)
    return ops.dropout(p, rate, generator=Generator(5, 9))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate", [0.0, RATE])
@pytest.mark.parametrize("path", [fused, composed])
def test_masked_rows_of_softmax(path: Any, rate: float, dtype: str) -> None:
    random = np.random.default_rng(0)
    masked_rows = 0
    for number in range(CALLS):
        columns = int(random.integers(1, 18))
        scale = SCALES[number % 4]
        mask = random_masks(random, MASKS, ROWS, columns)
        x, upstream = (random.standard_normal(mask.shape).astype(dtype) for _ in range(2))
        x *= 3
        if rate:  # masked rows come last, for dropout numbers the elements: the others keep their numbers without them
            order = np.argsort(~mask.any(axis=2).ravel(), kind="stable")
            x, upstream, mask = (array.reshape(-1, columns)[order] for array in (x, upstream, mask))
        elif number % 2:  # one mask for both rows, broadcast
            mask = mask[:, 1:]
        seen: Bools = np.broadcast_to(mask, x.shape)

        value, gradient = values_and_gradients(lambda x, m=mask, s=scale: path(x, m, s, rate), [x], upstream)
        check_against_gold(value, gradient, x, seen, upstream, scale, rate)

        rows = seen.any(axis=-1)
        masked_rows += int((~rows).sum())
        alone = values_and_gradients(lambda x, m=seen[rows], s=scale: path(x, m, s, rate), [x[rows]], upstream[rows])
        assert same_bits(value[rows], alone[0])
        assert same_bits(gradient[rows], alone[1])
    assert masked_rows > CALLS * MASKS * ROWS // 10  # the trap was there


def check_against_gold(
    value: Floats, gradient: Floats, x: Floats, mask: Bools, upstream: Floats, scale: float, rate: float
) -> None:
    """Compare with float64; where nothing is kept, values and gradients are 0 exactly."""
    kept = ops.dropout(Tensor(np.ones(x.shape)), rate, generator=Generator(5, 9)).numpy()  # 0 or 1 / (1 - rate)
    p = softmax_gold(x, mask, scale)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    assert not value[~mask].any()
    assert not gradient[~mask].any()
    tolerance = TOLERANCE[x.dtype.name]
    assert np.abs(value - p * kept).max() <= tolerance
    assert np.abs(gradient - softmax_gradient_gold(p, kept, upstream, scale)).max() <= 4 * tolerance


def test_padded_attention_with_a_mask_equals_packed_attention() -> None:
    """300 masks of keys, a tenth of them empty: softmax with a broadcast mask, against the kernel without padding."""
    random = np.random.default_rng(1)
    sentences, heads, length, width = 30, 2, 7, 3
    empty = 0
    for _ in range(10):
        keep = random_masks(random, sentences, 1, length)[:, 0]
        empty += int((~keep.any(axis=1)).sum())
        q, k, v, upstream = (random.standard_normal((sentences, length, heads * width)) for _ in range(4))
        upstream[~keep] = 0  # nobody asks for what a masked token sees

        def split(rows: Tensor) -> Tensor:
            return rows.reshape(sentences, length, heads, width).transpose(0, 2, 1, 3)

        def padded(q: Tensor, k: Tensor, v: Tensor, keep: Bools = keep) -> Tensor:
            scores = split(q) @ split(k).transpose(0, 1, 3, 2)  # (B, H, S, S)
            p = ops.softmax(scores, keep[:, None, None, :], scale=width**-0.5)
            return (p @ split(v)).transpose(0, 2, 1, 3).reshape(sentences, length, heads * width)

        lengths = keep.sum(axis=1)
        offsets = np.concatenate([[0], np.cumsum(lengths[lengths > 0])])

        def packed(q: Tensor, k: Tensor, v: Tensor, keep: Bools = keep, offsets: Floats = offsets) -> Tensor:
            return ops.attention(q[keep], k[keep], v[keep], offsets, heads=heads)

        context, *gradients = values_and_gradients(padded, [q, k, v], upstream)
        wanted, *wanted_gradients = values_and_gradients(packed, [q, k, v], upstream[keep])
        assert not context[~keep.any(axis=1)].any()
        # sums of at most 7 numbers of order 1 to 10, three times over
        np.testing.assert_allclose(context[keep], wanted, rtol=0, atol=1e-14)
        for gradient, one in zip(gradients, wanted_gradients, strict=True):
            np.testing.assert_allclose(gradient, one, rtol=0, atol=1e-13)
    assert empty > 20


def test_300_attention_masks_through_the_model() -> None:
    """The fused and the composed path (``output_attentions``) agree, whatever is masked, and never give a NaN."""
    random = np.random.default_rng(2)
    model = tiny_tagger("float64", num_hidden_layers=1)
    sentences, columns = 50, 12
    for _ in range(6):
        mask = random_masks(random, sentences, 1, columns)[:, 0]
        mask[np.arange(sentences), random.integers(0, columns, sentences)] = True  # the door refuses an empty row
        ids = random.integers(0, 12, mask.shape)
        labels = np.where(mask & (random.random(mask.shape) < 0.8), random.integers(0, 3, mask.shape), -100)
        results = []
        for attentions in (False, True):
            out = model(ids, mask, labels=labels, output_attentions=attentions)
            assert out.loss is not None
            out.loss.backward()
            results.append((out, parameter_gradients(model)))
        (out, gradients), (other, other_gradients) = results
        assert not out.logits.numpy()[~mask].any()
        # float64: some hundred roundings of 1e-16 in numbers of order 1
        np.testing.assert_allclose(out.logits.numpy(), other.logits.numpy(), rtol=0, atol=1e-12)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, other_gradients[name], rtol=0, atol=1e-12, err_msg=name)
        for weights in other.attentions or ():
            # every kept query's weights sum to 1, over kept keys only; a masked query has none
            np.testing.assert_allclose(
                weights.numpy().sum(axis=3), np.broadcast_to(mask[:, None], weights.shape[:3]), rtol=0, atol=1e-14
            )
            assert not np.where(mask[:, None, None, :], 0, weights.numpy()).any()
