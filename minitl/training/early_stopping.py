"""When to stop: after some evaluations in a row that were no better (Prechelt 1998)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Counts evaluations without improvement.

    Args:
        patience: how many of them in a row end the training; None for never.
        min_delta: a score must be more than this above the best to count as better.
        best: best score so far, None before the first; NaN is never best.
        waited: evaluations since then.

    Raises:
        ValueError: a patience below 1 or a negative ``min_delta``.
    """

    patience: int | None = None
    min_delta: float = 0.0
    best: float | None = None
    waited: int = 0

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1 evaluation, got {self.patience}")
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"min_delta must be finite and not negative, got {self.min_delta}")

    def update(self, score: float) -> bool:
        """Count one evaluation; return whether training should end.

        >>> stopping = EarlyStopping(patience=2, min_delta=0.01)
        >>> [stopping.update(score) for score in (0.5, 0.505, 0.52, float("nan"), 0.52)]
        [False, False, False, False, True]
        """
        if not math.isnan(score) and (self.best is None or score > self.best + self.min_delta):
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        return self.patience is not None and self.waited >= self.patience
