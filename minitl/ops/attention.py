"""Scaled dot-product self-attention over packed sentences (Vaswani et al. 2017, section 3.2).

For each sentence and head, with rows q, k, v of shape (length, K):

    s = scale * q k^T,   p = softmax(s),   d = dropout(p),   context = d v

    dv = d^T dcontext,   dd = dcontext v^T,   dp = dd through the dropout,   ds = p * (dp - sum_k dp p)
    dq = scale * ds k,   dk = scale * ds^T q

Saved: q, k, v and one number a row and head, the log of the softmax's denominator; the probabilities, length^2
numbers, are computed again in backward (Dao et al. 2022).
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from minitl.autograd import Function
from minitl.device import module_of
from minitl.kernels.attention.layout import Layout
from minitl.kernels.launch import Array, contiguous, is_short
from minitl.kernels.select import select
from minitl.ops.dropout import draw
from minitl.ops.registry import register
from minitl.random import Generator
from minitl.tensor import Tensor

#: Of sentences: (B + 1,) on the host, or what :func:`sentences` has made of them.
Offsets: TypeAlias = "np.ndarray | Layout"


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Offsets,
    *,
    heads: int,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return the context of every token, attending within its own sentence, with scale ``1 / sqrt(K)``.

    Args:
        q, k, v: (T, D), D = heads * K.
        cu_seqlens: (B + 1,) offsets of the sentences in the T rows: first 0, last T, growing. Or what
            :func:`sentences` has made of them.
        heads: H.
        dropout: probability of dropping an attention weight.
        generator: of the dropout, the default generator if None.

    Returns:
        (T, D).

    Raises:
        ValueError: shapes or offsets that do not fit.
    """
    if not q.shape == k.shape == v.shape or q.ndim != 2:
        raise ValueError(f"attention: q {q.shape}, k {k.shape} and v {v.shape} must be three equal (T, D)")
    if q.shape[1] == 0:
        raise ValueError(f"attention needs at least one column, q has shape {q.shape}")
    if heads < 1 or q.shape[1] % heads:
        raise ValueError(f"attention: {q.shape[1]} columns cannot be divided among {heads} heads")
    if isinstance(cu_seqlens, np.ndarray):
        cu_seqlens = check_offsets(cu_seqlens, q.shape[0])
    scale = 1 / math.sqrt(q.shape[1] // heads)
    context: Tensor = Attention.apply(
        q, k, v, cu_seqlens=cu_seqlens, heads=heads, scale=scale, **draw(dropout, generator)
    )
    return context


def attention_joined(
    joined: Tensor, cu_seqlens: Offsets, *, heads: int, dropout: float = 0.0, generator: Generator | None = None
) -> Tensor:
    """Return what :func:`attention` does for queries, keys and values that stand side by side.

    Args:
        joined: (T, 3 D), as ``linear_joined`` returns them.
        cu_seqlens, heads, dropout, generator: as of :func:`attention`.

    Returns:
        (T, D).

    Raises:
        ValueError: shapes or offsets that do not fit.
    """
    if joined.ndim != 2 or joined.shape[1] == 0 or joined.shape[1] % 3:
        raise ValueError(f"attention_joined takes (T, 3 D), three matrices side by side; the shape is {joined.shape}")
    columns = joined.shape[1] // 3
    if heads < 1 or columns % heads:
        raise ValueError(f"attention_joined: {columns} columns cannot be divided among {heads} heads")
    where = sentences(cu_seqlens, joined.shape[0], joined.device)
    options = {"heads": heads, "scale": 1 / math.sqrt(columns // heads), **draw(dropout, generator)}
    context: Tensor = AttentionJoined.apply(joined, cu_seqlens=where, options=options)
    return context


def sentences(cu_seqlens: Offsets, tokens: int, device: str) -> Offsets:
    """Return the offsets of sentences in the form in which ``device`` wants them, once for all layers.

    Args:
        cu_seqlens: (B + 1,), or what this function has returned.
        tokens: T.
        device: of the tensors.

    Returns:
        For CUDA kernels a Layout, whose arrays lie where the kernels read them; else the offsets, checked.

    Raises:
        ValueError: offsets that do not fit.
    """
    if not isinstance(cu_seqlens, np.ndarray):
        return cu_seqlens
    offsets = check_offsets(cu_seqlens, tokens)
    if not select("attention", device).__name__.endswith(".cuda"):
        return offsets
    return Layout.of(offsets, module_of(device))


def check_offsets(cu_seqlens: np.ndarray, tokens: int) -> np.ndarray:
    """Return the offsets as an array; raise unless they cut ``tokens`` rows into sentences of at least one token."""
    offsets = np.array(cu_seqlens)  # a copy: backward needs them as they are now
    if offsets.ndim != 1 or offsets.size < 2 or offsets.dtype.kind not in "iu":
        raise ValueError(f"cu_seqlens must be (B + 1,) integers with B >= 1, got {offsets.dtype} {offsets.shape}")
    wrong = np.append(False, offsets[1:] <= offsets[:-1]) | (offsets < 0) | (offsets > tokens)
    wrong[0] |= offsets[0] != 0
    wrong[-1] |= offsets[-1] != tokens
    if wrong.any():
        position = int(wrong.argmax())
        raise ValueError(
            f"cu_seqlens must grow from 0 to {tokens}, the number of tokens; not so {offsets[position]} at position "
            f"{position}"
        )
    return offsets


@register("attention")
class Attention(Function):
    def forward(
        self,
        q: Array,
        k: Array,
        v: Array,
        *,
        cu_seqlens: Offsets,
        heads: int,
        scale: float,
        dropout: float,
        seed: int,
        call: int,
    ) -> Array:
        self.q, self.k, self.v = (contiguous(rows) for rows in (q, k, v))
        self.options = {"heads": heads, "scale": scale, "dropout": dropout, "seed": seed, "call": call}
        self.cu_seqlens = contiguous(cu_seqlens) if isinstance(cu_seqlens, np.ndarray) else cu_seqlens
        context: Array
        context, self.log_sum_exp = select("attention", self.device).forward(
            self.q, self.k, self.v, self.cu_seqlens, **self.options
        )
        return context

    def backward(self, grad_context: Array) -> tuple[Array, Array, Array]:
        grads: tuple[Array, Array, Array] = select("attention", self.device).backward(
            contiguous(grad_context),
            self.q,
            self.k,
            self.v,
            self.log_sum_exp,
            self.cu_seqlens,
            **self.options,
        )
        return grads


@register("attention_joined")
class AttentionJoined(Function):
    """The rule of Attention for one array; where kernels want three, they are copied out of it."""

    def forward(self, joined: Array, *, cu_seqlens: Offsets, options: dict[str, Any]) -> Array:
        self.joined, self.cu_seqlens, self.options = contiguous(joined), cu_seqlens, options
        kernel = select("attention", self.device)
        context: Array
        if is_short(joined.dtype):
            context, self.log_sum_exp = kernel.forward_joined(self.joined, cu_seqlens, **options)
            self.context = context
        else:
            context, self.log_sum_exp = kernel.forward(*self._three(), cu_seqlens, **options)
        return context

    def backward(self, grad_context: Array) -> Array:
        kernel, grad_context = select("attention", self.device), contiguous(grad_context)
        if is_short(grad_context.dtype):
            grad: Array = kernel.backward_joined(
                grad_context, self.context, self.joined, self.log_sum_exp, self.cu_seqlens, **self.options
            )
            return grad
        grads = kernel.backward(grad_context, *self._three(), self.log_sum_exp, self.cu_seqlens, **self.options)
        return self.xp.concatenate(grads, axis=1)

    def _three(self) -> list[Array]:
        return [contiguous(part) for part in self.xp.split(self.joined, 3, axis=1)]
