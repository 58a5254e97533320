"""The operators and methods of Tensor that are differentiable operations, attached to the class in one table.

Tensor stands below the operations, so it cannot import them; this file, imported by ``minitl.ops``, joins the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from minitl.ops import arithmetic, comparison, elementary, indexing, matmul, reduce, shape
from minitl.tensor import Operand, Tensor


def _reflected(op: Callable[[Operand, Operand], Tensor]) -> Callable[[Tensor, Operand], Tensor]:
    """Turn ``op(a, b)`` into the method Python calls for ``other <op> tensor``."""
    return lambda tensor, other: op(other, tensor)


def _rows(x: Tensor) -> Iterator[Tensor]:
    return (indexing.getitem(x, i) for i in range(len(x)))


METHODS: dict[str, Callable[..., Any] | property] = {
    "__add__": arithmetic.add,
    "__radd__": _reflected(arithmetic.add),
    "__sub__": arithmetic.subtract,
    "__rsub__": _reflected(arithmetic.subtract),
    "__mul__": arithmetic.multiply,
    "__rmul__": _reflected(arithmetic.multiply),
    "__truediv__": arithmetic.divide,
    "__rtruediv__": _reflected(arithmetic.divide),
    "__pow__": arithmetic.power,
    "__matmul__": matmul.matmul,
    "__rmatmul__": _reflected(matmul.matmul),
    "__neg__": arithmetic.negative,
    "__abs__": arithmetic.absolute,
    "__eq__": comparison.equal,
    "__ne__": comparison.not_equal,
    "__lt__": comparison.less,
    "__le__": comparison.less_equal,
    "__gt__": comparison.greater,
    "__ge__": comparison.greater_equal,
    "__getitem__": indexing.getitem,
    "__iter__": _rows,
    "abs": arithmetic.absolute,
    "exp": elementary.exp,
    "log": elementary.log,
    "sqrt": elementary.sqrt,
    "tanh": elementary.tanh,
    "erf": elementary.erf,
    "sum": reduce.sum,
    "mean": reduce.mean,
    "max": reduce.max,
    "min": reduce.min,
    "argmax": comparison.argmax,
    "reshape": shape.reshape,
    "transpose": shape.transpose,
    "astype": shape.astype,
    "T": property(shape.transpose),
}

for _name, _method in METHODS.items():
    setattr(Tensor, _name, _method)
