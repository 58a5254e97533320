"""Learning-rate schedules: a factor between 0 and 1 for each step, applied to every group's own rate.

    1 |    /\\
      |   /   \\             linear warm-up, then linear or cosine decay to 0 at the last step
    0 +--/------\\-----> step
"""

from __future__ import annotations

import math
from collections.abc import Callable

from minitl.optim.optimizer import Optimizer


def linear_factor(step: int, warmup: int, total: int) -> float:
    """Return the factor of step ``step`` (from 0): 0 up to 1 over ``warmup`` steps, then down to 0 at step ``total``.

    >>> [linear_factor(step, 2, 6) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup:
        return step / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def cosine_factor(step: int, warmup: int, total: int) -> float:
    """Return the factor of step ``step``: linear warm-up, then half a cosine from 1 down to 0 at step ``total``.

    >>> [round(cosine_factor(step, 2, 6), 3) for step in range(7)]
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return step / warmup
    if step >= total:
        return 0.0
    progress = (step - warmup) / (total - warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def constant_factor(step: int, warmup: int, total: int) -> float:
    """Return the factor of step ``step``: linear warm-up, then 1.

    >>> [constant_factor(step, 2, 6) for step in range(4)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return step / warmup if step < warmup else 1.0


SHAPES: dict[str, Callable[[int, int, int], float]] = {
    "linear": linear_factor,
    "cosine": cosine_factor,
    "constant": constant_factor,
}


class Schedule:
    """Sets an optimizer's learning rates for each step: call :meth:`step` after each ``optimizer.step()``.

    Args:
        optimizer: its groups' ``lr`` at this moment are the peak rates.
        total: number of steps of the whole training.
        warmup: how many of them warm up; with any, the first step has rate 0 (as in transformers).
        shape: ``"linear"`` or ``"cosine"`` decay, or ``"constant"`` for none.

    Attributes:
        step_number: of the step whose rates are set, from 0.

    Raises:
        ValueError: an unknown shape, or not 0 <= warmup <= total.
    """

    def __init__(self, optimizer: Optimizer, total: int, *, warmup: int = 0, shape: str = "linear") -> None:
        if shape not in SHAPES:
            raise ValueError(f"a schedule's shape is one of {sorted(SHAPES)}, not {shape!r}")
        if not (isinstance(warmup, int) and isinstance(total, int)):
            raise TypeError(f"warmup and total are whole numbers of steps, got {warmup} and {total}")
        if not 0 <= warmup <= total:
            raise ValueError(f"warmup must be between 0 and total ({total}), got {warmup}")
        self.optimizer, self.total, self.warmup, self.shape = optimizer, total, warmup, shape
        self._peaks = [group.lr or 0.0 for group in optimizer.groups]
        self.step_number = 0
        self._apply()

    def step(self) -> None:
        """Move on to the next step's rates."""
        self.step_number += 1
        self._apply()

    def go_to(self, step_number: int) -> None:
        """Set the rates of another step, as after ``step_number`` calls of :meth:`step` on a new schedule."""
        self.step_number = step_number
        self._apply()

    def _apply(self) -> None:
        factor = SHAPES[self.shape](self.step_number, self.warmup, self.total)
        for group, peak in zip(self.optimizer.groups, self._peaks, strict=True):
            group.lr = peak * factor
