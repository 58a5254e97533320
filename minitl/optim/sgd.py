"""Stochastic gradient descent with momentum (Polyak 1964; Sutskever et al. 2013)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minitl.kernels.launch import Array
from minitl.optim.optimizer import Optimizer, ParameterGroup
from minitl.tensor import Tensor


class SGD(Optimizer):
    """SGD with PyTorch's arguments and formulas.

        g = g + weight_decay * p            for SGD, decay and an L2 penalty are the same thing
        b = momentum * b + g                b starts as the first g
        p = p - lr * b                      with nesterov: p - lr * (g + momentum * b)

    Args:
        parameters: tensors or ParameterGroups.
        lr: learning rate.
        momentum: in [0, 1).
        weight_decay: strength of the decay.
        nesterov: look ahead along the momentum.

    Raises:
        ValueError: a value out of its range, nesterov without momentum, or parameters that do not fit.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor | ParameterGroup],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if nesterov and momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        super().__init__(parameters, lr=lr, weight_decay=weight_decay)
        self.momentum, self.nesterov = momentum, nesterov
        self._momentum = self.buffer.xp.zeros_like(self.buffer.parameters) if momentum else None

    def _moments(self) -> dict[str, Array]:
        return {} if self._momentum is None else {"momentum": self._momentum}

    def _update(self, written: Sequence[int]) -> None:
        for number in written:
            offset, length = self.buffer.segments[number]
            lr, weight_decay = self._rates(number)
            part = slice(offset, offset + length)
            p, direction = self.buffer.parameters[part], self.buffer.slots[number].array.reshape(-1)
            if weight_decay:
                direction = direction + weight_decay * p
            if self._momentum is not None:
                b = self._momentum[part]
                b *= self.momentum
                b += direction
                direction = direction + self.momentum * b if self.nesterov else b
            p -= lr * direction
