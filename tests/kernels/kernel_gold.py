"""Every kernel function's answer in float64, by separate code: loops over elements, rows and sentences.

Where a kernel has a formula for a gradient, here the row's whole Jacobian matrix is written out and multiplied.
Arguments are named as the kernel's; results come in the kernel's order, then what it writes in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gold
import numpy as np

Arrays = tuple[np.ndarray | None, ...]
Matrix = np.ndarray
ROOT = math.sqrt(2 / math.pi)


def dropped(x: Matrix, dropout: float, seed: int, call: int, first: int = 0, rows: Matrix | None = None) -> Matrix:
    if not dropout:
        return x
    if rows is None:
        return gold.dropped(x, dropout, seed, call, first)
    each = [gold.dropped(x[n], dropout, seed, call, row * x.shape[1]) for n, row in enumerate(rows.tolist())]
    return np.array(each).reshape(x.shape)


def column_sums(x: Matrix) -> Matrix:
    return np.array([gold.total(column) for column in x.T])


def gelu_forward(*, x: Matrix, bias: Matrix | None, approximate: str) -> Arrays:
    return (gold.gelu(x if bias is None else x + bias, approximate),)


def gelu_backward(*, grad_y: Matrix, x: Matrix, bias: Matrix | None, approximate: str) -> Arrays:
    def exact(u: float) -> float:
        return 0.5 * math.erfc(-u / math.sqrt(2)) + u * math.exp(-u * u / 2) / math.sqrt(2 * math.pi)

    def tanh(u: float) -> float:
        value = math.tanh(ROOT * (u + 0.044715 * u**3))
        return 0.5 * (1 + value) + 0.5 * u * (1 - value**2) * ROOT * (1 + 3 * 0.044715 * u**2)

    grad_x = grad_y * gold.each(tanh if approximate == "tanh" else exact, x if bias is None else x + bias)
    return grad_x, None if bias is None else column_sums(grad_x)


def softmax_jacobian(p: Matrix) -> Matrix:
    return np.diag(p) - np.outer(p, p)


def softmax_forward(*, x: Matrix, mask: Matrix | None, scale: float, **generator: Any) -> Arrays:
    p = gold.softmax(x, mask, scale)
    return dropped(p, **{"dropout": 0.0, "seed": 0, "call": 0, **generator}), p


def softmax_backward(*, grad_y: Matrix, probabilities: Matrix, scale: float, **generator: Any) -> Arrays:
    grad_p = dropped(grad_y, **{"dropout": 0.0, "seed": 0, "call": 0, **generator})
    grad_p = np.where(probabilities == 0, 0, grad_p)  # what a masked column gets is not looked at
    rows = [scale * softmax_jacobian(p) @ g for p, g in zip(probabilities, grad_p, strict=True)]
    return (np.array(rows).reshape(grad_y.shape),)


def layer_norm_forward(
    *, x: Matrix, residual: Matrix | None, weight: Matrix, bias: Matrix, eps: float, **generator: Any
) -> Arrays:
    total = dropped(x, **{"dropout": 0.0, "seed": 0, "call": 0, **generator})
    total = total if residual is None else total + residual
    mean = np.array([gold.total(row) / row.size for row in total])
    centred = [row - middle for row, middle in zip(total, mean, strict=True)]
    rstd = np.array([1 / math.sqrt(gold.total(row * row) / row.size + eps) for row in centred])
    y = [row * scale * weight + bias for row, scale in zip(centred, rstd, strict=True)]
    return np.array(y).reshape(x.shape), total, mean, rstd


def layer_norm_backward(
    *, grad_y: Matrix, total: Matrix, weight: Matrix, mean: Matrix, rstd: Matrix, **generator: Any
) -> Arrays:
    width = total.shape[1]
    normalised = (total - mean[:, None]) * rstd[:, None]
    normalised -= np.array([gold.total(row) / width for row in normalised])[:, None]  # the mean comes rounded
    rows = [
        scale * ((np.eye(width) - 1 / width) @ (weight * g) - np.outer(n, n) @ (weight * g) / width)
        for scale, n, g in zip(rstd, normalised, grad_y, strict=True)
    ]
    grad_total = np.array(rows).reshape(total.shape)
    grad_x = dropped(grad_total, **{"dropout": 0.0, "seed": 0, "call": 0, **generator})
    return grad_x, grad_total, column_sums(grad_y * normalised), column_sums(grad_y)


def cross_entropy_forward(
    *, logits: Matrix, labels: Matrix, class_weights: Matrix | None, ignore_index: int, label_smoothing: float
) -> Arrays:
    scored = np.where(labels == ignore_index, -100, labels)
    loss = gold.cross_entropy(logits, scored, class_weights, label_smoothing)
    log_sum_exp = [math.log(gold.total(np.exp(row - row.max()))) + row.max() for row in logits]
    weights = [1.0 if class_weights is None else class_weights[label] for label in scored if label != -100]
    return np.array(loss), np.array(log_sum_exp), np.array(gold.total(weights))


def cross_entropy_backward(
    *,
    grad_loss: Matrix,
    logits: Matrix,
    labels: Matrix,
    class_weights: Matrix | None,
    log_sum_exp: Matrix,
    total_weight: Matrix,
    ignore_index: int,
    label_smoothing: float,
) -> Arrays:
    """Each target class adds its own cross-entropy, with gradient ``weight * (softmax - one_hot)``."""
    classes = logits.shape[1]
    weights = np.ones(classes) if class_weights is None else class_weights
    grad_logits = np.zeros(logits.shape)
    for row, label in enumerate(labels.tolist()):
        if label == ignore_index:
            continue
        p = np.exp(logits[row] - log_sum_exp[row])
        p /= gold.total(p)
        targets = weights * label_smoothing / classes
        targets[label] += weights[label] * (1 - label_smoothing)
        for target, one_hot in zip(targets, np.eye(classes), strict=True):
            if target:
                grad_logits[row] += target * (p - one_hot) * grad_loss / total_weight
    return (grad_logits,)


def dropout_forward(*, x: Matrix, probability: float, **numbers: Any) -> Arrays:
    return (dropped(x, probability, **numbers),)


def dropout_backward(*, grad_y: Matrix, probability: float, **numbers: Any) -> Arrays:
    return (dropped(grad_y, probability, **numbers),)


def keep_mask(*, shape: Any, probability: float, seed: int, call: int, first: int = 0, xp: Any) -> Arrays:
    return (gold.dropped(np.ones(shape), probability, seed, call, first) != 0,)


def words(*, count: int, seed: int, call: int, first: int = 0, xp: Any) -> Arrays:
    return (np.array([gold.word(first + i, seed, call) for i in range(count)], dtype=np.uint32),)


def embedding_forward(*, tables: Sequence[Matrix], indices: Sequence[Matrix]) -> Arrays:
    rows = [sum(table[i] for table, i in zip(tables, row, strict=True)) for row in zip(*indices, strict=True)]
    return (np.array(rows).reshape(len(indices[0]), tables[0].shape[1]),)


def embedding_backward(*, grad_y: Matrix, index: Matrix, out: Matrix, padding_index: int | None = None) -> Arrays:
    added = out.copy()
    for row, target in zip(grad_y, index.tolist(), strict=True):
        if target != padding_index:
            added[target] += row
    return added, added


def matmul(
    *,
    a: Matrix,
    b: Matrix,
    transpose_a: bool,
    transpose_b: bool,
    out: Matrix | None,
    accumulate: bool,
    bias: Matrix | None = None,
) -> Arrays:
    left, right = "km" if transpose_a else "mk", "nk" if transpose_b else "kn"
    product = np.einsum(f"{left},{right}->mn", a, b)
    if accumulate and out is not None:
        product += out
    if bias is not None:
        product += bias
    return (product,) if out is None else (product, product)


def sentences(cu_seqlens: Matrix, heads: int, width: int) -> Iterator[tuple[slice, int, slice, int]]:
    """Rows, head, columns and number of the first weight, for each head of each sentence."""
    first = 0
    for start, stop in zip(cu_seqlens.tolist(), cu_seqlens.tolist()[1:], strict=False):
        for head in range(heads):
            yield slice(start, stop), head, slice(head * width, (head + 1) * width), first
            first += (stop - start) ** 2


def attention_forward(
    *, q: Matrix, k: Matrix, v: Matrix, cu_seqlens: Matrix, heads: int, scale: float, **generator: Any
) -> Arrays:
    generator = {"dropout": 0.0, "seed": 0, "call": 0, **generator}
    context, log_sum_exp = np.zeros(q.shape), np.zeros((heads, q.shape[0]))
    for rows, head, columns, first in sentences(cu_seqlens, heads, q.shape[1] // heads):
        scores = scale * np.einsum("qw,kw->qk", q[rows, columns], k[rows, columns])
        weights = dropped(gold.softmax(scores), **generator, first=first)
        context[rows, columns] = np.einsum("qk,kw->qw", weights, v[rows, columns])
        largest = scores.max(axis=1)
        log_sum_exp[head, rows] = [
            math.log(gold.total(np.exp(row - top))) + top for row, top in zip(scores, largest, strict=True)
        ]
    return context, log_sum_exp


def attention_backward(
    *,
    grad_context: Matrix,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    log_sum_exp: Matrix,
    cu_seqlens: Matrix,
    heads: int,
    scale: float,
    **generator: Any,
) -> Arrays:
    generator = {"dropout": 0.0, "seed": 0, "call": 0, **generator}
    grad_q, grad_k, grad_v = np.zeros(q.shape), np.zeros(q.shape), np.zeros(q.shape)
    for rows, head, columns, first in sentences(cu_seqlens, heads, q.shape[1] // heads):
        part = (rows, columns)
        p = np.exp(scale * np.einsum("qw,kw->qk", q[part], k[part]) - log_sum_exp[head, rows][:, None])
        p = np.array([row / gold.total(row) for row in p])
        grad_p = dropped(np.einsum("qw,kw->qk", grad_context[part], v[part]), **generator, first=first)
        grad_scores = np.array([softmax_jacobian(row) @ g for row, g in zip(p, grad_p, strict=True)])
        grad_v[part] = np.einsum("qk,qw->kw", dropped(p, **generator, first=first), grad_context[part])
        grad_q[part] = scale * np.einsum("qk,kw->qw", grad_scores, k[part])
        grad_k[part] = scale * np.einsum("qk,qw->kw", grad_scores, q[part])
    return grad_q, grad_k, grad_v


def global_norm(*, gradients: Sequence[Matrix], touched: Any = None) -> Arrays:
    return (np.array(math.sqrt(gold.total(np.concatenate(gradients) ** 2))),)


def adamw_update(
    *,
    parameters: Matrix,
    gradients: Matrix,
    first_moment: Matrix,
    second_moment: Matrix,
    segments: Sequence[Any],
    beta1: float,
    beta2: float,
    eps: float,
    torch_compat: bool,
    touched: Any = None,
) -> Arrays:
    """PyTorch's order of operations is the same in exact arithmetic. What may be skipped makes no difference."""
    p, m, v = parameters.copy(), first_moment.copy(), second_moment.copy()
    for offset, length, rate, decay, step, factor in segments:
        for i in range(offset, offset + length):
            gradient = factor * gradients[i]
            m[i] = beta1 * m[i] + (1 - beta1) * gradient
            v[i] = beta2 * v[i] + (1 - beta2) * gradient**2
            direction = m[i] / (1 - beta1**step) / (np.sqrt(v[i] / (1 - beta2**step)) + eps)
            p[i] -= rate * (direction + decay * p[i])
    return None, p, m, v


GOLD: dict[str, Callable[..., Arrays]] = {
    "adamw.global_norm": global_norm,
    "adamw.update": adamw_update,
    "attention.forward": attention_forward,
    "attention.backward": attention_backward,
    "cross_entropy.forward": cross_entropy_forward,
    "cross_entropy.backward": cross_entropy_backward,
    "dropout.forward": dropout_forward,
    "dropout.backward": dropout_backward,
    "dropout.keep_mask": keep_mask,
    "embedding.forward": embedding_forward,
    "embedding.backward": embedding_backward,
    "gelu.forward": gelu_forward,
    "gelu.backward": gelu_backward,
    "layer_norm.forward": layer_norm_forward,
    "layer_norm.backward": layer_norm_backward,
    "matmul.column_sums": lambda *, x: (column_sums(x),),
    "matmul.matmul": matmul,
    "philox.words": words,
    "softmax.forward": softmax_forward,
    "softmax.backward": softmax_backward,
}
