"""Log-softmax, negative log-likelihood and the mean compiled: block after block of rows that stay in the nearest cache.

The rows are cut into chunks of fixed size, for the threads, and a chunk into blocks. Rows may be as short as the list
of labels, and a loop over less than a vector register is slow; so the exponential, which is most of the work, is taken
of all elements of a block alike. Each row leaves its loss and its weight, and they are added up in the end.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from minitl.kernels.compiled import compiled, inner, parallel
from minitl.kernels.launch import Array, check_floats, check_integers, check_ranges, check_shapes
from minitl.kernels.vector_math import exp, fill_registers, largest, total

CHUNK = 2**14  # elements
BLOCK = 2**12


@inner
def _below_largest(below: Any, x: Any, tops: Any, columns: Any) -> None:
    fill_registers()
    for row in range(tops.size):
        below_row, x_row = below[row * columns : (row + 1) * columns], x[row * columns : (row + 1) * columns]
        tops[row] = largest(x_row)
        for j in range(columns):
            below_row[j] = x_row[j] - tops[row]


@inner
def _exponentials(out: Any, x: Any) -> None:
    fill_registers()
    for i in range(x.size):
        out[i] = exp(x[i])


@inner
def _spread(scratch: Any, below: Any, class_weights: Any, log_total: Any) -> Any:
    """Return the sum of all classes' losses."""
    fill_registers()
    for j in range(below.size):
        scratch[j] = (log_total - below[j]) * class_weights[j]
    return total(scratch)


