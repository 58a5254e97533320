"""Dropout by counter: element ``i`` is kept iff its Philox word is at least ``floor(probability * 2^32)``.

The mask is never stored: backward computes the same bits again. Kept values are scaled by ``1 / (1 - probability)``, so
that the expected output is the input (Srivastava et al. 2014, the "inverted" form).
"""

from __future__ import annotations

import math
from types import ModuleType

from minitl.kernels.launch import Array, array_module, check_dropout, check_floats
from minitl.kernels.philox.reference import words


def keep_mask(
    shape: tuple[int, ...], *, probability: float, seed: int, call: int, first: int = 0, xp: ModuleType
) -> Array:
    """Return the boolean mask of kept elements; elements are numbered in C order from ``first``."""
    check_dropout(probability, seed=seed, call=call, first=first)
    threshold = math.floor(probability * 2**32)
    return (words(math.prod(shape), seed=seed, call=call, first=first, xp=xp) >= threshold).reshape(shape)


def forward(x: Array, *, probability: float, seed: int, call: int, first: int = 0) -> Array:
    """Return ``x`` with dropped elements set to 0 and the others divided by ``1 - probability``.

    Args:
        x: any shape, C-contiguous; element numbers count from ``first`` in C order.
        probability: chance of dropping, 0 <= probability < 1.
        seed, call: key and use number of the generator, see ``philox``.
    """
    check_floats(x=x)
    return _drop(x, probability, seed, call, first)


def backward(grad_y: Array, *, probability: float, seed: int, call: int, first: int = 0) -> Array:
    """Return the gradient of ``x``: the same elements dropped, the same scale."""
    check_floats(grad_y=grad_y)
    return _drop(grad_y, probability, seed, call, first)


def _drop(x: Array, probability: float, seed: int, call: int, first: int) -> Array:
    check_dropout(probability, seed=seed, call=call, first=first)
    if probability == 0:
        return x
    xp = array_module(x)
    keep = keep_mask(x.shape, probability=probability, seed=seed, call=call, first=first, xp=xp)
    # where, not x * keep: a dropped Inf must become 0, not NaN
    return xp.where(keep, x * (1 / (1 - probability)), 0)
