"""Steps on their way to the log and the counts; those that were not finite are counted, and too many of them end it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minitl.text.batching import Batch
from minitl.text.conll import Sentence
from minitl.training.graph import GraphedResult
from minitl.training.journal import Journal
from minitl.training.progress import TrainingProgress
from minitl.training.step import DivergedError, StepResult
from minitl.training.training_state import TrainingState

Result = StepResult | GraphedResult


@dataclass(frozen=True)
class TakenStep:
    """A step: its number from 1, its learning rate, its batches, and what came of it."""

    step: int
    lr: float
    group: Sequence[Batch]
    result: Result


class StepRecords:
    """Enters steps in log and state, in order; a result on a GPU is waited for only then.

    Args:
        state: counts skipped and bad steps.
        journal: the log, or None.
        steps_per_epoch: for the number of the epoch.
        most_bad_steps: so many in a row end the training.
        sentences: those of the training data, to name those of bad steps; empty to give their numbers.
        tell: called with lines for people.
    """

    def __init__(
        self,
        state: TrainingState,
        journal: Journal | None,
        *,
        steps_per_epoch: int,
        most_bad_steps: int,
        sentences: Sequence[Sentence] = (),
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._state, self._journal, self._tell = state, journal, tell
        self._steps_per_epoch, self._most_bad_steps, self._sentences = steps_per_epoch, most_bad_steps, sentences
        self._waiting: deque[TakenStep] = deque()

    def __len__(self) -> int:
        """How many steps are not in the log yet."""
        return len(self._waiting)

    def add(self, step: TakenStep) -> None:
        """Let a step wait for its entry."""
        self._waiting.append(step)

    def enter(self, progress: TrainingProgress | None = None, *, leave: int = 0) -> None:
        """Enter all steps but the last few, which go on waiting.

        Raises:
            DivergedError: too many in a row were not finite.
        """
        while len(self._waiting) > leave:
            taken = self._waiting.popleft()
            result = taken.result
            finite = math.isfinite(result.loss) and math.isfinite(result.gradient_norm)
            self._log(taken, finite)
            self._state.skipped_steps += result.skipped
            if finite:
                self._state.bad_in_a_row = []
                if progress is not None:
                    progress.advance(result.loss, labels=result.label_count, tokens=result.token_count)
            else:
                self._count_bad(taken)

    def _log(self, taken: TakenStep, finite: bool) -> None:
        if self._journal is None:
            return
        result = taken.result
        numbers = {"loss": result.loss, "gradient_norm": result.gradient_norm, "lr": taken.lr}
        epoch = (taken.step - 1) // self._steps_per_epoch + 1
        record: dict[str, Any] = {"step": taken.step, "epoch": epoch, **numbers}
        record |= {"labels": result.label_count, "tokens": result.token_count}
        if result.skipped or not finite:
            record["skipped"] = "no scored label" if result.skipped else "not finite"
            numbers = {}
        self._journal.write(record, {f"train/{name}": value for name, value in numbers.items()})

    def _count_bad(self, taken: TakenStep) -> None:
        state, result = self._state, taken.result
        state.bad_steps += 1
        state.bad_in_a_row.append(f"step {taken.step}: {self._named_sentences(taken.group)}")
        problem = f"the loss is {result.loss}, the norm of its gradient {result.gradient_norm}"
        self._tell(f"step {taken.step} was skipped: {problem}")
        if len(state.bad_in_a_row) >= self._most_bad_steps:
            raise DivergedError(
                f"training diverged: {len(state.bad_in_a_row)} steps in a row were not finite (the last: {problem}); "
                "their sentences:\n  " + "\n  ".join(state.bad_in_a_row) + "\nthe steps changed nothing, and the last "
                "checkpoint is from before; lower the learning rate, or look for NaN in the weights"
            )

    def _named_sentences(self, group: Sequence[Batch]) -> str:
        numbers = sorted({number for batch in group for number in batch.word_counts})
        if not self._sentences:
            return f"sentences number {', '.join(map(str, numbers))}"
        return ", ".join(self._sentences[number].place() for number in numbers)