@compiled
def _forward_rows(
    log_sum_exp: Any,
    row_losses: Any,
    row_weights: Any,
    x: Any,
    labels: Any,
    class_weights: Any,
    ignore_index: Any,
    smoothing: Any,
    begin: Any,
    end: Any,
) -> None:
    """Do rows ``begin`` to ``end - 1``; ``x`` is flat, the first three are written."""
    columns = class_weights.size
    rows = max(1, BLOCK // columns)
    below, exponentials = np.empty(rows * columns, x.dtype), np.empty(rows * columns, x.dtype)
    rest = x.dtype.type(1) - smoothing
    for start in range(begin, end, rows):
        stop = min(start + rows, end)
        size = (stop - start) * columns
        _below_largest(below, x[start * columns : stop * columns], log_sum_exp[start:stop], columns)
        _exponentials(exponentials[:size], below[:size])
        for row in range(start, stop):
            at = (row - start) * columns
            below_row, scratch = below[at : at + columns], exponentials[at : at + columns]
            log_total = x.dtype.type(math.log(total(scratch)))
            log_sum_exp[row] += log_total
            label = labels[row]
            if label == ignore_index:
                row_weights[row] = row_losses[row] = 0
                continue
            weight = class_weights[label]
            # Both terms relative to the largest: see the reference.
            loss = weight * (log_total - below_row[label]) * rest
            if smoothing > 0:
                loss += smoothing / x.dtype.type(columns) * _spread(scratch, below_row, class_weights, log_total)
            row_weights[row], row_losses[row] = weight, loss


@parallel
def _forward_all(
    log_sum_exp: Any,
    row_losses: Any,
    row_weights: Any,
    x: Any,
    labels: Any,
    class_weights: Any,
    ignore_index: Any,
    smoothing: Any,
    rows: Any,
) -> None:
    for chunk in prange((labels.size + rows - 1) // rows):
        begin, end = chunk * rows, min((chunk + 1) * rows, labels.size)
        _forward_rows(
            log_sum_exp, row_losses, row_weights, x, labels, class_weights, ignore_index, smoothing, begin, end
        )


@inner
def _probabilities(p: Any, x: Any, log_sum_exp: Any, columns: Any) -> None:
    """Not quite: their sum is 1 but for the rounding of ``log_sum_exp``."""
    fill_registers()
    for row in range(log_sum_exp.size):
        p_row, x_row = p[row * columns : (row + 1) * columns], x[row * columns : (row + 1) * columns]
        for j in range(columns):
            p_row[j] = x_row[j] - log_sum_exp[row]
    for i in range(p.size):
        p[i] = exp(p[i])


@inner
def _row_gradient(row: Any, mass: Any, target: Any, label: Any, class_weights: Any, share: Any, factor: Any) -> None:
    """Turn probabilities into the gradient of their logits: (mass * p - target) * factor.

    ``target`` is what the label has beside the ``share`` of every class.
    """
    fill_registers()
    mass = mass / total(row)
    at_label = (row[label] * mass - (target + share * class_weights[label])) * factor
    for j in range(row.size):
        row[j] = (row[j] * mass - share * class_weights[j]) * factor
    row[label] = at_label


@compiled
def _backward_rows(
    grad_x: Any,
    x: Any,
    labels: Any,
    class_weights: Any,
    log_sum_exp: Any,
    ignore_index: Any,
    smoothing: Any,
    factor: Any,
    begin: Any,
    end: Any,
) -> None:
    columns = class_weights.size
    rows = max(1, BLOCK // columns)
    share = smoothing / x.dtype.type(columns)
    rest = x.dtype.type(1) - smoothing
    spread = share * total(class_weights)
    for start in range(begin, end, rows):
        stop = min(start + rows, end)
        part = slice(start * columns, stop * columns)
        _probabilities(grad_x[part], x[part], log_sum_exp[start:stop], columns)
        for row in range(start, stop):
            grad_row, label = grad_x[row * columns : (row + 1) * columns], labels[row]
            if label == ignore_index:
                for j in range(columns):
                    grad_row[j] = 0
            else:
                target = class_weights[label] * rest
                _row_gradient(grad_row, target + spread, target, label, class_weights, share, factor)


@parallel
def _backward_all(
    grad_x: Any,
    x: Any,
    labels: Any,
    class_weights: Any,
    log_sum_exp: Any,
    ignore_index: Any,
    smoothing: Any,
    factor: Any,
    rows: Any,
) -> None:
    for chunk in prange((labels.size + rows - 1) // rows):
        begin, end = chunk * rows, min((chunk + 1) * rows, labels.size)
        _backward_rows(grad_x, x, labels, class_weights, log_sum_exp, ignore_index, smoothing, factor, begin, end)


def forward(
    logits: Array, labels: Array, class_weights: Array | None, *, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array, Array]:
    check_floats(logits=logits, class_weights=class_weights)
    check_integers(labels=labels)
    check_shapes(logits=(logits, "N C"), labels=(labels, "N"), class_weights=(class_weights, "C"))
    check_ranges(label_smoothing=(label_smoothing, 0, 1))
    if logits.shape[1] == 0:
        raise ValueError(f"cross_entropy needs at least one class; the shape of logits is {logits.shape}")
    log_sum_exp, row_losses, row_weights = np.empty((3, len(logits)), logits.dtype)
    arrays = log_sum_exp, row_losses, row_weights, *_inputs(logits, labels, class_weights)
    options = ignore_index, logits.dtype.type(label_smoothing)
    rows = _rows_of_a_chunk(logits)
    if len(logits) <= rows:
        _forward_rows(*arrays, *options, 0, len(logits))
    else:
        _forward_all(*arrays, *options, rows)
    total_weight = row_weights.sum()
    # Without weight, of no rows or of rows whose labels all weigh 0, there is nothing to average.
    loss = row_losses.sum() / total_weight if total_weight != 0 else total_weight
    return np.asarray(loss), log_sum_exp, np.asarray(total_weight)


def backward(
    grad_loss: Array,
    logits: Array,
    labels: Array,
    class_weights: Array | None,
    log_sum_exp: Array,
    total_weight: Array,
    *,
    ignore_index: int,
    label_smoothing: float,
) -> Array:
    check_floats(
        grad_loss=grad_loss,
        logits=logits,
        class_weights=class_weights,
        log_sum_exp=log_sum_exp,
        total_weight=total_weight,
    )
    check_integers(labels=labels)
    check_shapes(
        grad_loss=(grad_loss, ""),
        logits=(logits, "N C"),
        labels=(labels, "N"),
        class_weights=(class_weights, "C"),
        log_sum_exp=(log_sum_exp, "N"),
        total_weight=(total_weight, ""),
    )
    check_ranges(label_smoothing=(label_smoothing, 0, 1))
    if total_weight == 0:
        return np.zeros_like(logits)
    grad_logits = np.empty_like(logits)
    arrays = grad_logits.reshape(-1), *_inputs(logits, labels, class_weights), log_sum_exp
    number = logits.dtype.type
    options = ignore_index, number(label_smoothing), number(grad_loss) / number(total_weight)
    rows = _rows_of_a_chunk(logits)
    if len(logits) <= rows:
        _backward_rows(*arrays, *options, 0, len(logits))
    else:
        _backward_all(*arrays, *options, rows)
    return grad_logits


def _inputs(logits: Array, labels: Array, class_weights: Array | None) -> tuple[Array, Array, Array]:
    """Return the logits flat, labels in the one width that is compiled for, and class weights."""
    if class_weights is None:
        class_weights = np.ones(logits.shape[1], logits.dtype)
    return logits.reshape(-1), labels.astype(np.int64, copy=False), class_weights


def _rows_of_a_chunk(logits: Array) -> int:
    return max(1, CHUNK // max(1, logits.shape[1]))
