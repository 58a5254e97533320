"""AdamW over flat buffers in CUDA; see adamw.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minitl.kernels.adamw import Segment, Touched, check_segments, check_touched
from minitl.kernels.adamw.table import CHUNK, chunks, options_of
from minitl.kernels.launch import Array, array_module, check_floats, check_ranges, check_shapes
from minitl.kernels.program import THREADS, Program, per_type

PROGRAM = Program(__file__, per_type("adamw_update", "adamw_update_of_torch", "sum_of_squares"))


def update(
    parameters: Array,
    gradients: Array,
    first_moment: Array,
    second_moment: Array,
    *,
    segments: Sequence[Segment],
    beta1: float,
    beta2: float,
    eps: float,
    torch_compat: bool,
    touched: Touched = None,
) -> None:
    buffers = (parameters, gradients, first_moment, second_moment)
    check_floats(parameters=parameters, gradients=gradients, first_moment=first_moment, second_moment=second_moment)
    moments = {"first_moment": (first_moment, "P"), "second_moment": (second_moment, "P")}
    check_shapes(parameters=(parameters, "P"), gradients=(gradients, "P"), **moments)
    check_ranges(beta1=(beta1, 0, 1), beta2=(beta2, 0, 1), eps=(eps, 0, math.inf))
    check_segments(segments, size=parameters.size)
    check_touched(touched, lengths=[segment.length for segment in segments])
    xp = array_module(parameters)
    numbers = {"beta1": beta1, "beta2": beta2, "eps": eps}
    options = options_of(segments, **numbers, torch_compat=torch_compat, dtype=parameters.dtype)
    table = chunks(segments, [None] * len(segments))
    if len(table):
        name = "adamw_update_of_torch" if torch_compat else "adamw_update"
        PROGRAM.launch(name, parameters, len(table), THREADS, *buffers, xp.asarray(table), xp.asarray(options))


def global_norm(gradients: Sequence[Array], *, touched: Touched = None) -> float:
    check_touched(touched, lengths=[gradient.size for gradient in gradients])
    total = 0.0
    for gradient in gradients:
        check_floats(gradient=gradient)
        check_shapes(gradient=(gradient, "P"))
        total += _sum_of_squares(gradient)
    return math.sqrt(total)


def _sum_of_squares(x: Array) -> float:
    sums = array_module(x).empty(-(-x.size // CHUNK), np.float64)
    if x.size:
        PROGRAM.launch("sum_of_squares", x, len(sums), THREADS, x, sums, np.int64(x.size), np.int64(CHUNK))
    return math.fsum(sums.tolist())
