"""Attention written with plain ops, for when the weights themselves are wanted (``output_attentions=True``).

The fused op never holds the weights of a whole sentence longer than it must; here they are ordinary tensors. Both
compute the same, dropout masks included: the elements are numbered alike.
"""

from __future__ import annotations

import math

import numpy as np

from minitl import ops
from minitl.models.padding import Padding
from minitl.ops.dropout import draw
from minitl.ops.softmax import masked_softmax
from minitl.tensor import Tensor
from minitl.text.batch import PackedBatch


def composed_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: np.ndarray, *, heads: int, dropout: float
) -> tuple[Tensor, Tensor]:
    """Return ``(context, weights)``.

    Args:
        q, k, v: (T, D).
        cu_seqlens: (B + 1,).
        heads: H.
        dropout: probability of dropping a weight.

    Returns:
        context (T, D); weights of all sentences end to end, each (H, length, length) flattened, after dropout as in
        transformers.
    """
    options = draw(dropout)
    contexts, weights, first = [], [], 0
    for start, stop in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        length = stop - start
        q_b, k_b, v_b = (_split(rows[start:stop], heads) for rows in (q, k, v))  # each (H, length, K)
        scores = q_b @ k_b.transpose(0, 2, 1)  # (H, length, length)
        p = masked_softmax(scores, None, scale=1 / math.sqrt(q_b.shape[2]), first=first, options=options)
        contexts.append((p @ v_b).transpose(1, 0, 2).reshape(length, -1))
        weights.append(p.reshape(-1))
        first += heads * length**2
    return ops.concatenate(contexts), ops.concatenate(weights)


def _split(rows: Tensor, heads: int) -> Tensor:
    """(length, D) -> (H, length, K)."""
    return rows.reshape(rows.shape[0], heads, -1).transpose(1, 0, 2)


def unpack_weights(weights: Tensor, batch: PackedBatch, padding: Padding) -> Tensor:
    """Put the weights of :func:`composed_attention` into (B, H, S, S), 0 where query or key is masked."""
    lengths = np.diff(batch.cu_seqlens)
    heads = weights.size // int((lengths**2).sum())
    width = padding.shape[1]
    sentences, first = [], 0
    for start, length in zip(batch.cu_seqlens[:-1].tolist(), lengths.tolist(), strict=True):
        columns = padding.rows[start : start + length] % width  # of the kept tokens
        p = weights[first : first + heads * length**2].reshape(heads, length, length)
        by_query = ops.scatter_rows(p.transpose(1, 0, 2), columns, width)  # (S query, H, length)
        by_key = ops.scatter_rows(by_query.transpose(2, 1, 0), columns, width)  # (S key, H, S query)
        sentences.append(by_key.transpose(1, 2, 0))  # (H, S query, S key)
        first += heads * length**2
    return ops.stack(sentences)
