"""NaN and infinities put into loss or gradient at random steps: skipped, counted, and never in the parameters."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import SETTINGS, Workshop, log_without_times

from minitl import optim
from minitl.training import DivergedError, Trainer
from minitl.training.checkpoint import CheckpointFolder
from minitl.training.trainer import CHECKPOINTS

INJECTIONS = int(os.environ.get("MINITL_INJECTIONS", "25"))
SEED = 20261127
RUN = replace(SETTINGS, max_steps=8, evaluate_every=4, checkpoint_every=2, accumulation=1)
BAD = (math.nan, math.inf, -math.inf)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"), 12)


class Injected(Trainer):
    """Spoils some steps, and holds that they change nothing."""

    steps: frozenset[int] = frozenset()
    spoil: Callable[..., Any]

    def _take_step(self, *arguments: Any) -> None:
        if self.state.step + 1 not in self.steps:
            super()._take_step(*arguments)
            return
        before = self._bytes()
        # plain NumPy, where the kernels are the references, warns of what is done here on purpose
        with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
            type(self).spoil(self, patch)
            try:
                super()._take_step(*arguments)
            finally:
                # names alone: where the variable CI is set, pytest would compare all the bytes for minutes
                after = self._bytes()
                names = before.keys() | after.keys()
                assert sorted(name for name in names if before.get(name) != after.get(name)) == []
                assert all(
                    parameter.grad is None or not parameter.grad.array.any() for parameter in self.model.parameters()
                )

    def _bytes(self) -> dict[str, bytes]:
        """The bytes of every parameter and of the optimizer's state, by name."""
        arrays = {**self.model.state_dict(), **self.optimizer.state_dict()}
        return {name: values.tobytes() for name, values in arrays.items()}


def spoil_loss(value: float) -> Callable[[Trainer, pytest.MonkeyPatch], None]:
    """What makes the loss of a step ``value``; its gradient is NaN or infinite, too."""

    def spoil(trainer: Trainer, patch: pytest.MonkeyPatch) -> None:
        right = trainer.model.loss

        def wrong(*arguments: Any) -> Any:
            output = right(*arguments)
            return replace(output, loss=output.loss * value)

        patch.setattr(trainer.model, "loss", wrong)

    return spoil


def spoil_gradient(value: float, place: float) -> Callable[[Trainer, pytest.MonkeyPatch], None]:
    """What puts ``value`` into one element of the gradient of one parameter, after a good backward."""

    def spoil(trainer: Trainer, patch: pytest.MonkeyPatch) -> None:
        right = optim.clip_grad_norm

        def wrong(parameters: Any, *arguments: Any) -> float:
            parameters = list(parameters)
            with_gradient = [one for one in parameters if one.grad is not None]
            gradient = with_gradient[int(place * len(with_gradient))].grad.array
            gradient.reshape(-1)[int(place * gradient.size)] = value
            return right(parameters, *arguments)

        patch.setattr(optim, "clip_grad_norm", wrong)

    return spoil


def longest_row(steps: frozenset[int]) -> tuple[int, int]:
    """How many bad steps come in a row before training would end, and the last of them."""
    row = 0
    for step in range(1, (RUN.max_steps or 0) + 1):
        row = row + 1 if step in steps else 0
        if row == RUN.most_bad_steps:
            return row, step
    return 0, 0


def test_many_injections(workshop: Workshop, tmp_path: Path) -> None:
    generator = random.Random(SEED)
    ended_early = 0
    for number in range(INJECTIONS):
        share = generator.choice([0.1, 0.3, 0.7])
        steps = frozenset(step for step in range(1, 9) if generator.random() < share) or frozenset({8})
        value = generator.choice(BAD)
        spoil = generator.choice([spoil_loss(value), spoil_gradient(value, generator.random())])
        case = f"injection {number} of seed {SEED}: {value} at steps {sorted(steps)}"
        kind = type("InjectedHere", (Injected,), {"steps": steps, "spoil": staticmethod(spoil)})
        folder = tmp_path / str(number)
        trainer = workshop.trainer(folder, RUN, kind)
        row, last = longest_row(steps)
        if row:
            ended_early += 1
            with pytest.raises(DivergedError, match=f"{row} steps in a row were not finite") as raised:
                trainer.run()
            named = [line for line in str(raised.value).splitlines() if line.startswith("  step ")]
            assert [int(line.split()[1].rstrip(":")) for line in named] == list(range(last - row + 1, last + 1)), case
            assert all("train.conll:" in line for line in named), case
            assert trainer.state.step == last, case
        else:
            assert trainer.run().bad_steps == len(steps), case
            assert trainer.state.step == RUN.max_steps, case
        marked = [b'"skipped": "not finite"' in line for line in log_without_times(folder) if b'"loss"' in line]
        assert marked == [step in steps for step in range(1, trainer.state.step + 1)], case
        assert all(np.isfinite(values).all() for values in trainer.model.state_dict().values()), case
        checkpoint, notes = CheckpointFolder(folder / CHECKPOINTS).newest(strict=True)
        assert notes == [], case
        if checkpoint is not None:  # there is none before the first is due
            arrays = [values for part in checkpoint.arrays.values() for values in part.values()]
            assert all(np.isfinite(values).all() for values in arrays), case
        assert (checkpoint is None) == (trainer.state.step < 2), case
    assert 0 < ended_early < INJECTIONS  # both ends were seen


def test_without_injections_the_same_run_has_no_bad_step(workshop: Workshop, tmp_path: Path) -> None:
    assert workshop.trainer(tmp_path / "run", RUN, Injected).run().bad_steps == 0
