"""The best epoch is kept, NaN never is, and no run writes over another."""

import io
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minitl import atomic_file, nn
from minitl.errors import MinitlError
from minitl.training import BestState, TrainingProgress, claim_output_folder, new_run_folder, run_folder
from minitl.training.folder_lock import folder_lock


def test_the_best_state_comes_back() -> None:
    model = nn.Linear(2, 2)
    best = BestState(model)
    states = []
    for score in (0.2, 0.9, math.nan, 0.9, 0.5):
        model.weight.copy_(np.full((2, 2), len(states), dtype=np.float32))
        states.append(best.update(score, label=len(states)))
    assert states == [True, True, False, False, False]  # a tie keeps the earlier state
    best.restore()
    assert (best.score, best.label) == (0.9, 1)
    np.testing.assert_array_equal(model.weight.numpy(), 1)


def test_nothing_to_restore_is_an_error() -> None:
    best = BestState(nn.Linear(1, 1))
    assert not best.update(math.nan)
    with pytest.raises(RuntimeError, match="no state"):
        best.restore()


def test_run_folders_count_up(tmp_path: Path) -> None:
    names = [new_run_folder("ner", tmp_path / "runs").name for _ in range(3)]
    assert names == ["ner-1", "ner-2", "ner-3"]


def test_an_output_folder_is_never_overwritten(tmp_path: Path) -> None:
    assert claim_output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "a" / "b" / "model").write_text("precious")
    with pytest.raises(MinitlError, match="not empty"):
        claim_output_folder(tmp_path / "a" / "b")
    for wrong in (tmp_path / "a" / "b" / "model", tmp_path / "a" / "b" / "model" / "below"):
        with pytest.raises(MinitlError, match="not a folder"):
            claim_output_folder(wrong)
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(MinitlError, match="runs"):
        new_run_folder("ner", tmp_path / "runs")


def test_what_a_run_leaves_that_was_killed_before_its_start_does_not_stand_in_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with folder_lock(claim_output_folder(folder)):
        (folder / ".run.json.123.abcd1234.tmp").write_text("half")
        with pytest.raises(MinitlError, match="another run is writing into it"):
            claim_output_folder(folder)
    assert list(claim_output_folder(folder).iterdir()) == []
    (folder / "run.json.tmp").write_text("mine")
    with pytest.raises(MinitlError, match="not empty"):
        claim_output_folder(folder)


def test_what_killed_writers_leave_is_removed_and_nothing_else(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    with pytest.MonkeyPatch.context() as patch:  # the cleanup of a process that is killed does not come
        patch.setattr(Path, "unlink", lambda path: None)
        with pytest.raises(Killed), atomic_file.replacing(tmp_path / "config.json"):
            raise Killed
    (left,) = (path.name for path in tmp_path.iterdir())
    (tmp_path / f"{atomic_file.TEMPORARY_FOLDER}abc").mkdir()
    (tmp_path / f"{atomic_file.TEMPORARY_FOLDER}abc" / "vocab.txt").write_text("a")
    for mine in (".hidden", "notes.tmp", ".config.json.tmp", "config.json"):
        (tmp_path / mine).write_text("mine")
    assert atomic_file.remove_leftovers(tmp_path) == [left, f"{atomic_file.TEMPORARY_FOLDER}abc"]
    assert {path.name for path in tmp_path.iterdir()} == {".hidden", "notes.tmp", ".config.json.tmp", "config.json"}


def test_a_failed_run_leaves_no_empty_folder_and_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_folder("ner", tmp_path / "empty"):
        raise KeyboardInterrupt
    assert not (tmp_path / "empty").exists()
    with pytest.raises(FileNotFoundError), run_folder("ner", tmp_path / "full") as folder:
        (folder / "log").write_text("kept") and (folder / "missing").unlink()
    assert (tmp_path / "full" / "log").read_text() == "kept"


def test_progress_says_loss_and_speed_once_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with TrainingProgress(2, "epoch 1/1", stream=stream) as progress:
        progress.advance(1.0, labels=3, tokens=10)
        progress.advance(2.0, labels=1, tokens=10)
        assert progress.average_loss == 1.25  # a mean over labels, not over steps
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("epoch 1/1: loss 1.250, ")
    assert "tokens/s" in lines[0]


def test_a_long_epoch_says_each_minute_how_far_it_is_where_no_bar_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log must not be silent for an hour."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("minitl.training.progress.time", SimpleNamespace(perf_counter=lambda: clock.now))
    stream, silent = io.StringIO(), io.StringIO()
    with (
        TrainingProgress(1000, "epoch 1/1", stream=stream) as progress,
        TrainingProgress(1000, "epoch 1/1", stream=silent, quiet=True) as quiet,
    ):
        for _ in range(6):
            clock.now += 25
            progress.advance(1.0, labels=1, tokens=50)
            quiet.advance(1.0, labels=1, tokens=50)
    assert stream.getvalue().splitlines() == [
        "epoch 1/1: 3 of 1,000 steps, loss 1.000, 2 tokens/s",
        "epoch 1/1: 6 of 1,000 steps, loss 1.000, 2 tokens/s",
        "epoch 1/1: loss 1.000, 2 tokens/s, 150 s",
    ]
    assert silent.getvalue() == ""


def test_interrupted_progress_says_nothing_false() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), TrainingProgress(2, "epoch 1/1", stream=stream):
        raise KeyboardInterrupt
    assert stream.getvalue() == ""
