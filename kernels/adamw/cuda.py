"""AdamW over flat buffers in CUDA; see adamw.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minitl.kernels.adamw import Segment, Touched, check_segments, check_touched
from minitl.kernels.adamw.table import SHADOW, chunks, cut, options_of
from minitl.kernels.launch import Array, array_module, check_floats, check_ranges, check_shapes
from minitl.kernels.program import THREADS, Program, per_type

PROGRAM = Program(__file__, per_type("adamw_update<,false>", "adamw_update<,true>", "sum_of_squares", "clip_factor"))


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
    table[:, SHADOW] = 0
    if len(table):
        update_lines(buffers, xp.asarray(table), xp.asarray(options), torch_compat=torch_compat)


def update_lines(
    buffers: tuple[Array, Array, Array, Array],
    table: Array,
    options: Array,
    *,
    torch_compat: bool,
    shadow: Array | None = None,
    clip: Array | None = None,
) -> None:
    """Launch the update for tables that lie on the device already; arguments are trusted.

    Args:
        buffers: parameters, gradients, first and second moment, (P,) each.
        table: (L, 4) int64, as ``table.chunks``, with SHADOW in the last column.
        options: (segments, 12), as ``table.options_of``.
        torch_compat: as in ``update``.
        shadow: (P,) bfloat16, or None.
        clip: (1,), a factor of the gradients, NaN for no step; or None.
    """
    name = f"adamw_update<,{'true' if torch_compat else 'false'}>"
    PROGRAM.launch(name, buffers[0], len(table), THREADS, *buffers, table, options, shadow, clip)


def clip_lines(gradients: Array, table: Array, *, max_norm: float) -> tuple[Array, Array]:
    """Return norm and factor of the gradients that a table's lines cover, without looking at them.

    Args:
        gradients: (P,).
        table: (L, 4) int64, L at least 1.
        max_norm: the largest norm.

    Returns:
        The norm, (1,) float64, and what to multiply by, (1,) of the gradients' dtype, NaN where the norm is not finite.
    """
    xp = array_module(gradients)
    sums, norm, clip = xp.empty(len(table), np.float64), xp.empty(1, np.float64), xp.empty(1, gradients.dtype)
    PROGRAM.launch("sum_of_squares", gradients, len(table), THREADS, gradients, table, sums)
    PROGRAM.launch("clip_factor", gradients, 1, THREADS, sums, clip, norm, np.int64(len(sums)), np.float64(max_norm))
    return norm, clip


def global_norm(gradients: Sequence[Array], *, touched: Touched = None) -> float:
    check_touched(touched, lengths=[gradient.size for gradient in gradients])
    total = 0.0
    for gradient in gradients:
        check_floats(gradient=gradient)
        check_shapes(gradient=(gradient, "P"))
        total += _sum_of_squares(gradient)
    return math.sqrt(total)


def _sum_of_squares(x: Array) -> float:
    table = cut(np.array([[0, x.size, 0, 0]], np.int64))
    sums = array_module(x).empty(len(table), np.float64)
    if x.size:
        lines = array_module(x).asarray(table)
        PROGRAM.launch("sum_of_squares", x, len(sums), THREADS, x, lines, sums)
    return math.fsum(sums.tolist())
