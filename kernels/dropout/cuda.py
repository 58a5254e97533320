"""Dropout in CUDA; see dropout.cu."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np

from minitl.kernels.launch import Array, array_module, check_dropout, check_floats, check_rows
from minitl.kernels.program import C_TYPES, THREADS, Program, blocks_for, dropout_options, per_type

PROGRAM = Program(__file__, [*per_type("drop"), f"kept<{C_TYPES['bool']}>"])


def keep_mask(
    shape: tuple[int, ...], *, probability: float, seed: int, call: int, first: int = 0, xp: ModuleType
) -> Array:
    check_dropout(probability, seed=seed, call=call, first=first)
    keep: Array = xp.empty(shape, np.bool_)
    if keep.size:
        threshold = np.uint32(math.floor(probability * 2**32))
        numbers = np.int64(keep.size), np.uint64(first), threshold, np.uint64(seed), np.uint64(call)
        PROGRAM.launch("kept", keep, blocks_for(keep.size // 4 + 2), THREADS, keep, *numbers)
    return keep


def forward(x: Array, *, probability: float, seed: int, call: int, first: int = 0, rows: Array | None = None) -> Array:
    check_floats(x=x)
    check_rows(rows, first=first, x=x)
    return _drop(x, probability, seed, call, first, rows)


def backward(
    grad_y: Array, *, probability: float, seed: int, call: int, first: int = 0, rows: Array | None = None
) -> Array:
    check_floats(grad_y=grad_y)
    check_rows(rows, first=first, grad_y=grad_y)
    return _drop(grad_y, probability, seed, call, first, rows)


def _drop(x: Array, probability: float, seed: int, call: int, first: int, rows: Array | None) -> Array:
    check_dropout(probability, seed=seed, call=call, first=first)
    if probability == 0:
        return x
    xp = array_module(x)
    y = xp.empty_like(x)
    if x.size == 0:
        return y
    count, columns = (1, x.size) if rows is None else x.shape
    numbers = None if rows is None else xp.ascontiguousarray(rows, dtype=np.int64)
    PROGRAM.launch(
        "drop",
        x,
        blocks_for(count * (columns // 4 + 2)),
        THREADS,
        *(x, numbers, y, np.int64(count), np.int64(columns), np.uint64(first)),
        *dropout_options(probability, seed, call, x),
    )
    return y
