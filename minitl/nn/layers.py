"""The layers: parameters, how they start, and one call of an op.

D and F are numbers of inputs and outputs, V rows of a table; every other letter stands for any leading shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import numpy.typing as npt

from minitl import ops
from minitl.nn.module import Module, Parameter
from minitl.random import default_generator
from minitl.tensor import Tensor

_leave_unset: ContextVar[bool] = ContextVar("leave_unset", default=False)


@contextmanager
def unset_weights() -> Iterator[None]:
    """Let layers that are made inside the ``with`` block start with arbitrary weights, for loading overwrites them
    anyway.

    Drawing 22 million normal numbers takes ten times as long as reading them from a file.
    """
    token = _leave_unset.set(True)
    try:
        yield
    finally:
        _leave_unset.reset(token)


def normal(shape: tuple[int, ...], std: float, dtype: npt.DTypeLike) -> Parameter:
    """Return a parameter of normal numbers with mean 0, from one call of the default generator."""
    if _leave_unset.get():
        return Parameter(np.empty(shape, dtype))
    return Parameter(default_generator().normal(shape, std=std).astype(dtype))


class Linear(Module):
    """``y = x @ weight.T + bias`` for x (..., D).

    Args:
        inputs, outputs: D and F.
        bias: whether there is one.
        std: spread of the initial weights, ``1 / sqrt(inputs)`` by default: outputs then start as spread as the inputs.
        dtype: of the parameters.

    Attributes:
        weight: (F, D). bias: (F,), starting at 0, or None.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        std: float | None = None,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        self.weight = normal((outputs, inputs), 1 / math.sqrt(inputs) if std is None else std, dtype)
        self.bias = Parameter(np.zeros(outputs, dtype)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


class Embedding(Module):
    """A table of vectors; ``forward(ids)`` returns ``weight[ids]``.

    Args:
        rows, width: V and D.
        padding_id: a row that starts at 0 and gets no gradient, or None.
        std: spread of the initial vectors.
        dtype: of the table.

    Attributes:
        weight: (V, D).
    """

    def __init__(
        self,
        rows: int,
        width: int,
        *,
        padding_id: int | None = None,
        std: float = 1.0,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        if padding_id is not None and not 0 <= padding_id < rows:
            raise ValueError(f"padding_id {padding_id} is out of range: the table has {rows} rows")
        self.padding_id = padding_id
        self.weight = normal((rows, width), std, dtype)
        if padding_id is not None:
            self.weight.array[padding_id] = 0

    def forward(self, ids: np.ndarray | Tensor) -> Tensor:
        return ops.embedding(self.weight, ids, padding_id=self.padding_id)


class LayerNorm(Module):
    """Layer normalisation of ``residual + dropout(x)`` over the last axis; see ``minitl/ops/layer_norm.py``.

    Args:
        width: D.
        eps: added to the variance.
        dtype: of the parameters.

    Attributes:
        weight: (D,), starting at 1. bias: (D,), starting at 0.
    """

    def __init__(self, width: int, *, eps: float = 1e-12, dtype: npt.DTypeLike = "float32") -> None:
        self.eps = eps
        self.weight = Parameter(np.ones(width, dtype))
        self.bias = Parameter(np.zeros(width, dtype))

    def forward(
        self, x: Tensor, residual: Tensor | None = None, dropout: float = 0.0, rows: np.ndarray | None = None
    ) -> Tensor:
        """Normalise ``residual + dropout(x)``; ``dropout`` acts in training mode only, ``rows`` number its elements."""
        probability = dropout if self.training else 0.0
        return ops.layer_norm(
            x, self.weight, self.bias, eps=self.eps, residual=residual, dropout=probability, rows=rows
        )


class Dropout(Module):
    """Dropout in training mode, nothing in evaluation mode."""

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def forward(self, x: Tensor, rows: np.ndarray | None = None) -> Tensor:
        return ops.dropout(x, self.probability, rows=rows) if self.training else x
