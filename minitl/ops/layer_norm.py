"""Residual add, dropout and layer normalisation (Ba, Kiros, Hinton 2016), fused as BERT's sublayers end.

    total = residual + dropout(x)
    n     = (total - mean) * rstd,   rstd = 1 / sqrt(variance + eps)          row by row, over D columns
    y     = n * weight + bias

    g         = dy * weight
    dtotal    = rstd * (g - mean(g) - n * mean(g * n))
    dresidual = dtotal,                      dx    = dtotal through the dropout
    dweight   = sum over rows of dy * n,     dbias = sum over rows of dy

Saved: total, mean and rstd; ``n`` is computed again. The variance divides by D, not D - 1, as in the paper.
"""

from __future__ import annotations

import numpy as np

from minitl.autograd import WRITTEN, Function, Written
from minitl.device import move
from minitl.kernels.launch import Array, contiguous
from minitl.kernels.select import select
from minitl.ops.dropout import draw, row_numbers
from minitl.ops.registry import register
from minitl.ops.shape import as_rows, reshape
from minitl.random import Generator
from minitl.tensor import Tensor


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    residual: Tensor | None = None,
    dropout: float = 0.0,
    generator: Generator | None = None,
    rows: np.ndarray | None = None,
) -> Tensor:
    """Return the normalised rows of ``residual + dropout(x)``.

    Args:
        x: (..., D).
        weight, bias: (D,).
        eps: added to the variance.
        residual: (..., D), added before normalising, or None.
        dropout: probability of dropping an element of ``x``.
        generator: of the dropout, the default generator if None.
        rows: (N,) integers: ``x`` (N, D) is these rows of a larger array, whose elements the dropout numbers; None for
            0 to N - 1.

    Raises:
        TypeError: ``rows`` that are no integers.
        ValueError: shapes or ``rows`` that do not fit.
    """
    if x.ndim == 0 or weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError(
            f"layer_norm: weight {weight.shape} and bias {bias.shape} must be the last length of x {x.shape}"
        )
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"layer_norm: residual {residual.shape} differs from x {x.shape}")
    rows = row_numbers(rows, x.shape, name="layer_norm")
    inputs = (as_rows(x), weight, bias) if residual is None else (as_rows(x), weight, bias, as_rows(residual))
    y: Tensor = LayerNorm.apply(*inputs, eps=eps, rows=rows, **draw(dropout, generator))
    return y if x.ndim == 2 else reshape(y, x.shape)


@register("layer_norm")
class LayerNorm(Function):
    mixes_precision = True

    def forward(
        self,
        x: Array,
        weight: Array,
        bias: Array,
        *residual: Array,
        eps: float,
        rows: np.ndarray | None,
        dropout: float,
        seed: int,
        call: int,
    ) -> Array:
        self.dropout_options = {"dropout": dropout, "seed": seed, "call": call}
        self.rows = None if rows is None else move(rows, self.device)
        self.has_residual = bool(residual)
        self.weight = contiguous(weight)
        y: Array
        y, self.total, self.mean, self.rstd = select("layer_norm", self.device).forward(
            contiguous(x),
            contiguous(residual[0]) if residual else None,
            self.weight,
            contiguous(bias),
            eps=eps,
            **self.dropout_options,
            rows=self.rows,
        )
        return y

    def backward(self, grad_y: Array) -> tuple[Array | Written, ...]:
        kernel = select("layer_norm", self.device)
        arrays = contiguous(grad_y), self.total, self.weight, self.mean, self.rstd
        options = {**self.dropout_options, "rows": self.rows}
        results: list[Array] = []

        def write(outs: list[Array], accumulate: bool) -> None:
            places = {"grad_weight": outs[0], "grad_bias": outs[1], "accumulate": accumulate}
            results.extend(kernel.backward_into(*arrays, **places, **options))

        grads: tuple[Array | Written, ...]
        if hasattr(kernel, "backward_into") and self.into_slots([1, 2], write):
            (grad_x, grad_residual), grads = results, (WRITTEN, WRITTEN)
        else:
            grad_x, grad_residual, *grads = kernel.backward(*arrays, **options)
        return (grad_x, *grads, grad_residual) if self.has_residual else (grad_x, *grads)
