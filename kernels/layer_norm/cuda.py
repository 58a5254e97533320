"""Residual add, dropout and layer normalisation in CUDA; see layer_norm.cu."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minitl.kernels.columns import BLOCK, CHUNK_ROWS, COLUMNS, chunks_of, sum_chunks, sum_chunks_into
from minitl.kernels.launch import (
    Array,
    array_module,
    check_activations,
    check_dropout,
    check_floats,
    check_ranges,
    check_rows,
    check_shapes,
    wide,
)
from minitl.kernels.program import Program, dropout_options, packs_fit, per_short_type, per_type

WARPS, WARP_SIZE, ROWS_OF_A_BLOCK, STEP = 8, 32, 16, 256  # as in layer_norm.cu
MOST_PACKS = 4  # rows of at most 1,024 are kept in registers
# In float64, which is for checking derivatives, they would not fit.
_PACKED = [f"layer_norm_{way}<,{packs}>" for way in ("forward", "backward") for packs in range(1, MOST_PACKS + 1)]
_FORWARD = [*_PACKED[:MOST_PACKS], "layer_norm_forward_long"]
_BACKWARD = [*_PACKED[MOST_PACKS:], "layer_norm_backward_long", "layer_norm_parameters"]


def _shared_bytes(name: str) -> int:
    """Return what ``layer_norm_backward<T,PACKS>`` asks for: two rows of float32 for each warp."""
    kernel, _, arguments = name.rstrip(">").partition("<")
    return 2 * WARPS * STEP * 4 * int(arguments.split(",")[1]) if kernel == "layer_norm_backward" else 0


PROGRAM = Program(
    __file__,
    [
        *per_type("layer_norm_forward_long", "layer_norm_backward_long", "layer_norm_parameters", "sum_chunks"),
        *(name.replace("<,", "<float,") for name in _PACKED),
        *per_short_type(*_BACKWARD, forward_only=_FORWARD),
    ],
    dynamic_shared_bytes=_shared_bytes,
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
    check_activations({"weight": weight, "bias": bias}, x=x, residual=residual)
    check_shapes(x=(x, "N D"), residual=(residual, "N D"), weight=(weight, "D"), bias=(bias, "D"))
    check_ranges(eps=(eps, 0, math.inf))
    check_dropout(dropout, seed=seed, call=call)
    check_rows(rows, x=x)
    if x.shape[1] == 0:
        raise ValueError(f"layer_norm needs at least one column; the shape of x is {x.shape}")
    xp = array_module(x)
    y = xp.empty_like(x)
    total = x if residual is None and dropout == 0 else xp.empty_like(x)
    mean, rstd = xp.empty(len(x), wide(x.dtype)), xp.empty(len(x), wide(x.dtype))
    if len(x):
        arrays = x, residual, weight, bias, _numbers(rows, x), y, total, mean, rstd
        sizes = np.int64(len(x)), np.int32(x.shape[1])
        options = wide(x.dtype).type(eps), *dropout_options(dropout, seed, call, x)
        packs = _packs(x, residual, weight, bias)
        name = f"layer_norm_forward<,{packs}>" if packs else "layer_norm_forward_long"
        blocks = -(-len(x) // WARPS) if packs else len(x)
        PROGRAM.launch(name, x, blocks, WARPS * WARP_SIZE, *arrays, *sizes, *options)
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
    check_activations({"weight": weight, "mean": mean, "rstd": rstd}, grad_y=grad_y, total=total)
    check_shapes(grad_y=(grad_y, "N D"), total=(total, "N D"), weight=(weight, "D"), mean=(mean, "N"), rstd=(rstd, "N"))
    check_dropout(dropout, seed=seed, call=call)
    check_rows(rows, grad_y=grad_y)
    options = {"dropout": dropout, "seed": seed, "call": call, "rows": rows}
    grad_x, grad_total, partial = _backward(grad_y, total, weight, mean, rstd, options)
    grad_weight, grad_bias = sum_chunks(PROGRAM, partial)
    return grad_x, grad_total, grad_weight, grad_bias


def backward_into(
    grad_y: Array,
    total: Array,
    weight: Array,
    mean: Array,
    rstd: Array,
    *,
    grad_weight: Array,
    grad_bias: Array,
    accumulate: bool,
    **options: Any,
) -> tuple[Array, Array]:
    """Do what ``backward`` does, with its options, and write the parameters' gradients, or add them to what is there.

    Returns:
        grad_x and grad_residual.
    """
    check_floats(grad_weight=grad_weight, grad_bias=grad_bias)
    check_shapes(weight=(weight, "D"), grad_weight=(grad_weight, "D"), grad_bias=(grad_bias, "D"))
    grad_x, grad_total, partial = _backward(grad_y, total, weight, mean, rstd, options)
    sum_chunks_into(PROGRAM, partial, [grad_weight, grad_bias], accumulate)
    return grad_x, grad_total


def _backward(
    grad_y: Array, total: Array, weight: Array, mean: Array, rstd: Array, options: dict[str, Any]
) -> tuple[Array, Array, Array]:
    """Return grad_x, grad_total, and the parameters' gradients from each chunk of rows, (2, chunks, D)."""
    xp = array_module(grad_y)
    dropout, rows = options["dropout"], options["rows"]
    seed, call = options["seed"], options["call"]
    count, columns = grad_y.shape
    grad_total = xp.empty_like(grad_y)
    grad_x = grad_total if dropout == 0 else xp.empty_like(grad_y)
    packs = _packs(grad_y, total, weight)
    chunks = chunks_of(count, ROWS_OF_A_BLOCK if packs else CHUNK_ROWS)
    partial = xp.empty((2, chunks, columns), wide(grad_y.dtype))
    if grad_y.size == 0:
        partial[...] = 0
        return grad_x, grad_total, partial
    arrays = grad_y, total, weight, mean, rstd, _numbers(rows, grad_y), grad_x, grad_total
    numbers = dropout_options(dropout, seed, call, grad_y)
    sizes = np.int64(count), np.int32(columns)
    if packs:
        name = f"layer_norm_backward<,{packs}>"
        shared = _shared_bytes(f"layer_norm_backward<,{packs}>")
        arguments = *arrays, partial, *sizes, *numbers
        PROGRAM.launch(name, grad_y, chunks, WARPS * WARP_SIZE, *arguments, shared_memory=shared)
    else:
        offsets = xp.empty(count, wide(grad_y.dtype))
        arguments = *arrays, offsets, sizes[1], *numbers
        PROGRAM.launch("layer_norm_backward_long", grad_y, count, WARPS * WARP_SIZE, *arguments)
        grid = chunks, -(-columns // COLUMNS)
        sums = grad_y, total, mean, rstd, offsets, partial
        PROGRAM.launch("layer_norm_parameters", grad_y, grid, BLOCK, *sums, *sizes)
    return grad_x, grad_total, partial


def _packs(*arrays: Array | None) -> int:
    """Return how many times eight elements a lane has of a row, or 0 where the row is not read so."""
    columns = next(array.shape[-1] for array in arrays if array is not None)
    wide_enough = arrays[0] is not None and arrays[0].dtype != np.float64 and columns <= MOST_PACKS * STEP
    return -(-columns // STEP) if wide_enough and packs_fit(*arrays) else 0


def _numbers(rows: Array | None, x: Array) -> Array | None:
    return None if rows is None else array_module(x).ascontiguousarray(rows, dtype=np.int64)
