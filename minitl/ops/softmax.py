"""Scale, mask, softmax and dropout over the last axis, fused.

    p  = softmax(scale * x) over the columns the mask keeps;   y = dropout(p)
    dx = scale * p * (g - sum(g * p)),   g = dy through the dropout

Saved: p. A row that keeps nothing gives zeros, with zero gradient; PyTorch gives NaN there.
"""

from __future__ import annotations

import numpy as np

from minitl.autograd import Function
from minitl.device import move
from minitl.kernels.launch import Array, contiguous
from minitl.kernels.select import select
from minitl.ops.dropout import DropoutOptions, draw
from minitl.ops.registry import register
from minitl.ops.shape import as_rows, reshape
from minitl.random import Generator
from minitl.tensor import Tensor


def softmax(
    x: Tensor,
    mask: Tensor | np.ndarray | None = None,
    *,
    scale: float = 1.0,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return the softmax of ``scale * x`` over the last axis, dropped out.

    Args:
        x: (..., C).
        mask: bool, broadcastable to the shape of ``x``: True where a column takes part.
        scale: multiplies ``x``.
        dropout: probability of dropping a result.
        generator: of the dropout, the default generator if None.

    Raises:
        TypeError: a mask that is not bool.
        ValueError: ``x`` has no columns.
    """
    chosen = _checked_mask(x, mask)  # first, so that a refused call takes no number from the generator
    return masked_softmax(x, chosen, scale=scale, first=0, options=draw(dropout, generator))


def _checked_mask(x: Tensor, mask: Tensor | np.ndarray | None) -> Array | None:
    """Return the mask's array, on the device of ``x``, or None."""
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"softmax needs at least one column, x has shape {x.shape}")
    if mask is None:
        return None
    chosen = mask.array if isinstance(mask, Tensor) else move(np.asarray(mask), x.device)
    if chosen.dtype != bool:
        raise TypeError(f"softmax: the mask must be bool (True = takes part), not {chosen.dtype}")
    return chosen


def masked_softmax(x: Tensor, mask: Array | None, *, scale: float, first: int, options: DropoutOptions) -> Tensor:
    """Like :func:`softmax`, with the dropout call already drawn and elements numbered from ``first``: attention
    composed of primitive ops takes one call for all sentences, as the fused kernel does."""
    rows = as_rows(x)
    y: Tensor = Softmax.apply(rows, mask=mask, x_shape=x.shape, scale=scale, first=first, **options)
    return y if x.ndim == 2 else reshape(y, x.shape)


@register("softmax")
class Softmax(Function):
    def forward(
        self,
        x: Array,
        *,
        mask: Array | None,
        x_shape: tuple[int, ...],
        scale: float,
        first: int,
        dropout: float,
        seed: int,
        call: int,
    ) -> Array:
        self.options = {"scale": scale, "dropout": dropout, "seed": seed, "call": call, "first": first}
        if mask is not None:
            mask = contiguous(self.xp.broadcast_to(mask, x_shape).reshape(x.shape))
        y: Array
        y, self.probabilities = select("softmax", self.device).forward(contiguous(x), mask, **self.options)
        return y

    def backward(self, grad_y: Array) -> Array:
        kernel = select("softmax", self.device)
        grad_x: Array = kernel.backward(contiguous(grad_y), self.probabilities, **self.options)
        return grad_x
