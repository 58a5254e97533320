"""Residual add, dropout and layer normalisation compiled: a row goes through all steps while it is in the cache.

Rows are independent, so threads take chunks of them. Forward reads a row of x and of the residual once from memory, and
writes the total and y once; three short loops over it, for the sum, the squares and the result, find it in the cache.
Backward makes a row's gradient in the same way, and adds the row's part of the gradients of weight and bias to the sums
of its chunk; the chunks' sums are added in order at the end. Which row is in which chunk follows from the size of the
array alone, and so does every bit.

Only sums are reordered, to fill vector registers, and functions that add up write nothing: in a loop that does both
the compiler asks whether the arrays lie so near each other that a vector might reach into the next, and adds in
another order if they do. The elements that go into the sums are computed as they stand, above all ``(total - first) -
offset``: rows with a large mean need both subtractions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from minitl.kernels.compiled import SMALL, compiled, inner, parallel, rounded, summing
from minitl.kernels.dropout.cpu import keep_scales
from minitl.kernels.launch import Array, check_dropout, check_floats, check_ranges, check_rows, check_shapes

CHUNK = 2**14  # elements of the rows that a thread takes in one turn ...
FEWEST = 16  # ... and rows at least: for each turn of backward there are two rows of sums to be added up
EVERY_ROW = np.zeros(0, dtype=np.uint64)


def _turns(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many rows a turn takes, and how many turns there are: one at least, which gives sums of nothing."""
    rows = max(FEWEST, CHUNK // max(1, shape[1]))
    return rows, max(1, -(-shape[0] // rows))


# -- dropout and residual ----------------------------------------------------------------------------------------------


def _generator(x: Array, rows: Array | None, dropout: float, seed: int, call: int) -> tuple[Any, ...]:
    """Return whether anything is dropped, the row numbers, and what ``keep_scales`` takes beside the element."""
    numbers = EVERY_ROW if rows is None else rows.astype(np.uint64)
    threshold, scale = np.uint32(math.floor(dropout * 2**32)), x.dtype.type(1 / (1 - dropout))
    return dropout > 0, numbers, threshold, scale, np.uint64(seed), np.uint64(call)


@inner
def _row_scales(out: Any, words: Any, n: Any, generator: Any) -> None:
    """Fill ``out`` with the dropout of row n: 0, or what is kept is multiplied by."""
    _, numbers, threshold, scale, seed, call = generator
    row = numbers[n] if numbers.size else np.uint64(n)
    keep_scales(out, words, row * np.uint64(out.size), threshold, scale, seed, call)


@inner
def _drop(out: Any, x: Any, scales: Any) -> None:
    """Write ``x * scales``, but 0 where the scale is 0: a dropped infinity is no NaN."""
    zero = out.dtype.type(0)
    for i in range(out.size):
        out[i] = x[i] * scales[i] if scales[i] != zero else zero


@inner
def _drop_and_add(out: Any, x: Any, scales: Any, residual: Any) -> None:
    zero = out.dtype.type(0)
    for i in range(out.size):
        out[i] = (x[i] * scales[i] if scales[i] != zero else zero) + residual[i]


@inner
def _add(out: Any, x: Any, residual: Any) -> None:
    for i in range(out.size):
        out[i] = x[i] + residual[i]


# -- forward -----------------------------------------------------------------------------------------------------------


@inner
def _centred(t: Any, first: Any, offset: Any) -> Any:
    return (t - first) - offset


@inner
def _plus(a: Any, b: Any) -> Any:
    return a + b


@inner
def _scale_and_shift(y: Any, rstd: Any, weight: Any, bias: Any) -> None:
    for i in range(y.size):
        y[i] = y[i] * rstd * weight[i] + bias[i]


@summing
def _sum_from(x: Any, first: Any) -> Any:
    """Return the sum of a row's differences from its first element."""
    found = x.dtype.type(0)
    for i in range(x.size):
        found += _centred(x[i], first, x.dtype.type(0))
    return found


@summing
def _sum_and_squares(x: Any) -> Any:
    found, squares = x.dtype.type(0), x.dtype.type(0)
    for i in range(x.size):
        found += x[i]
        squares += x[i] * x[i]
    return found, squares


@inner
def _write_centred(y: Any, total: Any, first: Any, offset: Any) -> None:
    for i in range(y.size):
        y[i] = _centred(total[i], first, offset)


@inner
def _normalise(y: Any, total: Any, weight: Any, bias: Any, eps: Any) -> Any:
    """Write one row of y; return its mean and rstd."""
    one, count = y.dtype.type(1), y.dtype.type(y.size)
    first = total[0]
    offset = _sum_from(total, first) / count
    _write_centred(y, total, first, offset)
    leftover, squares = _sum_and_squares(y)
    rstd = one / math.sqrt(squares / count + eps)
    _scale_and_shift(y, rstd, weight, bias)
    # Offset is rounded, and may be large where the mean is small; how much is missing, the sum of the centred says.
    return _plus(first, offset) + leftover / count, rstd


@compiled
def _forward_rows(begin: Any, end: Any, results: Any, x: Any, residual: Any, parameters: Any, generator: Any) -> None:
    """Do rows ``begin`` to ``end``. A residual that is not there has no rows."""
    y, total, mean, rstd = results
    weight, bias, eps = parameters
    drops, adds = generator[0], residual.size > 0
    scales = np.empty(x.shape[1] if drops else 0, x.dtype)
    words = np.empty(scales.size, np.uint32)
    for n in range(begin, end):
        if drops:
            _row_scales(scales, words, n, generator)
        if drops and adds:
            _drop_and_add(total[n], x[n], scales, residual[n])
        elif drops:
            _drop(total[n], x[n], scales)
        elif adds:
            _add(total[n], x[n], residual[n])
        mean[n], rstd[n] = _normalise(y[n], total[n], weight, bias, eps)


@parallel
def _forward_all(rows: Any, turns: Any, results: Any, x: Any, residual: Any, parameters: Any, generator: Any) -> None:
    for turn in prange(turns):
        _forward_rows(turn * rows, min((turn + 1) * rows, len(x)), results, x, residual, parameters, generator)


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
    check_floats(x=x, residual=residual, weight=weight, bias=bias)
    check_shapes(x=(x, "N D"), residual=(residual, "N D"), weight=(weight, "D"), bias=(bias, "D"))
    check_ranges(eps=(eps, 0, math.inf))
    check_dropout(dropout, seed=seed, call=call)
    check_rows(rows, x=x)
    if x.shape[1] == 0:
        raise ValueError(f"layer_norm needs at least one column; the shape of x is {x.shape}")
    y = np.empty_like(x)
    total = x if residual is None and dropout == 0 else np.empty_like(x)
    mean, rstd = np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    arguments = (
        (y, total, mean, rstd),
        x,
        x[:0] if residual is None else residual,
        (weight, bias, x.dtype.type(eps)),
        _generator(x, rows, dropout, seed, call),
    )
    if x.size <= SMALL:
        _forward_rows(0, len(x), *arguments)
    else:
        _forward_all(*_turns(x.shape), *arguments)
    return y, total, mean, rstd


# -- backward ----------------------------------------------------------------------------------------------------------


@inner
def _normalised(t: Any, mean: Any, rstd: Any) -> Any:
    return (t - mean) * rstd


@inner
def _minus(a: Any, b: Any) -> Any:
    return a - b


@rounded
def _times(a: Any, b: Any) -> Any:
    """In a row of one column ``grad_y * weight`` is its own mean, and the difference must be 0: a fused instruction
    would leave the rounding of the product.
    """
    return a * b


@inner
def _row_gradient(grad: Any, middle: Any, grad_y: Any, weight: Any, rstd: Any, shift: Any, stretch: Any) -> None:
    for i in range(grad.size):
        normalised = grad[i] - middle
        grad[i] = rstd * (_times(grad_y[i], weight[i]) - shift - normalised * stretch)


@inner
def _write_normalised(grad: Any, total: Any, mean: Any, rstd: Any) -> None:
    for i in range(grad.size):
        grad[i] = _normalised(total[i], mean, rstd)


@inner
def _add_to_sums(grad_weight: Any, grad_bias: Any, grad_y: Any, normalised: Any, middle: Any) -> None:
    for i in range(grad_y.size):
        grad_weight[i] += grad_y[i] * _minus(normalised[i], middle)
        grad_bias[i] += grad_y[i]


@summing
def _shift_and_stretch(grad_y: Any, weight: Any, normalised: Any, middle: Any) -> Any:
    shift, stretch = grad_y.dtype.type(0), grad_y.dtype.type(0)
    for i in range(grad_y.size):
        grad_normalised = _times(grad_y[i], weight[i])
        shift += grad_normalised
        stretch += grad_normalised * _minus(normalised[i], middle)
    return shift, stretch


@inner
def _backward_row(
    grad: Any, grad_weight: Any, grad_bias: Any, grad_y: Any, total: Any, weight: Any, mean: Any, rstd: Any
) -> None:
    """Write the gradient of one row, and add to those of weight and bias; the names are the reference's."""
    count = grad.dtype.type(grad.size)
    _write_normalised(grad, total, mean, rstd)
    middle = _sum_and_squares(grad)[0] / count
    _add_to_sums(grad_weight, grad_bias, grad_y, grad, middle)
    shift, stretch = _shift_and_stretch(grad_y, weight, grad, middle)
    _row_gradient(grad, middle, grad_y, weight, rstd, shift / count, stretch / count)


@compiled
def _backward_rows(begin: Any, end: Any, turn: Any, results: Any, grad_y: Any, saved: Any, generator: Any) -> None:
    grad_x, grad_total, weight_sums, bias_sums = results
    total, weight, mean, rstd = saved
    drops = generator[0]
    scales = np.empty(grad_y.shape[1] if drops else 0, grad_y.dtype)
    words = np.empty(scales.size, np.uint32)
    for n in range(begin, end):
        _backward_row(grad_total[n], weight_sums[turn], bias_sums[turn], grad_y[n], total[n], weight, mean[n], rstd[n])
        if drops:
            _row_scales(scales, words, n, generator)
            _drop(grad_x[n], grad_total[n], scales)


@parallel
def _backward_all(rows: Any, turns: Any, results: Any, grad_y: Any, saved: Any, generator: Any) -> None:
    for turn in prange(turns):
        _backward_rows(turn * rows, min((turn + 1) * rows, len(grad_y)), turn, results, grad_y, saved, generator)


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
    check_floats(grad_y=grad_y, total=total, weight=weight, mean=mean, rstd=rstd)
    check_shapes(grad_y=(grad_y, "N D"), total=(total, "N D"), weight=(weight, "D"), mean=(mean, "N"), rstd=(rstd, "N"))
    check_dropout(dropout, seed=seed, call=call)
    check_rows(rows, grad_y=grad_y)
    grad_total = np.empty_like(grad_y)
    grad_x = grad_total if dropout == 0 else np.empty_like(grad_y)
    some, turns = _turns(grad_y.shape)
    weight_sums, bias_sums = (np.zeros((turns, weight.size), weight.dtype) for _ in range(2))
    arguments = (
        (grad_x, grad_total, weight_sums, bias_sums),
        grad_y,
        (total, weight, mean, rstd),
        _generator(grad_y, rows, dropout, seed, call),
    )
    if grad_y.size <= SMALL:
        _backward_rows(0, len(grad_y), 0, *arguments)
    else:
        _backward_all(some, turns, *arguments)
    return grad_x, grad_total, weight_sums.sum(axis=0), bias_sums.sum(axis=0)
