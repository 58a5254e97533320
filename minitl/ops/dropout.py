"""Dropout (Srivastava et al. 2014), its mask a pure function of (seed, call, element number).

    y = x / (1 - p) where kept, else 0;      dx = dy / (1 - p) where kept, else 0

Nothing is saved: backward computes the same mask again. Where x is some rows of a larger array, as in a last layer
that is computed for scored tokens only, ``rows`` says which: an element has the number, and the mask, it has there.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from minitl.autograd import Function
from minitl.device import move
from minitl.kernels.launch import Array, contiguous
from minitl.kernels.select import select
from minitl.ops.registry import register
from minitl.random import Generator, default_generator
from minitl.tensor import Tensor


class DropoutOptions(TypedDict):
    """How a fused kernel is told about its dropout: by these keywords."""

    dropout: float
    seed: int
    call: int


def draw(probability: float, generator: Generator | None = None) -> DropoutOptions:
    """Check ``probability`` and take one call from the generator (none for probability 0).

    Raises:
        ValueError: the probability is not in [0, 1).
    """
    if not 0 <= probability < 1:
        raise ValueError(f"a dropout probability is in [0, 1), got {probability}")
    if probability == 0:
        return {"dropout": 0.0, "seed": 0, "call": 0}
    seed, call = (generator or default_generator()).next_call()
    return {"dropout": probability, "seed": seed, "call": call}


def row_numbers(rows: np.ndarray | None, shape: tuple[int, ...], *, name: str) -> np.ndarray | None:
    """Return a copy of ``rows``, since backward needs them as they are now; None stays None.

    Raises:
        TypeError: they are no integers.
        ValueError: they are not one for each row of an (N, D) of this shape, or one is negative.
    """
    if rows is None:
        return None
    numbers = np.array(rows)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"{name}: row numbers must be integers, not {numbers.dtype}")
    if len(shape) != 2 or numbers.shape != shape[:1]:
        raise ValueError(f"{name}: rows {numbers.shape} number the rows of x (N, D), which has shape {shape}")
    if (numbers < 0).any():
        raise ValueError(f"{name}: row numbers must not be negative, got {numbers.min()}")
    return numbers


def dropout(
    x: Tensor, probability: float, *, generator: Generator | None = None, rows: np.ndarray | None = None
) -> Tensor:
    """Set each element of ``x`` to 0 with the given probability and scale the others by ``1 / (1 - probability)``.

    Args:
        x: any shape; elements are numbered in C order. With ``rows`` (N, D).
        probability: in [0, 1).
        generator: where the call number comes from, the default generator if None.
        rows: (N,) integers: ``x`` is these rows of a larger array, whose elements are numbered. None for 0 to N - 1.

    Raises:
        TypeError: ``rows`` that are no integers.
        ValueError: a probability out of range, or ``rows`` that do not fit.
    """
    rows = row_numbers(rows, x.shape, name="dropout")
    options = draw(probability, generator)
    return Dropout.apply(x, rows=rows, **options)


@register("dropout")
class Dropout(Function):
    def forward(self, x: Array, *, rows: np.ndarray | None, dropout: float, seed: int, call: int) -> Array:
        self.options = {"probability": dropout, "seed": seed, "call": call}
        self.rows = None if rows is None else move(rows, self.device)
        y: Array = select("dropout", self.device).forward(contiguous(x), **self.options, rows=self.rows)
        return y

    def backward(self, grad_y: Array) -> Array:
        kernel = select("dropout", self.device)
        grad_x: Array = kernel.backward(contiguous(grad_y), **self.options, rows=self.rows)
        return grad_x
