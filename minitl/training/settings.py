"""How to train: every number a run depends on, checked before it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from minitl.errors import MinitlError
from minitl.optim.schedule import SHAPES


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of a :class:`minitl.training.Trainer`.

    Args:
        epochs: times through the training sentences.
        max_steps: end after this many optimizer steps, whatever ``epochs`` says; None for no such limit.
        batch_size: sentences of one forward pass.
        accumulation: batches of one optimizer step; the step is as if they were one batch.
        lr: peak learning rate.
        weight_decay: of weights and embeddings; biases and layer norms have none.
        warmup: share of the steps during which the learning rate rises.
        schedule: "linear", "cosine" or "constant", how it goes on.
        max_norm: largest global norm of the gradient; a larger one is scaled down.
        seed: of the order of the sentences and of dropout.
        evaluate_every: steps between evaluations, besides the one at the end of each epoch; None for no others.
        patience: evaluations without improvement that end the training; None to train to the end.
        min_delta: a score must be more than this above the best to count as an improvement for ``patience``.
        checkpoint_every: steps between checkpoints; None for one after each evaluation.
        keep_checkpoints: how many of the newest stay on the disk.
        most_bad_steps: so many steps in a row whose loss or gradient is not finite end the training.

    Raises:
        MinitlError: a value out of its range; the message names it.
    """

    epochs: int = 5
    max_steps: int | None = None
    batch_size: int = 16
    accumulation: int = 1
    lr: float = 2e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "linear"
    max_norm: float = 1.0
    seed: int = 0
    evaluate_every: int | None = None
    patience: int | None = None
    min_delta: float = 0.0
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    most_bad_steps: int = 3

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation", "keep_checkpoints", "most_bad_steps"):
            self._check(name, int, at_least=1)
        for name in ("max_steps", "evaluate_every", "patience", "checkpoint_every"):
            if getattr(self, name) is not None:
                self._check(name, int, at_least=1)
        self._check("seed", int, at_least=0, below=2**64)
        self._check("lr", float, at_least=0)
        self._check("weight_decay", float, at_least=0)
        self._check("min_delta", float, at_least=0)
        self._check("warmup", float, at_least=0, below=1)
        self._check("max_norm", float, at_least=0)
        if self.max_norm == 0:
            raise MinitlError("max_norm must be above 0")
        if self.schedule not in SHAPES:
            raise MinitlError(f"schedule must be one of {', '.join(SHAPES)}, not {self.schedule!r}")

    def _check(self, name: str, kind: type, *, at_least: float, below: float = math.inf) -> None:
        value: Any = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
            word = "a whole number" if kind is int else "a number"
            raise MinitlError(f"{name} must be {word}, not {value!r}")
        if not at_least <= value < below:  # NaN is refused, too
            limit = "" if below == math.inf else f" and below {below}"
            raise MinitlError(f"{name} must be at least {at_least}{limit}, not {value}")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name, for :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Return settings by name; those that are left out have their defaults.

        Raises:
            MinitlError: a name that is none, or a value out of its range.
        """
        return cls(**known_names(cls, values))


def known_names(settings: type[Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``values`` if all their names are fields of a dataclass of settings; otherwise raise a MinitlError."""
    known = {field.name for field in fields(settings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise MinitlError(f"unknown settings: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return values
