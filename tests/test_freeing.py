"""What the tape keeps is released: after backward, during it, and without it; no garbage collector is waited for."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np

from minitl import Function, Tensor


def leaf(values: Any) -> Tensor:
    return Tensor(np.array(values, dtype=np.float64), requires_grad=True)


class Watched(np.ndarray):
    """An array that can be referred to weakly."""


def test_saved_arrays_are_released_by_backward() -> None:
    x = leaf([1.0, 2.0])
    saved = []

    class Keeps(Function):
        def forward(self, x: Any) -> Any:
            self.kept = (2 * x).view(Watched)
            saved.append(weakref.ref(self.kept))
            return np.asarray(x * 2)

        def backward(self, grad_y: Any) -> Any:
            return grad_y * np.asarray(self.kept)

    y = Keeps.apply(x)
    loss = y.sum()
    assert saved[0]() is not None
    loss.backward()
    assert saved[0]() is None, "without waiting for the garbage collector, and although y and loss live on"
    assert y.numpy().tolist() == [2.0, 4.0]


def test_intermediate_results_are_released_as_backward_passes() -> None:
    """When an early Function runs, what the later ones saved is gone already."""
    alive = []
    later: list[weakref.ref[Any]] = []

    class First(Function):
        def forward(self, x: Any) -> Any:
            return x * 1

        def backward(self, grad_y: Any) -> Any:
            alive.append(later[0]() is not None)
            return grad_y

    class Later(Function):
        def forward(self, x: Any) -> Any:
            self.kept = x.copy().view(Watched)
            later.append(weakref.ref(self.kept))
            return x * 1

        def backward(self, grad_y: Any) -> Any:
            return grad_y

    Later.apply(First.apply(leaf([1.0]))).backward()
    assert alive == [False]


def test_an_unused_graph_is_released_without_the_collector() -> None:
    gc.disable()
    try:
        y = leaf([1.0]) * 2
        function = weakref.ref(y.creator)
        z = y * 3
        del y
        assert function() is not None
        del z
        assert function() is None, "a reference cycle would hold memory until the collector runs"
    finally:
        gc.enable()


def test_inference_keeps_nothing() -> None:
    x = Tensor(np.zeros(3))
    kept = weakref.ref((x * 2).exp())
    assert kept() is None
    assert (x * 2).creator is None
