"""A training that is stopped after any step and resumed ends with the same bits as one that never was."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_runs import EPOCHS, SETTINGS, Workshop, log_without_times, outcome, run_in_parts, stopped_at

from minitl.errors import CheckpointError, InterruptedRunError, MinitlError
from minitl.training import Trainer

STEPS = 4 * EPOCHS  # 20 sentences in batches of 3, two batches a step


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def uninterrupted(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    trainer = workshop.trainer(tmp_path_factory.mktemp("run") / "whole")
    result = trainer.run()
    assert (result.steps, result.ended, trainer.total) == (STEPS, "all steps done", STEPS)
    return outcome(trainer)


@pytest.mark.parametrize("stop", range(STEPS))
def test_a_stop_after_any_step_changes_no_bit(
    stop: int, workshop: Workshop, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    found = outcome(run_in_parts(workshop, tmp_path / "run", [stop]))
    assert found.keys() == uninterrupted.keys()
    assert [name for name in found if found[name] != uninterrupted[name]] == []


def test_many_stops_change_no_bit(workshop: Workshop, uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    found = outcome(run_in_parts(workshop, tmp_path / "run", [1, 2, 5, 6, 9, 12, 15]))
    assert [name for name in found if found[name] != uninterrupted[name]] == []


def test_the_folder_changes_no_bit(workshop: Workshop, uninterrupted: dict[str, bytes]) -> None:
    trainer = workshop.trainer()
    trainer.run()
    found = outcome(trainer)
    assert [name for name in found if found[name] != uninterrupted[name]] == []


def test_a_finished_run_resumes_to_what_it_was(
    workshop: Workshop, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    trainer = workshop.trainer(tmp_path / "run")
    trainer.run()
    again = workshop.trainer(tmp_path / "run")
    again.restore()
    again.run()
    assert [name for name, values in outcome(again).items() if values != uninterrupted[name]] == []


def test_patience_survives(workshop: Workshop, tmp_path: Path) -> None:
    settings = replace(SETTINGS, lr=0.0, patience=4)  # nothing is ever learnt, so the first evaluation stays the best
    whole = workshop.trainer(tmp_path / "whole", settings)
    result = whole.run()
    assert (result.ended, result.best_step, result.steps) == ("no improvement in 4 evaluations", 3, 9)  # 3 4 6 8 9
    parts = run_in_parts(workshop, tmp_path / "parts", [5, 7], settings)
    assert outcome(parts) == outcome(whole)


def test_a_damaged_checkpoint_is_passed_over(
    workshop: Workshop, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        workshop.trainer(tmp_path / "run", kind=stopped_at(7)).run()
    newest = tmp_path / "run" / "checkpoints" / "step-00000007"
    path = newest / "optimizer.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"step-00000007/optimizer.safetensors: is damaged"):
        workshop.trainer(tmp_path / "run").restore(strict=True)
    trainer = workshop.trainer(tmp_path / "run")
    notes = trainer.restore()
    assert len(notes) == 1
    assert "passed over a damaged checkpoint" in notes[0]
    assert trainer.state.step == 6
    trainer.run()
    found = outcome(trainer)
    assert [name for name in found if found[name] != uninterrupted[name]] == []
    assert sorted(path.name for path in newest.parent.iterdir()) == [f"step-{step:08d}" for step in (STEPS - 2, STEPS)]


def test_another_training_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        workshop.trainer(tmp_path / "run", kind=stopped_at(2)).run()
    other = workshop.trainer(tmp_path / "run", replace(SETTINGS, seed=1), identity={"data": "x"})
    with pytest.raises(CheckpointError, match=r"(?s)of another training:.*data: None then, 'x' now.*settings.seed: 0"):
        other.restore()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_signal_finishes_the_step(number: int, workshop: Workshop, tmp_path: Path) -> None:
    class Signalled(Trainer):
        def _take_step(self, *arguments: object) -> None:
            if self.state.step == 4:
                os.kill(os.getpid(), number)
            super()._take_step(*arguments)  # type: ignore[arg-type]

    before = signal.getsignal(number)
    with pytest.raises(InterruptedRunError, match=f"after step 5 of {STEPS}; it is saved") as caught:
        workshop.trainer(tmp_path / "run", kind=Signalled).run()
    assert caught.value.signal_number == number
    assert signal.getsignal(number) is before
    trainer = workshop.trainer(tmp_path / "run")
    trainer.restore(strict=True)
    assert trainer.state.step == 5
    assert len(log_without_times(tmp_path / "run")) == 5 + 2  # evaluations at 3 and 4


def test_a_signal_during_an_evaluation_saves_and_evaluates_later(
    workshop: Workshop, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    class Signalled(Trainer):
        def _evaluate(self) -> None:
            if self.state.step == 8:
                self._interruption.signal_number = signal.SIGTERM
            super()._evaluate()

    with pytest.raises(InterruptedRunError, match="after step 8"):
        workshop.trainer(tmp_path / "run", kind=Signalled).run()
    records = [json.loads(line) for line in log_without_times(tmp_path / "run")]
    assert records[-1]["step"] == 8
    assert "evaluation" not in records[-1]
    found = outcome(run_in_parts(workshop, tmp_path / "run", []))
    assert [name for name in found if found[name] != uninterrupted[name]] == []


def test_a_second_writer_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    inside: list[str] = []

    class Nested(Trainer):
        def _after_step(self) -> None:
            if self.state.step == 1 and not inside:
                with pytest.raises(MinitlError, match="another run is writing into it"):
                    workshop.trainer(tmp_path / "run").run()
                inside.append("refused")
            super()._after_step()

    workshop.trainer(tmp_path / "run", replace(SETTINGS, max_steps=2), kind=Nested).run()
    assert inside == ["refused"]
    trainer = workshop.trainer(tmp_path / "run", replace(SETTINGS, max_steps=2))
    trainer.restore()
    trainer.run()  # the lock ends with the run


def test_a_full_disk_is_found_before_the_first_step(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: os.terminal_size((0, 0)) and type("", (), {"free": 10})())
    with pytest.raises(MinitlError, match=r"0\.0 MB are free"):
        workshop.trainer(tmp_path / "run").run()
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_parameters_that_are_not_finite_are_never_saved(workshop: Workshop, tmp_path: Path) -> None:
    trainer = workshop.trainer(tmp_path / "run")

    class Broken(Trainer):
        def _after_step(self) -> None:
            if self.state.step == 6:
                self.model.classifier.bias.copy_(np.full(len(self.model.config.id2label), np.nan, dtype=np.float32))
            super()._after_step()

    with pytest.raises(MinitlError, match=r"after step 6 the parameters classifier.bias hold NaN"):
        workshop.trainer(tmp_path / "run", kind=Broken).run()
    assert trainer.restore(strict=True) == []
    assert trainer.state.step == 4
