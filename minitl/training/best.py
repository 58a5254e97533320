"""Keeping the best epoch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minitl.nn import Module


class BestState:
    """A copy of a model's parameters at its best score so far.

    Attributes:
        score: the best score, None before the first; NaN is never best, and a tie keeps the earlier state.
        label: what the caller named the state, for example its epoch.
    """

    def __init__(self, model: Module) -> None:
        self._model = model
        self._state: dict[str, np.ndarray[Any, Any]] = {}
        self.score: float | None = None
        self.label: object = None

    def update(self, score: float, label: object = None) -> bool:
        """Keep the model's present state if ``score`` is the best; return whether it is."""
        if math.isnan(score) or (self.score is not None and score <= self.score):
            return False
        self._state = {name: values.copy() for name, values in self._model.state_dict().items()}
        self.score, self.label = score, label
        return True

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the best state's arrays; none before the first score."""
        return self._state

    def load(self, score: float, label: object, state: dict[str, np.ndarray[Any, Any]]) -> None:
        """Take over the best state of an earlier run."""
        self.score, self.label, self._state = score, label, state

    def restore(self) -> None:
        """Put the best state back into the model.

        Raises:
            RuntimeError: there was no score yet.
        """
        if self.score is None:
            raise RuntimeError("no state to restore: update() was never called with a score")
        self._model.load_state_dict(self._state)
