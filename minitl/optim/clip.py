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
    gradients = [parameter.grad for parameter in once if parameter.grad is not None]
    if not gradients:
        return 0.0
    flat = [gradient.array.reshape(-1) for gradient in gradients]
    norm: float = select("adamw", gradients[0].device).global_norm(flat)
    factor = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and factor < 1:
        for gradient, values in zip(gradients, flat, strict=True):
            values *= factor
            gradient._version.value += 1
    return norm
