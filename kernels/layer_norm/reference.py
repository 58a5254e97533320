"""Residual add, dropout and layer normalisation of rows (Ba, Kiros, Hinton 2016), in one kernel.

    total = residual + dropout(x)
    y     = (total - mean) * rstd * weight + bias,      rstd = 1 / sqrt(variance + eps)

mean and variance are those of one row, over its D columns. The variance is taken in two passes: E[x^2] - E[x]^2 would
lose a fifth of it to rounding in float32 when the mean is a thousand times the spread.
"""

from __future__ import annotations

import math

from minitl.kernels.dropout import reference as dropout_kernel
from minitl.kernels.launch import (
    Array,
    array_module,
    check_dropout,
    check_floats,
    check_ranges,
    check_rows,
    check_shapes,
)


def forward(
    x: Array,
    residual: Array | None,
    weight: Array,
    bias: Array,
    *,
    eps: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
    rows: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Return ``(y, total, mean, rstd)``: the result and what backward needs.

    Args:
        x: (N, D), the sublayer's output.
        residual: (N, D) or None, what the sublayer's output is added to.
        weight, bias: (D,).
        eps: added to the variance.
        dropout, seed, call: probability and generator of the dropout on ``x``; element numbers are ``row * D +
            column``.
        rows: (N,) integers, or None for 0 to N - 1: what ``row`` is there, where ``x`` is some rows of a larger array.

    Returns:
        y (N, D); total (N, D), which is ``x`` itself without residual and dropout; mean, rstd (N,).
    """
    check_floats(x=x, residual=residual, weight=weight, bias=bias)
    check_shapes(x=(x, "N D"), residual=(residual, "N D"), weight=(weight, "D"), bias=(bias, "D"))
    check_ranges(eps=(eps, 0, math.inf))
    check_dropout(dropout, seed=seed, call=call)
    check_rows(rows, x=x)
    if x.shape[1] == 0:
        raise ValueError(f"layer_norm needs at least one column; the shape of x is {x.shape}")
    xp = array_module(x)
    total = dropout_kernel.forward(x, probability=dropout, seed=seed, call=call, rows=rows)
    if residual is not None:
        total = total + residual
    # The mean of large numbers is rounded like them; that of their differences from the row's first is not, and those
    # are exact where it matters. A constant row so gives exactly the bias.
    centred = total - total[:, :1]
    offset = centred.mean(axis=1)
    centred -= offset[:, None]
    mean = total[:, 0] + offset
    variance = (centred * centred).mean(axis=1)
    rstd = 1 / xp.sqrt(variance + eps)
    y = centred * rstd[:, None]
    y *= weight
    y += bias
    return y, total, mean, rstd


def backward(
    grad_y: Array,
    total: Array,
    weight: Array,
    mean: Array,
    rstd: Array,
    *,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
    rows: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Return ``(grad_x, grad_residual, grad_weight, grad_bias)``.

    With ``n = (total - mean) * rstd`` and ``g = grad_y * weight``, a row's gradient is
    ``rstd * (g - mean(g) - n * mean(g * n))``: moving a whole row, or scaling it, changes nothing, so the two mean
    terms take those directions out. ``grad_residual`` is that; ``grad_x`` is that through the dropout.
    """
    check_floats(grad_y=grad_y, total=total, weight=weight, mean=mean, rstd=rstd)
    check_shapes(grad_y=(grad_y, "N D"), total=(total, "N D"), weight=(weight, "D"), mean=(mean, "N"), rstd=(rstd, "N"))
    check_dropout(dropout, seed=seed, call=call)
    check_rows(rows, grad_y=grad_y)
    normalised = total - mean[:, None]
    normalised *= rstd[:, None]
    # Their mean is 0 but for the rounding of ``mean``, which near 1e4 is 5e-4.
    normalised -= normalised.mean(axis=1)[:, None]
    grad_weight = (grad_y * normalised).sum(axis=0)
    grad_bias = grad_y.sum(axis=0)
    grad_normalised = grad_y * weight
    shift = grad_normalised.mean(axis=1)
    stretch = (grad_normalised * normalised).mean(axis=1)
    grad_total = rstd[:, None] * (grad_normalised - shift[:, None] - normalised * stretch[:, None])
    grad_x = dropout_kernel.backward(grad_total, probability=dropout, seed=seed, call=call, rows=rows)
    return grad_x, grad_total, grad_weight, grad_bias
