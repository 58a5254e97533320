"""Self-attention over packed sentences: each token attends to the tokens of its own sentence only (Vaswani et al.
2017, 3.2).

For every sentence and head, with q, k, v of shape (length, K):

    scores = scale * q @ k.T;   p = softmax(scores);   context = dropout(p) @ v

The tokens of all sentences lie end to end, so no padding is computed and no mask is needed. The (length, length)
probabilities are not kept for backward: one number a row, the log of its sum of exponentials, is enough to compute
them again (Dao et al. 2022).

Dropout's element numbers do not depend on how the work is split: query ``q``, key ``k`` of head ``h`` in sentence
``b`` is element ``H * sum_{j<b} length_j^2 + (h * length_b + q) * length_b + k``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minitl.kernels.dropout import reference as dropout_kernel
from minitl.kernels.launch import (
    Array,
    array_module,
    check_dropout,
    check_floats,
    check_heads,
    check_offsets,
    check_shapes,
)


def _sentences(cu_seqlens: np.ndarray, heads: int) -> Iterator[tuple[slice, int]]:
    """Yield, for each sentence, its rows and the number of its first dropout element."""
    first = 0
    for start, stop in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        yield slice(start, stop), first
        first += heads * (stop - start) ** 2


def _split(rows: Array, heads: int) -> Array:
    """(length, H * K) -> (H, length, K)."""
    length, width = rows.shape
    return rows.reshape(length, heads, width // heads).transpose(1, 0, 2)


def _merge(by_head: Array) -> Array:
    """(H, length, K) -> (length, H * K)."""
    heads, length, head_width = by_head.shape
    return by_head.transpose(1, 0, 2).reshape(length, heads * head_width)


def forward(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens: np.ndarray,
    *,
    heads: int,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
) -> tuple[Array, Array]:
    """Return ``(context, log_sum_exp)``.

    Args:
        q, k, v: (T, D) with D = heads * K; head ``h`` owns columns ``h * K`` to ``(h + 1) * K - 1``.
        cu_seqlens: (B + 1,) integers on the host; sentence ``b`` is rows ``cu_seqlens[b]`` to ``cu_seqlens[b + 1] -
            1``.
        heads: H.
        scale: multiplies the scores, usually ``1 / sqrt(K)``.
        dropout, seed, call: probability and generator of the dropout on the probabilities.

    Returns:
        context (T, D); log_sum_exp (H, T).
    """
    check_floats(q=q, k=k, v=v)
    check_shapes(q=(q, "T D"), k=(k, "T D"), v=(v, "T D"))
    check_heads(heads, columns=q.shape[1])
    check_offsets(cu_seqlens, rows=q.shape[0])
    check_dropout(dropout, seed=seed, call=call)
    xp = array_module(q)
    context = xp.empty_like(q)
    log_sum_exp = xp.empty((heads, q.shape[0]), dtype=q.dtype)
    for rows, first in _sentences(cu_seqlens, heads):
        scores = _split(q[rows], heads) @ _split(k[rows], heads).transpose(0, 2, 1) * scale
        maximum = scores.max(axis=2, keepdims=True)
        exponentials = xp.exp(scores - maximum)
        total = exponentials.sum(axis=2, keepdims=True)
        dropped = dropout_kernel.forward(exponentials / total, probability=dropout, seed=seed, call=call, first=first)
        context[rows] = _merge(dropped @ _split(v[rows], heads))
        log_sum_exp[:, rows] = (maximum + xp.log(total))[:, :, 0]
    return context, log_sum_exp


def backward(
    grad_context: Array,
    q: Array,
    k: Array,
    v: Array,
    log_sum_exp: Array,
    cu_seqlens: np.ndarray,
    *,
    heads: int,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
) -> tuple[Array, Array, Array]:
    """Return ``(grad_q, grad_k, grad_v)``, each (T, D), from the gradient of the context (T, D)."""
    check_floats(grad_context=grad_context, q=q, k=k, v=v, log_sum_exp=log_sum_exp)
    check_shapes(grad_context=(grad_context, "T D"), q=(q, "T D"), k=(k, "T D"), v=(v, "T D"))
    check_heads(heads, columns=q.shape[1])
    check_shapes(H=heads, T=q.shape[0], log_sum_exp=(log_sum_exp, "H T"))
    check_offsets(cu_seqlens, rows=q.shape[0])
    check_dropout(dropout, seed=seed, call=call)
    xp = array_module(q)
    grad_q, grad_k, grad_v = xp.empty_like(q), xp.empty_like(k), xp.empty_like(v)
    for rows, first in _sentences(cu_seqlens, heads):
        q_b, k_b, v_b = _split(q[rows], heads), _split(k[rows], heads), _split(v[rows], heads)
        grad_b = _split(grad_context[rows], heads)
        scores = q_b @ k_b.transpose(0, 2, 1) * scale
        probabilities = xp.exp(scores - log_sum_exp[:, rows][:, :, None])
        # Near 20 the last bit of a float32 log_sum_exp is worth 2e-6 of every probability. The rows must sum to 1
        # again, or grad_scores does not sum to 0 over the keys, and the key bias gets a gradient that it has not.
        probabilities /= probabilities.sum(axis=2, keepdims=True)
        dropped = dropout_kernel.forward(probabilities, probability=dropout, seed=seed, call=call, first=first)
        grad_v[rows] = _merge(dropped.transpose(0, 2, 1) @ grad_b)
        grad_dropped = grad_b @ v_b.transpose(0, 2, 1)
        grad_p = dropout_kernel.backward(grad_dropped, probability=dropout, seed=seed, call=call, first=first)
        # In two passes, like a variance: where the values have a large mean, so has grad_p, and grad_scores, which must
        # sum to 0 over the keys, would be wrong by the rounding of that mean.
        grad_p = grad_p - (grad_p * probabilities).sum(axis=2, keepdims=True)
        inner = (grad_p * probabilities).sum(axis=2, keepdims=True)
        grad_scores = probabilities * (grad_p - inner) * scale
        grad_q[rows] = _merge(grad_scores @ k_b)
        grad_k[rows] = _merge(grad_scores.transpose(0, 2, 1) @ q_b)
    return grad_q, grad_k, grad_v
