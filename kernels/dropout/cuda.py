"""Dropout in CUDA; see dropout.cu."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np

from minitl.kernels.launch import Array, array_module, check_activations, check_dropout, check_rows
from minitl.kernels.philox.cuda import words
from minitl.kernels.program import THREADS, Program, blocks_for, dropout_options, per_short_type, per_type

PROGRAM = Program(__file__, [*per_type("drop"), *per_short_type(forward_only=["drop"])])


def keep_mask(
    shape: tuple[int, ...], *, probability: float, seed: int, call: int, first: int = 0, xp: ModuleType
) -> Array:
    check_dropout(probability, seed=seed, call=call, first=first)
    threshold = math.floor(probability * 2**32)
    mask: Array = words(math.prod(shape), seed=seed, call=call, first=first, xp=xp) >= threshold
    return mask.reshape(shape)


def forward(x: Array, *, probability: float, seed: int, call: int, first: int = 0, rows: Array | None = None) -> Array:
    check_activations(x=x)
    check_rows(rows, first=first, x=x)
    return _drop(x, probability, seed, call, first, rows)


def backward(
    grad_y: Array, *, probability: float, seed: int, call: int, first: int = 0, rows: Array | None = None
) -> Array:
    check_activations(grad_y=grad_y)
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
