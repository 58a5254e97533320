"""Bias and GELU in CUDA; see gelu.cu."""

from __future__ import annotations

import numpy as np

from minitl.kernels.columns import COLUMNS, ROWS_AT_ONCE, chunks_of, sum_chunks
from minitl.kernels.gelu.reference import VARIANTS
from minitl.kernels.launch import Array, array_module, check_choice, check_floats, check_shapes
from minitl.kernels.program import THREADS, Program, blocks_for, per_type

PROGRAM = Program(
    __file__,
    per_type(
        "gelu_forward<,false>", "gelu_forward<,true>", "gelu_backward<,false>", "gelu_backward<,true>", "sum_chunks"
    ),
)


def forward(x: Array, bias: Array | None, *, approximate: str) -> Array:
    check_floats(x=x, bias=bias)
    check_shapes(x=(x, "N F"), bias=(bias, "F"))
    check_choice("approximate", approximate, VARIANTS)
    y = array_module(x).empty_like(x)
    if x.size:
        name = f"gelu_forward<,{_tanh(approximate)}>"
        PROGRAM.launch(name, x, blocks_for(x.size), THREADS, x, bias, y, np.int64(x.size), np.int32(x.shape[1]))
    return y


def backward(grad_y: Array, x: Array, bias: Array | None, *, approximate: str) -> tuple[Array, Array | None]:
    check_floats(grad_y=grad_y, x=x, bias=bias)
    check_shapes(grad_y=(grad_y, "N F"), x=(x, "N F"), bias=(bias, "F"))
    check_choice("approximate", approximate, VARIANTS)
    xp = array_module(x)
    rows, columns = x.shape
    grad_x = xp.empty_like(x)
    chunks = chunks_of(rows)
    partial_bias = None if bias is None else xp.zeros((chunks, columns), x.dtype)
    if x.size:
        grid = (chunks, -(-columns // COLUMNS))
        sizes = np.int64(rows), np.int32(columns)
        name = f"gelu_backward<,{_tanh(approximate)}>"
        PROGRAM.launch(name, x, grid, (COLUMNS, ROWS_AT_ONCE), grad_y, x, bias, grad_x, partial_bias, *sizes)
    return grad_x, None if partial_bias is None else sum_chunks(PROGRAM, partial_bias)


def _tanh(approximate: str) -> str:
    return "true" if approximate == "tanh" else "false"
