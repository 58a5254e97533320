"""Clipping the gradient by its global norm (Pascanu, Mikolov, Bengio 2013)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minitl.kernels.select import select
from minitl.tensor import Tensor


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor so that their norm, taken as one vector, is at most ``max_norm``.

    The factor is ``min(1, max_norm / (norm + 1e-6))``, as in PyTorch. Parameters without a gradient count as 0.

    Returns:
        The norm before clipping. If it is not finite, the gradients are left as they are: no factor repairs them.

    Raises:
        TypeError: ``parameters`` is a single tensor.
        ValueError: ``max_norm`` is not positive.
    """
    if isinstance(parameters, Tensor):
        raise TypeError("clip_grad_norm takes a list of parameters, not a single tensor: its rows have no gradients")
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    once = {id(parameter): parameter for parameter in parameters}.values()
    slots = [one._slot for one in once if one._slot is not None and one._slot.written]
    loose = [one._grad for one in once if one._grad is not None]
    if not slots and not loose:
        return 0.0
    arrays = [slot.array for slot in slots] + [gradient.array for gradient in loose]
    touched = [slot.touched for slot in slots] + [None for _ in loose]
    device = (slots[0].tensor if slots else loose[0]).device
    norm: float = select("adamw", device).global_norm([array.reshape(-1) for array in arrays], touched=touched)
    factor = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and factor < 1:
        for slot in slots:
            slot.scale(factor)
        for gradient in loose:
            gradient.array *= factor
            gradient._version.value += 1
    return norm
