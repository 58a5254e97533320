"""Bias and GELU in CUDA; see gelu.cu."""

from __future__ import annotations

import numpy as np

from minitl.kernels.columns import BLOCK, COLUMNS, chunks_of, sum_chunks, sum_chunks_into
from minitl.kernels.gelu.reference import VARIANTS
from minitl.kernels.launch import Array, array_module, check_activations, check_choice, check_floats, check_shapes, wide
from minitl.kernels.program import EIGHT, THREADS, Program, blocks_for, packs_fit, per_short_type, per_type

_FORWARD = [f"gelu_forward{how}<,{tanh}>" for how in ("", "_single") for tanh in ("false", "true")]
_BACKWARD = [f"gelu_backward{how}<,{tanh}>" for how in ("", "_single") for tanh in ("false", "true")]
PROGRAM = Program(
    __file__,
    [*per_type(*_FORWARD, *_BACKWARD, "sum_chunks"), *per_short_type(*_BACKWARD, forward_only=_FORWARD)],
)


def forward(x: Array, bias: Array | None, *, approximate: str) -> Array:
    check_activations({"bias": bias}, x=x)
    check_shapes(x=(x, "N F"), bias=(bias, "F"))
    check_choice("approximate", approximate, VARIANTS)
    y = array_module(x).empty_like(x)
    if x.size:
        eights = packs_fit(x, bias)
        name = f"gelu_forward{'' if eights else '_single'}<,{_tanh(approximate)}>"
        blocks = -(-x.size // (EIGHT * THREADS)) if eights else blocks_for(x.size)
        PROGRAM.launch(name, x, blocks, THREADS, x, bias, y, np.int64(x.size), np.int32(x.shape[1]))
    return y


def backward(grad_y: Array, x: Array, bias: Array | None, *, approximate: str) -> tuple[Array, Array | None]:
    check_activations({"bias": bias}, grad_y=grad_y, x=x)
    check_shapes(grad_y=(grad_y, "N F"), x=(x, "N F"), bias=(bias, "F"))
    check_choice("approximate", approximate, VARIANTS)
    grad_x, partial = _backward(grad_y, x, bias, approximate)
    return grad_x, None if partial is None else sum_chunks(PROGRAM, partial)


def backward_into(
    grad_y: Array, x: Array, bias: Array, *, approximate: str, grad_bias: Array, accumulate: bool
) -> Array:
    """Do what ``backward`` does, and write the bias's gradient, or add it to what is there; return grad_x."""
    check_floats(bias=bias, grad_bias=grad_bias)
    check_shapes(bias=(bias, "F"), grad_bias=(grad_bias, "F"))
    grad_x, partial = _backward(grad_y, x, bias, approximate)
    assert partial is not None  # there is a bias
    sum_chunks_into(PROGRAM, partial, [grad_bias], accumulate)
    return grad_x


def _backward(grad_y: Array, x: Array, bias: Array | None, approximate: str) -> tuple[Array, Array | None]:
    """Return grad_x, and the bias's gradient from each chunk of rows, (chunks, F)."""
    xp = array_module(x)
    rows, columns = x.shape
    grad_x = xp.empty_like(x)
    chunks = chunks_of(rows)
    partial_bias = None if bias is None else (xp.empty if x.size else xp.zeros)((chunks, columns), wide(x.dtype))
    if x.size:
        eights = packs_fit(grad_y, x, bias)
        grid = chunks, -(-columns // (COLUMNS * EIGHT if eights else COLUMNS))
        sizes = np.int64(rows), np.int32(columns)
        name = f"gelu_backward{'' if eights else '_single'}<,{_tanh(approximate)}>"
        PROGRAM.launch(name, x, grid, BLOCK, grad_y, x, bias, grad_x, partial_bias, *sizes)
    return grad_x, partial_bias


def _tanh(approximate: str) -> str:
    return "true" if approximate == "tanh" else "false"
