"""Bias and GELU compiled: one pass over the elements, cut into chunks of rows of fixed size.

Whatever stands between reading an element and writing the result stays in a register; the reference makes twenty
passes through memory. The gradient of the bias is a sum over rows: each chunk adds up its own rows, and the sums of the
chunks are added in order, so that it does not matter which thread had which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from minitl.kernels.compiled import compiled, parallel
from minitl.kernels.gelu.reference import VARIANTS
from minitl.kernels.launch import Array, check_choice, check_floats, check_shapes
from minitl.kernels.vector_math import fill_registers, normal_distribution, tanh_distribution

CHUNK = 2**14  # elements


@compiled
def _forward_rows(y: Any, x: Any, bias: Any, tanh: Any, begin: Any, end: Any) -> None:
    fill_registers()
    for row in range(begin, end):
        y_row, x_row = y[row], x[row]
        if tanh:
            for j in range(bias.size):
                u = x_row[j] + bias[j]
                y_row[j] = u * tanh_distribution(u)[0]
        else:
            for j in range(bias.size):
                u = x_row[j] + bias[j]
                y_row[j] = u * normal_distribution(u)[0]


@parallel
def _forward_all(y: Any, x: Any, bias: Any, tanh: Any, rows: Any) -> None:
    for chunk in prange((len(x) + rows - 1) // rows):
        _forward_rows(y, x, bias, tanh, chunk * rows, min((chunk + 1) * rows, len(x)))


@compiled
def _backward_rows(
    grad_x: Any, grad_bias: Any, grad_y: Any, x: Any, bias: Any, tanh: Any, begin: Any, end: Any
) -> None:
    fill_registers()
    for row in range(begin, end):
        grad_x_row, grad_y_row, x_row = grad_x[row], grad_y[row], x[row]
        if tanh:
            for j in range(bias.size):
                u = x_row[j] + bias[j]
                distribution, density = tanh_distribution(u)
                grad_u = grad_y_row[j] * (distribution + u * density)
                grad_x_row[j] = grad_u
                grad_bias[j] += grad_u
        else:
            for j in range(bias.size):
                u = x_row[j] + bias[j]
                distribution, density = normal_distribution(u)
                grad_u = grad_y_row[j] * (distribution + u * density)
                grad_x_row[j] = grad_u
                grad_bias[j] += grad_u


@parallel
def _backward_all(grad_x: Any, grad_biases: Any, grad_y: Any, x: Any, bias: Any, tanh: Any, rows: Any) -> None:
    for chunk in prange(len(grad_biases)):
        begin, end = chunk * rows, min((chunk + 1) * rows, len(x))
        _backward_rows(grad_x, grad_biases[chunk], grad_y, x, bias, tanh, begin, end)


def forward(x: Array, bias: Array | None, *, approximate: str) -> Array:
    check_floats(x=x, bias=bias)
    check_shapes(x=(x, "N F"), bias=(bias, "F"))
    check_choice("approximate", approximate, VARIANTS)
    some_bias = np.zeros(x.shape[1], x.dtype) if bias is None else bias
    y = np.empty_like(x)
    rows = _rows_of_a_chunk(x)
    if len(x) <= rows:
        _forward_rows(y, x, some_bias, approximate == "tanh", 0, len(x))
    else:
        _forward_all(y, x, some_bias, approximate == "tanh", rows)
    return y


def backward(grad_y: Array, x: Array, bias: Array | None, *, approximate: str) -> tuple[Array, Array | None]:
    check_floats(grad_y=grad_y, x=x, bias=bias)
    check_shapes(grad_y=(grad_y, "N F"), x=(x, "N F"), bias=(bias, "F"))
    check_choice("approximate", approximate, VARIANTS)
    some_bias = np.zeros(x.shape[1], x.dtype) if bias is None else bias
    grad_x = np.empty_like(x)
    rows = _rows_of_a_chunk(x)
    chunks = max(1, (len(x) + rows - 1) // rows)
    grad_biases = np.zeros((chunks, x.shape[1]), x.dtype)
    if chunks == 1:
        _backward_rows(grad_x, grad_biases[0], grad_y, x, some_bias, approximate == "tanh", 0, len(x))
    else:
        _backward_all(grad_x, grad_biases, grad_y, x, some_bias, approximate == "tanh", rows)
    return grad_x, None if bias is None else grad_biases.sum(axis=0)


def _rows_of_a_chunk(x: Array) -> int:
    return max(1, CHUNK // max(1, x.shape[1]))
