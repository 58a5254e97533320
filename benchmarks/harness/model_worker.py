"""What workers that run whole models have in common: batches, steps and their times."""

import time
from collections.abc import Callable
from typing import Any

from harness import batches
from harness.floor import MODELS, ModelSize


class ModelWorker:
    """Base class; a subclass sets ``step`` when it prepares a model, and makes its own kind of batch.

    Attributes:
        size: the model's.
        step: trains on, or predicts, one batch, given it and the options of the call.
        loaded: for each order, its batches.
    """

    size: ModelSize
    step: Callable[..., None]
    loaded: dict[str, list[Any]]

    def choose(self, model: str) -> ModelSize:
        """Remember which model is run."""
        self.size = MODELS[model]
        return self.size

    def load(self, orders: dict[str, list[list[int]]], scored_share: float) -> None:
        """Draw the batches of a workload.

        Args:
            orders: for each order the lengths of the sentences of each batch.
            scored_share: share of the tokens between [CLS] and [SEP] whose label counts.
        """
        self.loaded = {
            order: [self._drawn(lengths, scored_share, seed) for seed, lengths in enumerate(rows)]
            for order, rows in orders.items()
        }

    def steps(self, order: str, repeats: int = 1, **options: Any) -> float:
        """Run the loaded batches ``repeats`` times in this order, and return the seconds it took."""
        rows = self.loaded[order]
        start = time.perf_counter()
        for _ in range(repeats):
            for batch in rows:
                self.step(batch, **options)
        return time.perf_counter() - start

    def _drawn(self, lengths: list[int], scored_share: float, seed: int) -> Any:
        ids, labels = batches.draw(lengths, scored_share, self.size.vocabulary, self.size.classes, seed)
        return self.make_batch(ids, labels, lengths)

    def make_batch(self, ids: Any, labels: Any, lengths: list[int]) -> Any:
        """Turn ids and labels (T,) of sentences of these lengths into what ``step`` takes."""
        raise NotImplementedError
