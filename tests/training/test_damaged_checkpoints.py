"""Checkpoints damaged after they were saved: passed over with a reason, never loaded wrong, never waited for."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_save_faults import FILES, check_whole, checkpoint

from minitl.errors import CheckpointError
from minitl.training.checkpoint import CheckpointFolder

SEED = 20261127
Damage = Callable[[Path, random.Random], None]


def cut(share: float) -> Damage:
    return lambda path, chance: os.truncate(path, int(share * path.stat().st_size))


def flip_a_bit(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def zero_a_block(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.randint(1, 512))
    if not any(content[start:end]):
        start, end = 0, 8
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


def replace_by(make: Callable[[Path], None]) -> Damage:
    def damage(path: Path, chance: random.Random) -> None:
        path.unlink()
        make(path)

    return damage


def swap_with_the_other(path: Path, chance: random.Random) -> None:
    shutil.copy(path.parent.parent / "step-00000001" / path.name, path)


def a_link_to_the_same(path: Path) -> None:
    target = path.parent.parent.parent / f"outside-{path.name}"
    shutil.copy(path.parent.parent / "step-00000001" / path.name, target)
    path.symlink_to(target)


DAMAGES: dict[str, Damage] = {
    "a bit flipped": flip_a_bit,
    "a block of zeros": zero_a_block,
    "all zeros": lambda path, chance: path.write_bytes(bytes(path.stat().st_size)) and None,
    "empty": cut(0),
    "its first byte": lambda path, chance: os.truncate(path, 1),
    "half": cut(0.5),
    "the last byte missing": lambda path, chance: os.truncate(path, path.stat().st_size - 1),
    "a byte more": lambda path, chance: path.write_bytes(path.read_bytes() + b"\0") and None,
    "removed": replace_by(lambda path: None),
    "a folder": replace_by(lambda path: path.mkdir()),
    "a pipe": replace_by(lambda path: os.mkfifo(path)),
    "a link to a file outside": replace_by(a_link_to_the_same),
    "a link to nothing": replace_by(lambda path: path.symlink_to("nowhere")),
    "a link to itself": replace_by(lambda path: path.symlink_to(path.name)),
    "a device that never ends": replace_by(lambda path: path.symlink_to("/dev/zero")),
    "that of the checkpoint before": swap_with_the_other,
    "other bytes of the same length": lambda path, chance: (
        path.write_bytes(chance.randbytes(path.stat().st_size)) and None
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    saving = CheckpointFolder(folder, keep=2)
    saving.save(checkpoint(1))
    saving.save(checkpoint(2))
    return folder


def times(damage: str) -> range:
    """Damages at random places are done several times."""
    return range(20 if damage in ("a bit flipped", "a block of zeros") else 1)


@pytest.fixture
def copies(saved: Path, tmp_path: Path) -> Callable[[], Path]:
    number = 0

    def copy() -> Path:
        nonlocal number
        number += 1
        return Path(shutil.copytree(saved, tmp_path / str(number) / "checkpoints"))

    return copy


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", sorted(FILES))
def test_a_damaged_file_is_passed_over(file: str, damage: str, copies: Callable[[], Path]) -> None:
    chance = random.Random(f"{SEED} {file} {damage}")
    for _ in times(damage):
        folder = copies()
        path = folder / "step-00000002" / file
        before = path.read_bytes()
        DAMAGES[damage](path, chance)
        assert not (path.is_file() and not path.is_symlink() and path.read_bytes() == before)
        found, notes = CheckpointFolder(folder).newest()
        check_whole(found, (1,))
        assert len(notes) == 1
        assert notes[0].startswith(f"passed over a damaged checkpoint: {folder / 'step-00000002'}")
        assert file in notes[0]
        assert "\n" not in notes[0]
        with pytest.raises(CheckpointError, match="step-00000002"):
            CheckpointFolder(folder).newest(strict=True)


def test_a_whole_checkpoint_under_another_name_is_not_believed(copies: Callable[[], Path]) -> None:
    folder = copies()
    (folder / "step-00000002").rename(folder / "step-00000007")
    found, notes = CheckpointFolder(folder).newest()
    check_whole(found, (1,))
    assert "is misnamed: it holds the checkpoint of step 2" in notes[0]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(os.mkfifo, id="a pipe"),
        pytest.param(lambda path: path.write_text("a file"), id="a file"),
        pytest.param(lambda path: path.symlink_to("nowhere"), id="a link to nothing"),
        pytest.param(lambda path: path.mkdir(), id="an empty folder"),
    ],
)
def test_something_else_under_the_name_of_a_checkpoint(
    make: Callable[[Path], object], copies: Callable[[], Path]
) -> None:
    """It is passed over, and replaced when training comes to its step again."""
    folder = copies()
    shutil.rmtree(folder / "step-00000002")
    make(folder / "step-00000002")
    saving = CheckpointFolder(folder, keep=2)
    found, notes = saving.newest()
    check_whole(found, (1,))
    assert "step-00000002" in notes[0]
    saving.save(checkpoint(2))
    check_whole(CheckpointFolder(folder).newest(strict=True)[0], (2,))
    assert sorted(os.listdir(folder)) == ["step-00000001", "step-00000002"]


def test_files_that_do_not_belong_there_are_no_matter(copies: Callable[[], Path]) -> None:
    folder = copies()
    (folder / "step-00000002" / "notes.txt").write_text("mine")
    (folder / "readme").write_text("mine")
    (folder / "step-abc").mkdir()
    found, notes = CheckpointFolder(folder).newest(strict=True)
    check_whole(found, (2,))
    assert notes == []


def test_both_damaged_is_an_error_with_both_reasons(copies: Callable[[], Path]) -> None:
    folder = copies()
    for step in (1, 2):
        os.truncate(folder / f"step-0000000{step}" / "state.json", 3)
    with pytest.raises(CheckpointError, match="no checkpoint is whole") as raised:
        CheckpointFolder(folder).newest()
    assert [f"step-0000000{step}/state.json: is damaged" in str(raised.value) for step in (1, 2)] == [True, True]
