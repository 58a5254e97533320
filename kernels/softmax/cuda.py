"""Scale, mask, softmax and dropout in CUDA; see softmax.cu."""

from __future__ import annotations

import numpy as np

from minitl.kernels.launch import (
    Array,
    array_module,
    check_activations,
    check_dropout,
    check_masks,
    check_shapes,
    wide,
)
from minitl.kernels.program import Program, dropout_options, per_short_type, per_type

THREADS = 128
FORWARD, BACKWARD = f"softmax_forward<,{THREADS}>", f"softmax_backward<,{THREADS}>"
PROGRAM = Program(__file__, [*per_type(FORWARD, BACKWARD), *per_short_type(BACKWARD, forward_only=[FORWARD])])


def forward(
    x: Array,
    mask: Array | None,
    *,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
    first: int = 0,
) -> tuple[Array, Array]:
    check_activations(x=x)
    check_masks(mask=mask)
    check_shapes(x=(x, "N C"), mask=(mask, "N C"))
    check_dropout(dropout, seed=seed, call=call, first=first)
    if x.shape[1] == 0:
        raise ValueError(f"softmax needs at least one column; the shape of x is {x.shape}")
    xp = array_module(x)
    probabilities = xp.empty_like(x)
    y = probabilities if dropout == 0 else xp.empty_like(x)
    if len(x):
        numbers = np.int64(x.shape[1]), wide(x.dtype).type(scale), np.uint64(first)
        options = dropout_options(dropout, seed, call, x)
        PROGRAM.launch(FORWARD, x, len(x), THREADS, x, mask, y, probabilities, *numbers, *options)
    return y, probabilities


def backward(
    grad_y: Array,
    probabilities: Array,
    *,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
    first: int = 0,
) -> Array:
    check_activations(grad_y=grad_y, probabilities=probabilities)
    check_shapes(grad_y=(grad_y, "N C"), probabilities=(probabilities, "N C"))
    check_dropout(dropout, seed=seed, call=call, first=first)
    grad_x = array_module(grad_y).empty_like(grad_y)
    if grad_y.size:
        numbers = np.int64(grad_y.shape[1]), wide(grad_y.dtype).type(scale), np.uint64(first)
        options = dropout_options(dropout, seed, call, grad_y)
        PROGRAM.launch(BACKWARD, grad_y, len(grad_y), THREADS, grad_y, probabilities, grad_x, *numbers, *options)
    return grad_x
