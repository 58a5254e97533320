"""Every call of a save made to fail, and every moment of it a power failure: no checkpoint is lost, none is half."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_disk import FailingDisk, Killed, Tree
from training_runs import SETTINGS, Workshop, log_without_times, outcome

from minitl import atomic_file
from minitl.errors import CheckpointError, MinitlError
from minitl.training import FineTuning, RunSettings
from minitl.training.checkpoint import Checkpoint, CheckpointFolder
from minitl.training.journal import Journal

FAULTS = ("EIO", "ENOSPC", "EIO for good", "ENOSPC for good", "kill")
FILES = {"model.safetensors", "optimizer.safetensors", "best.safetensors", "state.json", "SHA256SUMS"}
SEED = 20261127
EVERYTHING = bool(os.environ.get("MINITL_EVERY_FAULT"))
RUN = replace(SETTINGS, max_steps=6, checkpoint_every=2)


def checkpoint(step: int) -> Checkpoint:
    """A small checkpoint, every number of which tells its step."""
    arrays = {"weight": np.full((3, 4), step, np.float32), "bias": np.full(5, -step, np.float64)}
    parts = {"model": arrays, "optimizer": {"mean": arrays["weight"] * 2}, "best": {"weight": arrays["weight"] - 0.5}}
    return Checkpoint(step, parts, {"note": f"of step {step}"})


def check_whole(found: Checkpoint | None, steps: tuple[int, ...]) -> int:
    """It is one of these steps, with everything that was saved; returns which."""
    assert found is not None
    assert found.step in steps
    expected = checkpoint(found.step)
    assert found.arrays.keys() == expected.arrays.keys()
    for part, arrays in expected.arrays.items():
        assert found.arrays[part].keys() == arrays.keys()
        for name, values in arrays.items():
            np.testing.assert_array_equal(found.arrays[part][name], values)
    assert found.state["note"] == f"of step {found.step}"
    return found.step


def check_restart(folder: Path, keep: int) -> None:
    """After a restart nothing half is there, and the next save works."""
    again = CheckpointFolder(folder, keep)
    again.prepare()
    for path in folder.iterdir():
        assert path.name in ("step-00000001", "step-00000002")
        assert {one.name for one in path.iterdir()} == FILES
    again.newest(strict=True)
    again.save(checkpoint(3))
    assert check_whole(CheckpointFolder(folder).newest(strict=True)[0], (3,)) == 3
    assert len(list(folder.iterdir())) <= keep


def calls_of_a_save(folder: Path, keep: int) -> int:
    saving = CheckpointFolder(folder / "checkpoints", keep)
    saving.save(checkpoint(1))
    with FailingDisk(folder).on() as disk:
        saving.save(checkpoint(2))
    return disk.count


CASES = [(how, half, keep) for how in FAULTS for half in (True, False) for keep in (1, 2)]


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a place, since it takes thousands of flushes."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=memory, prefix="minitl-"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("how", "half", "keep"), CASES if EVERYTHING else CASES[::3])
def test_each_call_of_a_save_fails(how: str, half: bool, keep: int, quick_path: Path) -> None:
    (quick_path / "count").mkdir()
    count = calls_of_a_save(quick_path / "count", keep)
    assert count > 35  # the calls are seen at all: five files, each created, written, flushed and renamed
    ends = set()
    for number in range(count):
        folder = quick_path / str(number)
        folder.mkdir()
        saving = CheckpointFolder(folder / "checkpoints", keep)
        saving.save(checkpoint(1))
        disk = FailingDisk(folder, number, how, half)
        with disk.on():
            try:
                saving.save(checkpoint(2))
                end = "saved"
            except CheckpointError as error:
                end, message = "error", str(error)
            except Killed:
                end = "killed"
        assert disk.failed, number
        if end == "error":
            assert "step-00000002: cannot be saved" in message
            assert "\n" not in message
        assert (end == "killed") == (how == "kill"), (number, disk.failed)
        found, notes = CheckpointFolder(folder / "checkpoints").newest(strict=True)
        assert notes == []
        check_whole(found, (2,) if end == "saved" else (1, 2))
        if how in ("EIO", "ENOSPC"):  # the disk works again, so what could not be saved can be
            assert (
                not [path for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")] or end == "saved"
            )
        check_restart(folder / "checkpoints", keep)
        ends.add(end)
        shutil.rmtree(folder)
    assert ends == ({"killed"} if how == "kill" else {"error", "saved"})


@pytest.mark.parametrize("keep", [1, 2])
def test_a_power_failure_at_any_moment_of_a_save(keep: int, quick_path: Path) -> None:
    """In every state that the disk may then be in, the newest checkpoint is whole: the one before or the new one."""
    root = quick_path / "disk"
    root.mkdir()
    saving = CheckpointFolder(root / "checkpoints", keep)
    saving.save(checkpoint(1))
    tree = Tree(root)
    with FailingDisk(root).on() as disk:
        saving.save(checkpoint(2))
    generator = random.Random(SEED)
    samples = 200 if EVERYTHING else 5
    seen = set()
    renamed = False
    for number, call in enumerate([*disk.record, None]):
        for sample in range(samples):
            state = quick_path / f"{number}-{sample}"
            state.mkdir()
            tree.write_crashed(state, generator)
            found, _ = CheckpointFolder(state / "checkpoints").newest(strict=True)
            seen.add(check_whole(found, (2,) if renamed and call is None else (1, 2)))
            check_restart(state / "checkpoints", keep)
            shutil.rmtree(state)
        if call is not None:
            tree.apply(call)
            renamed = renamed or (call[0] == "rename" and call[2].endswith("step-00000002"))
    assert seen == {1, 2}


@pytest.mark.parametrize("how", ["EIO", "ENOSPC", "ENOSPC for good"])
@pytest.mark.parametrize("number", [0, 1])
def test_no_half_of_a_record_stays_in_the_logs(how: str, number: int, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write({"step": 1, "loss": 0.5}, {"train/loss": 0.5})
    lengths = journal.flush()
    with FailingDisk(tmp_path, number, how, half=True).on(), pytest.raises(MinitlError, match="cannot be written"):
        journal.write({"step": 2, "loss": 0.25}, {"train/loss": 0.25})
    assert journal.flush()["events"] == lengths["events"]
    assert [json.loads(line)["step"] for line in log_without_times(tmp_path)] == [1, 2][: number + 1]
    journal.write({"step": 3}, {})
    assert [json.loads(line)["step"] for line in log_without_times(tmp_path)] == [*[1, 2][: number + 1], 3]
    journal.close()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def test_a_whole_run_goes_on_after_any_failure_of_its_disk(workshop: Workshop, quick_path: Path) -> None:
    """Data to scores: the manifest, the model with its tokenizer, predictions and pictures included."""
    data = str(workshop.model_folder.parent / "data")
    settings = RunSettings(data=data, model=str(workshop.model_folder), training=RUN)

    def run(folder: Path) -> None:
        FineTuning(settings).run(folder, resume=True, strict_resume=True)

    def left(folder: Path) -> dict[str, object]:
        names = ("model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "metrics.json", "predictions.conll")
        files: dict[str, object] = {name: (folder / name).read_bytes() for name in names}
        strays = [str(path) for path in folder.rglob("*") if atomic_file.is_leftover(path.name)]
        return files | {"log": log_without_times(folder), "strays": strays}

    whole = quick_path / "whole"
    whole.mkdir()
    with FailingDisk(whole).on() as disk:
        run(whole)
    generator = random.Random(SEED)
    cases = [(number, how) for number in range(disk.count) for how in FAULTS]
    for number, how in cases if EVERYTHING else generator.sample(cases, 4):
        case = f"call {number} of {disk.count}, {how}"
        folder = quick_path / f"{number}-{how}"
        folder.mkdir()
        with FailingDisk(folder, number, how, half=generator.random() < 0.5).on():
            try:
                run(folder)
                end = "ended"
            except MinitlError as error:
                end = str(error)
            except Killed:
                end = "killed"
        assert end in ("ended", "killed") or (str(folder) in end and "\n" not in end), case
        only_last_flush = (
            number >= disk.count - 2
        )  # after the renaming that makes run.json say so, which is true by then
        if end not in ("ended", "killed") and (folder / "run.json").exists() and not only_last_flush:
            assert '"status": "done"' not in (folder / "run.json").read_text(), case
        run(folder)
        assert left(folder) == left(whole), case
        shutil.rmtree(folder)


def test_a_training_goes_on_after_any_failure_of_its_disk(workshop: Workshop, quick_path: Path) -> None:
    """Logs, checkpoints and all: the resumed run ends with the bytes of one whose disk never failed."""
    whole = workshop.trainer(quick_path / "whole", RUN)
    with FailingDisk(quick_path / "whole").on() as disk:
        whole.run()
    count, expected = disk.count, outcome(whole)
    generator = random.Random(SEED)
    cases: list[tuple[int, str]] = [(number, how) for number in range(count) for how in FAULTS]
    for number, how in cases if EVERYTHING else generator.sample(cases, 6):
        case = f"call {number}, {how}"
        folder = quick_path / f"{number}-{how}"
        failing = FailingDisk(folder, number, how, half=generator.random() < 0.5)
        ended: Any = None
        first = workshop.trainer(folder, RUN)
        with failing.on():
            try:
                first.run()
            except (MinitlError, Killed) as error:
                ended = error
        assert isinstance(ended, Killed) == (how == "kill"), case
        trainer = workshop.trainer(folder, RUN)
        assert trainer.restore(strict=True) == [], case
        trainer.run()
        assert outcome(trainer) == expected, case
        assert log_without_times(folder) == log_without_times(quick_path / "whole"), case
        shutil.rmtree(folder)
