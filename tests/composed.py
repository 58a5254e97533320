"""Every fused operation, written with plain ones: what it computes, one step after another.

A fused operation does in one kernel what stands here as a dozen operations, each with its own array and its own entry
on the tape. Both give the same values and gradients but for rounding, and the tests hold the fused one to the accuracy
of this one. To understand a kernel, read its composition first. Arguments and results are those of ``minitl.ops``.

The one thing that is not composed is which elements a dropout keeps: those bits are Philox's, by element number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minitl import Tensor, ops
from minitl.kernels.dropout.reference import keep_mask
from minitl.ops.dropout import DropoutOptions, draw
from minitl.random import Generator


def _drop(x: Tensor, options: DropoutOptions, first: int = 0) -> Tensor:
    """Dropout with its call already drawn, elements numbered from ``first``."""
    probability = options["dropout"]
    if probability == 0:
        return x
    seed, call = options["seed"], options["call"]
    kept = keep_mask(x.shape, probability=probability, seed=seed, call=call, first=first, xp=np)
    return ops.where(kept, x * (1 / (1 - probability)), 0.0)


def dropout(x: Tensor, probability: float, *, generator: Generator | None = None) -> Tensor:
    """0 where dropped; what is kept grows by as much as is lost, so that the expected value stays."""
    return _drop(x, draw(probability, generator))


def _softmax(x: Tensor, mask: np.ndarray | None, scale: float, options: DropoutOptions, first: int) -> Tensor:
    scores = x * scale
    if mask is not None:
        scores = ops.where(mask, scores, -math.inf)
    # Any number may be subtracted from a row: softmax(x + c) = softmax(x). With the largest, exp cannot overflow. It is
    # a constant (detached): its gradient would be 0. In a fully masked row it is -inf, and 0 is subtracted.
    largest = scores.detach().max(axis=-1, keepdims=True)
    if mask is not None:
        largest = ops.where(mask.any(axis=-1, keepdims=True), largest, 0.0)
    exponentials = ops.exp(scores - largest)
    total = exponentials.sum(axis=-1, keepdims=True)
    p = exponentials / ops.where(total == 0, 1.0, total)
    if mask is not None:
        p = ops.where(mask, p, 0.0)  # they are 0, but in a row with a NaN
    return _drop(p, options, first)


def softmax(
    x: Tensor,
    mask: np.ndarray | None = None,
    *,
    scale: float = 1.0,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Exponentials divided by their sum, over the columns that the mask keeps."""
    return _softmax(x, mask, scale, draw(dropout, generator), 0)


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    residual: Tensor | None = None,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Every row minus its mean, divided by its standard deviation; then a weight and a bias for each column."""
    total = _drop(x, draw(dropout, generator))
    if residual is not None:
        total = total + residual
    centred = total - total.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / ops.sqrt(variance + eps) * weight + bias


def gelu(x: Tensor, bias: Tensor | None = None, *, approximate: str = "none") -> Tensor:
    """Every element times the probability that a normal variable lies below it."""
    u = x if bias is None else x + bias
    if approximate == "tanh":
        return 0.5 * u * (1 + ops.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * (u * u * u))))
    return 0.5 * u * (1 + ops.erf(u * math.sqrt(0.5)))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A matrix product and a sum."""
    y = x @ weight.T
    return y if bias is None else y + bias


def embedding_sum(tables: Sequence[Tensor], ids: Sequence[np.ndarray], *, padding_ids: Sequence[int | None]) -> Tensor:
    """Rows chosen from each table, and added. A padding row takes part as a constant: it gets no gradient."""
    rows = []
    for table, index, padding_id in zip(tables, ids, padding_ids, strict=True):
        chosen = table[index]
        if padding_id is not None:
            chosen = ops.where((index == padding_id)[:, None], chosen.detach(), chosen)
        rows.append(chosen)
    total = rows[0]
    for others in rows[1:]:
        total = total + others
    return total


def cross_entropy(
    logits: Tensor,
    labels: np.ndarray,
    *,
    ignore_index: int = ops.IGNORE_INDEX,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """``-log softmax`` of the label's class, averaged over the rows with a label; a smoothed label is a little of every
    class."""
    scored = np.flatnonzero(labels != ignore_index)
    logits, labels, classes = logits[scored], labels[scored], logits.shape[1]
    weights = Tensor(np.ones(classes) if class_weights is None else class_weights).astype(logits.dtype)
    total_weight = weights[labels].sum()
    if total_weight.item() == 0:
        return logits[:0].sum()  # of nothing: 0, with zero gradient
    largest = logits.detach().max(axis=1, keepdims=True)
    below = logits - largest
    log_softmax = below - ops.log(ops.exp(below).sum(axis=1, keepdims=True))
    losses = -log_softmax[np.arange(scored.size), labels] * weights[labels]
    if label_smoothing > 0:
        spread = -(log_softmax * weights).sum(axis=1) / classes
        losses = (1 - label_smoothing) * losses + label_smoothing * spread
    return losses.sum() / total_weight


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: np.ndarray,
    *,
    heads: int,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """For each sentence and head: every query takes the average of the values, weighted by how well the keys fit."""
    options = draw(dropout, generator)
    tokens, width = q.shape
    q, k, v = (rows.reshape(tokens, heads, width // heads).transpose(1, 0, 2) for rows in (q, k, v))  # each (H, T, K)
    sentences, first = [], 0
    for start, stop in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        q_b, k_b, v_b = (rows[:, start:stop] for rows in (q, k, v))  # each (H, length, K)
        scores = q_b @ k_b.transpose(0, 2, 1)  # (H, length, length)
        weights = _softmax(scores, None, math.sqrt(heads / width), options, first)
        sentences.append(weights @ v_b)
        first += heads * (stop - start) ** 2
    return ops.concatenate(sentences, axis=1).transpose(1, 0, 2).reshape(tokens, width)
