"""Residual add, dropout and layer normalisation in CUDA; see layer_norm.cu."""

from __future__ import annotations

import math

import numpy as np

from minitl.kernels.columns import COLUMNS, ROWS_AT_ONCE, chunks_of, sum_chunks
from minitl.kernels.launch import (
    Array,
    array_module,
    check_dropout,
    check_floats,
    check_ranges,
    check_rows,
    check_shapes,
)
from minitl.kernels.program import Program, dropout_options, per_type

THREADS = 128
FORWARD, BACKWARD = f"layer_norm_forward<,{THREADS}>", f"layer_norm_backward<,{THREADS}>"
PROGRAM = Program(__file__, per_type(FORWARD, BACKWARD, "layer_norm_parameters", "sum_chunks"))


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
    xp = array_module(x)
    y = xp.empty_like(x)
    total = x if residual is None and dropout == 0 else xp.empty_like(x)
    mean, rstd = xp.empty(len(x), x.dtype), xp.empty(len(x), x.dtype)
    if len(x):
        arrays = x, residual, weight, bias, _numbers(rows, x), y, total, mean, rstd
        options = np.int64(x.shape[1]), x.dtype.type(eps), *dropout_options(dropout, seed, call, x)
        PROGRAM.launch(FORWARD, x, len(x), THREADS, *arrays, *options)
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
    check_floats(grad_y=grad_y, total=total, weight=weight, mean=mean, rstd=rstd)
    check_shapes(grad_y=(grad_y, "N D"), total=(total, "N D"), weight=(weight, "D"), mean=(mean, "N"), rstd=(rstd, "N"))
    check_dropout(dropout, seed=seed, call=call)
    check_rows(rows, grad_y=grad_y)
    xp = array_module(grad_y)
    count, columns = grad_y.shape
    grad_total = xp.empty_like(grad_y)
    grad_x = grad_total if dropout == 0 else xp.empty_like(grad_y)
    offsets = xp.empty(count, grad_y.dtype)
    chunks = chunks_of(count)
    partial_weight, partial_bias = xp.zeros((2, chunks, columns), grad_y.dtype)
    if grad_y.size:
        arrays = grad_y, total, weight, mean, rstd, _numbers(rows, grad_y), grad_x, grad_total, offsets
        options = np.int64(columns), *dropout_options(dropout, seed, call, grad_y)
        PROGRAM.launch(BACKWARD, grad_y, count, THREADS, *arrays, *options)
        sums = grad_y, total, mean, rstd, offsets, partial_weight, partial_bias
        grid = chunks, -(-columns // COLUMNS)
        sizes = np.int64(count), np.int32(columns)
        PROGRAM.launch("layer_norm_parameters", grad_y, grid, (COLUMNS, ROWS_AT_ONCE), *sums, *sizes)
    grad_weight, grad_bias = sum_chunks(PROGRAM, partial_weight), sum_chunks(PROGRAM, partial_bias)
    return grad_x, grad_total, grad_weight, grad_bias


def _numbers(rows: Array | None, x: Array) -> Array | None:
    return None if rows is None else array_module(x).ascontiguousarray(rows, dtype=np.int64)
