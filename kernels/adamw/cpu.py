"""AdamW compiled: every element of the four buffers is read once and, but for the gradient, written once.

That is 28 bytes for a float32 parameter, and a machine spends more time on them than on the arithmetic. So the kernel
is one pass, whatever the number of segments: they are cut into chunks, all chunks stand in one table, and the threads
share the table. Every operation is rounded by itself, as NumPy does it, in the order of the reference: where memory is
the limit nothing is gained by fused instructions, and so a parameter's bits are the reference's, wherever its chunk
begins and whoever computes it.

Word tables are large, and a batch looks at few of their rows. A row that has never had a gradient has moments of 0, and
its step is 0 / (0 + eps): only the decay is left. ``touched`` says which rows those are, and only their parameters are
read, or nothing at all without decay. The norm leaves out blocks in which no row has a gradient: their sum is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import prange

from minitl.kernels.adamw import Segment, Touched, check_segments, check_touched
from minitl.kernels.adamw.table import (
    BETA1,
    BETA2,
    CORRECTION,
    DECAY,
    DECAYS,
    EPS,
    FACTOR,
    NEAR_GRADIENT,
    RESTS,
    STEP_SIZE,
    WEIGHT1,
    WEIGHT2,
    chunks,
    cut,
    options_of,
)
from minitl.kernels.compiled import SMALL, compiled, parallel, rounded, summing
from minitl.kernels.launch import Array, check_floats, check_ranges, check_shapes

BLOCK = 2**9  # elements whose squares are summed, or left out, together; divides CHUNK
# Chunks are dealt out like cards, to this many hands: those of a table cost less than others, and lie all together.
HANDS = 64


# -- the step of one range of elements ---------------------------------------------------------------------------------


@rounded
def _step(p: Any, g: Any, m: Any, v: Any, options: Any) -> None:
    factor, step_size, correction, eps = options[FACTOR], options[STEP_SIZE], options[CORRECTION], options[EPS]
    decays, decay = options[DECAYS] != 0, options[DECAY]
    beta1, weight1, beta2, weight2 = options[BETA1], options[WEIGHT1], options[BETA2], options[WEIGHT2]
    for i in range(p.size):
        gradient = factor * g[i]
        m[i] = beta1 * m[i] + weight1 * gradient
        v[i] = beta2 * v[i] + weight2 * gradient * gradient
        change = step_size * (m[i] / (math.sqrt(v[i]) / correction + eps))
        if decays:
            change += decay * p[i]
        p[i] -= change


@rounded
def _rest(p: Any, options: Any) -> None:
    """Take the step where gradient and moments are 0. (-0 - (0 + -0) is -0, but -0 - -0 is 0.)"""
    zero, decay = p.dtype.type(0), options[DECAY]
    if options[DECAYS] != 0:
        for i in range(p.size):
            p[i] -= zero + decay * p[i]


@rounded
def _step_of_torch(p: Any, g: Any, m: Any, v: Any, options: Any) -> None:
    factor, step_size, correction, eps = options[FACTOR], options[STEP_SIZE], options[CORRECTION], options[EPS]
    decays, decay, near_gradient = options[DECAYS] != 0, options[DECAY], options[NEAR_GRADIENT] != 0
    weight1, beta2, weight2 = options[WEIGHT1], options[BETA2], options[WEIGHT2]
    for i in range(p.size):
        gradient = factor * g[i]
        parameter = decay * p[i] if decays else p[i]
        # product and sum in float64, rounded once when they are stored
        target = gradient if near_gradient else m[i]
        m[i] = np.float64(gradient - m[i]) * np.float64(weight1) + np.float64(target)
        v[i] = np.float64(weight2 * gradient) * np.float64(gradient) + np.float64(beta2 * v[i])
        p[i] = parameter + step_size * m[i] / (math.sqrt(v[i]) / correction + eps)


@rounded
def _rest_of_torch(p: Any, options: Any) -> None:
    decay = options[DECAY]
    if options[DECAYS] != 0:
        for i in range(p.size):
            p[i] *= decay


# -- the table of chunks -----------------------------------------------------------------------------------------------


@compiled
def _update_hand(hand: Any, hands: Any, table: Any, p: Any, g: Any, m: Any, v: Any, options: Any) -> None:
    """Update every ``hands``-th chunk of the table."""
    for line in range(hand, table.shape[0], hands):
        begin, end, number, rests = table[line]
        if rests:
            _rest(p[begin:end], options[number])
        else:
            _step(p[begin:end], g[begin:end], m[begin:end], v[begin:end], options[number])


@parallel
def _update_all(table: Any, p: Any, g: Any, m: Any, v: Any, options: Any) -> None:
    for hand in prange(HANDS):
        _update_hand(hand, HANDS, table, p, g, m, v, options)


@compiled
def _update_hand_of_torch(hand: Any, hands: Any, table: Any, p: Any, g: Any, m: Any, v: Any, options: Any) -> None:
    for line in range(hand, table.shape[0], hands):
        begin, end, number, rests = table[line]
        if rests:
            _rest_of_torch(p[begin:end], options[number])
        else:
            _step_of_torch(p[begin:end], g[begin:end], m[begin:end], v[begin:end], options[number])


@parallel
def _update_all_of_torch(table: Any, p: Any, g: Any, m: Any, v: Any, options: Any) -> None:
    for hand in prange(HANDS):
        _update_hand_of_torch(hand, HANDS, table, p, g, m, v, options)


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
    numbers = {"beta1": beta1, "beta2": beta2, "eps": eps}
    options = options_of(segments, **numbers, torch_compat=torch_compat, dtype=parameters.dtype)
    # where 0 / (0 + eps) is no 0, all rows take the whole formula
    masks = [mask if options[i, RESTS] else None for i, mask in enumerate(touched or [None] * len(segments))]
    table = chunks(segments, masks)
    if sum(segment.length for segment in segments) <= SMALL:
        (_update_hand_of_torch if torch_compat else _update_hand)(0, 1, table, *buffers, options)
    else:
        (_update_all_of_torch if torch_compat else _update_all)(table, *buffers, options)


# -- the norm ----------------------------------------------------------------------------------------------------------


@summing
def _sum_of_squares(x: Any) -> Any:
    total = 0.0
    for i in range(x.size):
        wide = np.float64(x[i])
        total += wide * wide
    return total


@compiled
def _any_row(masks: Any, first: Any, last: Any) -> Any:
    found = False
    for row in range(first, last + 1):
        found |= masks[row]
    return found


@compiled
def _sum_chunk(line: Any, x: Any, masks: Any) -> Any:
    """Add up the squares of one chunk, block by block; those of a table in which the mask has no row are 0."""
    begin, end, offset, width, first = line
    total = 0.0
    for start in range(begin, end, BLOCK):
        stop = min(start + BLOCK, end)
        if width == 0 or _any_row(masks, first + (start - offset) // width, first + (stop - 1 - offset) // width):
            total += _sum_of_squares(x[start:stop])
    return total


@compiled
def _sum_hand(hand: Any, hands: Any, sums: Any, table: Any, x: Any, masks: Any) -> None:
    for chunk in range(hand, table.shape[0], hands):
        sums[chunk] = _sum_chunk(table[chunk], x, masks)


@parallel
def _sum_all(sums: Any, table: Any, x: Any, masks: Any) -> None:
    for hand in prange(HANDS):
        _sum_hand(hand, HANDS, sums, table, x, masks)


def _sum_parts(x: Array, parts: Sequence[Array], masks: Sequence[Array | None]) -> float:
    """Return the sum of the squares of parts of one flat array, each cut into chunks by itself."""
    ranges, rows = [], 0
    for part, mask in zip(parts, masks, strict=True):
        offset = (_address(part) - _address(x)) // x.itemsize
        height = 0 if mask is None else mask.size
        ranges.append((offset, offset + part.size, offset, part.size // height if height else 0, rows))
        rows += height
    table = cut(np.array(ranges, dtype=np.int64).reshape(-1, 5))
    sums = np.empty(len(table))
    flat_masks = np.concatenate([np.zeros(0, dtype=bool), *(mask for mask in masks if mask is not None)])
    if sum(part.size for part in parts) <= SMALL:
        _sum_hand(0, 1, sums, table, x, flat_masks)
    else:
        _sum_all(sums, table, x, flat_masks)
    total = 0.0
    for part_sum in sums.tolist():  # in order
        total += part_sum
    return total


def _address(x: Array) -> int:
    return int(x.__array_interface__["data"][0])


def global_norm(gradients: Sequence[Array], *, touched: Touched = None) -> float:
    check_touched(touched, lengths=[gradient.size for gradient in gradients])
    for gradient in gradients:
        check_floats(gradient=gradient)
        check_shapes(gradient=(gradient, "P"))
    masks = touched or [None] * len(gradients)
    buffer = _buffer_of(gradients)
    if buffer is not None:  # one parallel loop for all of them, not one for each
        return math.sqrt(_sum_parts(buffer, gradients, masks))
    return math.sqrt(sum(_sum_parts(one, [one], [mask]) for one, mask in zip(gradients, masks, strict=True)))


def _buffer_of(gradients: Sequence[Array]) -> Array | None:
    """Return the flat array that all gradients are parts of, an optimizer's, or None."""
    whole = gradients[0].base if gradients else None
    if not isinstance(whole, np.ndarray) or whole.ndim != 1 or not whole.flags.c_contiguous:
        return None
    return whole if all(part.base is whole and part.dtype == whole.dtype for part in gradients) else None
