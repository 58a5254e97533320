"""The list of all differentiable operations: the tests enumerate it, and fail for an op without a gradient test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from minitl.autograd import Function

#: name of the public function -> the Function that holds its rule
OPS: dict[str, type[Function]] = {}

F = TypeVar("F", bound=type[Function])


def register(name: str) -> Callable[[F], F]:
    """Enter a Function of minitl under the name of its public function. (Your own Functions need no entry.)"""

    def enter(function: F) -> F:
        if name in OPS:
            raise ValueError(f"two operations called {name!r}")
        OPS[name] = function
        return function

    return enter
