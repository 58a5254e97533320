"""Real disks that are full, read-only or gone: the checkpoint before stays whole, and the message says why."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_tools import call_here
from training_runs import SETTINGS, Workshop, log_without_times, outcome

from minitl.errors import CheckpointError, MinitlError
from minitl.training import Trainer
from minitl.training.checkpoint import Checkpoint, CheckpointFolder, read_checkpoint

DISK = 1024 * 1024  # bytes
RUN = replace(SETTINGS, max_steps=8)  # a checkpoint after every second step


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "minitl-test", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"needs a file system of its own, and there is no mount: {error.strerror}")
    if done.returncode:
        pytest.skip(f"needs a file system of its own, which only root may mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def checkpoint(step: int) -> Checkpoint:
    """About 130 kB that differ from step to step."""
    arrays = {"weight": np.full(16_000, step, np.float32), "bias": np.arange(100, dtype=np.float32)}
    return Checkpoint(step, {"model": arrays, "optimizer": {"mean": arrays["weight"] + 1}}, {"note": "x" * 1000})


def fill(disk: Path, leave: int) -> Path:
    """Leave so many bytes free."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, free - leave)))
    return ballast


def holds(folder: Path, step: int) -> None:
    """One whole checkpoint is there, of this step, and nothing else."""
    assert os.listdir(folder) == [f"step-{step:08d}"]
    found = read_checkpoint(folder / f"step-{step:08d}")
    for part, arrays in checkpoint(step).arrays.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(found.arrays[part][name], values)


@pytest.mark.parametrize("free", range(0, 140_000, 12_000))
def test_a_full_disk_costs_nothing_at_any_place_of_a_save(disk: Path, free: int) -> None:
    folder = CheckpointFolder(disk / "checkpoints", keep=1)
    folder.save(checkpoint(1))
    ballast = fill(disk, leave=free)
    with pytest.raises(CheckpointError, match=r"step-00000002: cannot be saved.*No space left on device"):
        folder.save(checkpoint(2))
    holds(disk / "checkpoints", 1)
    ballast.unlink()
    folder.save(checkpoint(2))
    holds(disk / "checkpoints", 2)


def test_a_read_only_disk(disk: Path) -> None:
    folder = CheckpointFolder(disk / "checkpoints")
    folder.save(checkpoint(1))
    remount(disk, "ro")
    with pytest.raises(CheckpointError, match=r"step-00000002: cannot be saved.*Read-only file system"):
        folder.save(checkpoint(2))
    with pytest.raises(CheckpointError, match=r"no checkpoint can be saved.*Read-only file system"):
        CheckpointFolder(disk / "checkpoints").prepare()
    holds(disk / "checkpoints", 1)
    remount(disk, "rw")
    assert CheckpointFolder(disk / "checkpoints").prepare() == []
    folder.save(checkpoint(2))
    assert sorted(os.listdir(disk / "checkpoints")) == ["step-00000001", "step-00000002"]


def test_the_command_finds_a_disk_that_cannot_hold_a_run_before_it_trains(
    workshop: Workshop, disk: Path, tmp_path: Path
) -> None:
    words = ["train", "--data", tmp_path / "data", "--model", tmp_path / "model", "--epochs", "1", "--output"]
    shutil.copytree(workshop.model_folder.parent, tmp_path, dirs_exist_ok=True)
    full = call_here(*words, disk / "run", folder=tmp_path)
    assert (full.code, full.out) == (1, "")
    assert "MB are free, but two checkpoints and the model need" in full.err
    assert "step 1" not in full.err
    assert not list((disk / "run").glob("log.jsonl"))
    remount(disk, "ro")
    read_only = call_here(*words, disk / "other", folder=tmp_path)
    assert (read_only.code, read_only.out) == (1, "")
    assert read_only.err.splitlines()[-1].endswith("Read-only file system")


class DiskFills(Trainer):
    """Something else takes the space after step 5."""

    disk: Path

    def _after_step(self) -> None:
        if self.state.step == 5:
            fill(self.disk, leave=8192)
        super()._after_step()


def test_a_disk_that_fills_while_training(workshop: Workshop, disk: Path, tmp_path: Path) -> None:
    whole = workshop.trainer(tmp_path / "whole", RUN)
    whole.run()
    remount(disk, "size=3m")
    kind = type("DiskFillsHere", (DiskFills,), {"disk": disk})
    with pytest.raises(MinitlError, match="No space left on device"):
        workshop.trainer(disk / "run", RUN, kind).run()
    (disk / "ballast").unlink()
    trainer = workshop.trainer(disk / "run", RUN)
    assert trainer.restore(strict=True) == []
    assert trainer.state.step == 4
    trainer.run()
    assert outcome(trainer) == outcome(whole)
    assert log_without_times(disk / "run") == log_without_times(tmp_path / "whole")


class FolderVanishes(Trainer):
    """Somebody removes the folder of the run after step 5."""

    def _after_step(self) -> None:
        if self.state.step == 5 and self.folder is not None:
            shutil.rmtree(self.folder)
        super()._after_step()


def test_a_folder_that_is_removed_while_training_is_not_made_again(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(MinitlError, match="run's folder is gone"):
        workshop.trainer(tmp_path / "run", RUN, FolderVanishes).run()
    assert not (tmp_path / "run").exists()
