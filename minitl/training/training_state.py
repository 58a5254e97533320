"""Where a training stands, besides its arrays: what a checkpoint's ``state.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from minitl.errors import CheckpointError
from minitl.training.early_stopping import EarlyStopping


@dataclass
class TrainingState:
    """Numbers that decide how a training goes on.

    Attributes:
        step: optimizer steps done; epoch and place in the data follow from it.
        ended: why there are no more steps; empty as long as there are.
        evaluated_at: the step of the last evaluation, -1 before the first.
        skipped_steps, bad_steps: steps without a scored label, and with a loss or gradient that is not finite.
        bad_in_a_row: the sentences of each of the bad steps since the last good one.
        best_score, best_step: of the best evaluation.
        stopping: the count of evaluations without improvement.
        log_lengths: of the journal's files.
    """

    step: int = 0
    ended: str = ""
    evaluated_at: int = -1
    skipped_steps: int = 0
    bad_steps: int = 0
    bad_in_a_row: list[str] = field(default_factory=list)
    best_score: float | None = None
    best_step: int | None = None
    stopping: EarlyStopping = field(default_factory=EarlyStopping)
    log_lengths: dict[str, int] = field(default_factory=lambda: {"log": 0, "events": 0})

    def as_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingState:
        """Return the state of a checkpoint.

        Raises:
            CheckpointError: it has other fields than those above.
        """
        try:
            return cls(**{**values, "stopping": EarlyStopping(**values["stopping"])})
        except (TypeError, KeyError) as error:
            raise CheckpointError(f"a checkpoint's state has other fields than expected: {error}") from None


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return a line for each value in which two nested dictionaries differ.

    >>> differences({"settings": {"lr": 0.1, "seed": 0}}, {"settings": {"lr": 0.2, "seed": 0}})
    ['settings.lr: 0.2 then, 0.1 now']
    """
    now, then = _flat(ours), _flat(theirs)
    return [
        f"{name}: {then.get(name)!r} then, {now.get(name)!r} now"
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries under joined names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
