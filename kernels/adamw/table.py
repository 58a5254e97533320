"""The tables that AdamW's kernels work through: what a step of each segment is made of, and chunks of equal size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl.kernels.adamw import Segment
from minitl.kernels.launch import Array

CHUNK = 2**14  # elements that are updated, or whose squares are summed, in one turn

SHADOW = 3  # the column in which CUDA's table of chunks says whether a copy in bfloat16 is written

# What a segment's step is made of: columns of the table of options, in the dtype of the buffers. DECAYS, RESTS and
# NEAR_GRADIENT are 0 or 1.
FACTOR, STEP_SIZE, CORRECTION, EPS, DECAYS, DECAY, RESTS, NEAR_GRADIENT, BETA1, WEIGHT1, BETA2, WEIGHT2 = range(12)


def _options(segment: Segment, beta1: float, beta2: float, eps: float, dtype: Any) -> tuple[float, ...]:
    """Return a segment's row of the table, for the formula of ``reference._step``."""
    _, _, learning_rate, weight_decay, step, factor = segment
    step_size = learning_rate / (1 - beta1**step)
    correction = math.sqrt(1 - beta2**step)
    rests = 0 <= dtype.type(step_size) < math.inf and dtype.type(eps) > 0
    shared = (factor, step_size, correction, eps, weight_decay != 0, learning_rate * weight_decay, rests, False)
    return (*shared, beta1, 1 - beta1, beta2, 1 - beta2)


def _options_of_torch(segment: Segment, beta1: float, beta2: float, eps: float, dtype: Any) -> tuple[float, ...]:
    """Return a segment's row of the table, for the formula of ``reference._step_of_torch``."""
    _, _, learning_rate, weight_decay, step, factor = segment
    step_size = learning_rate / (1 - beta1**step)
    correction = (1 - beta2**step) ** 0.5
    rests = 0 <= dtype.type(step_size) < math.inf and dtype.type(eps) > 0
    weight = float(dtype.type(1 - beta1))
    near_gradient = weight >= 0.5
    shared = (factor, -step_size, correction, eps, weight_decay != 0, 1 - learning_rate * weight_decay, rests)
    return (*shared, near_gradient, beta1, weight - near_gradient, beta2, 1 - beta2)


def options_of(
    segments: Sequence[Segment], *, beta1: float, beta2: float, eps: float, torch_compat: bool, dtype: Any
) -> Array:
    """Return the table of options, (segments, 12) in the dtype of the buffers."""
    make = _options_of_torch if torch_compat else _options
    kinds = {segment[2:]: segment for segment in segments}  # few: most segments are updated alike
    lines = {kind: make(segment, beta1, beta2, eps, dtype) for kind, segment in kinds.items()}
    return np.array([lines[segment[2:]] for segment in segments], dtype=dtype).reshape(-1, WEIGHT2 + 1)


def cut(ranges: Array) -> Array:
    """Cut ranges (R, 2 + ...), lines of begin, end and what goes with them, into chunks."""
    lengths = ranges[:, 1] - ranges[:, 0]
    counts = -(-lengths // CHUNK)
    table: Array = np.repeat(ranges, counts, axis=0)
    ends = table[:, 1].copy()
    table[:, 0] += CHUNK * (np.arange(len(table)) - np.repeat(np.cumsum(counts) - counts, counts))
    table[:, 1] = np.minimum(table[:, 0] + CHUNK, ends)
    return table


def chunks(segments: Sequence[Segment], masks: Sequence[Array | None]) -> Array:
    """Return the table of chunks: begin, end, number of the segment, whether it rests.

    A segment is one range before it is cut, a table one for each stretch of neighbouring rows that rest or do not.
    """
    pairs = list(enumerate(zip(segments, masks, strict=True)))
    plain = [(one.offset, one.offset + one.length, number, 0) for number, (one, mask) in pairs if mask is None]
    tables = [_stretches(number, one, mask) for number, (one, mask) in pairs if mask is not None and mask.size]
    return cut(np.concatenate([np.array(plain, dtype=np.int64).reshape(-1, 4), *tables]))


def _stretches(number: int, segment: Segment, mask: Array) -> Array:
    width = segment.length // mask.size
    starts = np.concatenate([[0], np.flatnonzero(mask[1:] != mask[:-1]) + 1])
    stops = np.append(starts[1:], mask.size)
    numbers = np.full(starts.size, number)
    return np.stack([segment.offset + starts * width, segment.offset + stops * width, numbers, ~mask[starts]], axis=1)
