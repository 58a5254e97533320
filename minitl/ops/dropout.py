"""Dropout (Srivastava et al. 2014), its mask a pure function of (seed, call, element number).

    y = x / (1 - p) where kept, else 0;      dx = dy / (1 - p) where kept, else 0

Nothing is saved: backward computes the same mask again.
"""

from __future__ import annotations

from typing import TypedDict

from minitl.autograd import Function
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


def dropout(x: Tensor, probability: float, *, generator: Generator | None = None) -> Tensor:
    """Set each element of ``x`` to 0 with the given probability and scale the others by ``1 / (1 - probability)``.

    Args:
        x: any shape; elements are numbered in C order.
        probability: in [0, 1).
        generator: where the call number comes from, the default generator if None.
    """
    options = draw(probability, generator)
    return Dropout.apply(x, **options)


@register("dropout")
class Dropout(Function):
    def forward(self, x: Array, *, dropout: float, seed: int, call: int) -> Array:
        self.options = {"probability": dropout, "seed": seed, "call": call}
        y: Array = select("dropout", self.device).forward(contiguous(x), **self.options)
        return y

    def backward(self, grad_y: Array) -> Array:
        kernel = select("dropout", self.device)
        grad_x: Array = kernel.backward(contiguous(grad_y), **self.options)
        return grad_x
