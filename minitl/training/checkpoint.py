"""Checkpoints that cannot be lost: a folder each, complete or not there, with a checksum for every byte.

::

    checkpoints/
        step-00000120/
            model.safetensors         the parameters, under their own names
            optimizer.safetensors     moments and step counts
            best.safetensors          the parameters of the best evaluation, unless they are those of the model
            state.json                where training stands
            SHA256SUMS                of the files above; ``sha256sum -c SHA256SUMS`` checks it

A checkpoint is written into a folder with a temporary name. Its files are flushed to the disk, then the folder, then it
is given its name, and the folder above is flushed. A crash at any moment, also a power failure, leaves the checkpoint
before; a checkpoint that carries its name is whole. What a crash has left is swept away by the next run. An older one
is removed only when newer ones are on the disk: first renamed, and the new name flushed, so that no half of it can be
taken for a whole.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minitl import atomic_file
from minitl.errors import CheckpointError
from minitl.training.checkpoint_files import NAME, Checkpoint, read_checkpoint, write_files

__all__ = ["Checkpoint", "CheckpointFolder", "read_checkpoint"]

_TEMPORARY = re.compile(r"\.step-\d+\..*\.tmp")


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: where they lie; made when it is needed.
        keep: how many of the newest stay.

    Raises:
        ValueError: ``keep`` below 1.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"at least 1 checkpoint must be kept, got {keep}")
        self.folder, self.keep = folder, keep
        self._good: list[int] = []  # steps of those that this process has written, or read and found whole
        self._damaged: set[int] = set()  # steps of those that it has read and found damaged

    def prepare(self) -> list[str]:
        """Make the folder, remove what a crash has left in it, and try whether a checkpoint can be written.

        So what would prevent a checkpoint is found before the first step of a training.

        Returns:
            The names of what was removed: half written or half removed checkpoints.

        Raises:
            CheckpointError: the folder cannot be made, read or written.
        """
        with _errors(f"{self.folder}: no checkpoint can be saved"):
            self._make_folder()
            left = sorted(path for path in self.folder.iterdir() if _TEMPORARY.fullmatch(path.name))
            for path in left:
                _discard(path)
            trial = self._temporary_path(0)
            try:
                trial.mkdir()
                atomic_file.write_bytes(trial / "optimizer.safetensors", b"the longest of the names")
            finally:
                _discard(trial)
        return [path.name for path in left]

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, and then remove what is too old.

        Returns:
            Its folder.

        Raises:
            CheckpointError: it could not be written, or there is one of this step that was not found damaged. Those
                before are as they were, nothing half written is left; but where only the last flush has failed, the new
                one is there, which might not survive a power failure.
        """
        final = self._path(checkpoint.step)
        temporary = self._temporary_path(checkpoint.step)
        with _errors(f"{final}: cannot be saved"):
            self._make_folder()
            try:
                temporary.mkdir()
                write_files(temporary, checkpoint)
                if os.path.lexists(final):  # training has come here a second time
                    if checkpoint.step not in self._damaged:
                        raise CheckpointError("there is one of this step already")
                    self._remove(checkpoint.step)
                temporary.rename(final)
                atomic_file.flush(self.folder)
            finally:
                _discard(temporary)
        self._damaged.discard(checkpoint.step)
        self._good.append(checkpoint.step)
        self._rotate()
        return final

    def newest(self, *, strict: bool = False) -> tuple[Checkpoint | None, list[str]]:
        """Read the newest checkpoint that is whole.

        Args:
            strict: whether one that is not whole is an error, instead of a note.

        Returns:
            The checkpoint, None if there is none; and for each newer one that was passed over, why.

        Raises:
            CheckpointError: there are checkpoints, and none of them is whole; or, if ``strict``, the newest is not; or
                the folder cannot be read.
        """
        notes: list[str] = []
        for step in sorted(self._steps(), reverse=True):
            try:
                checkpoint = read_checkpoint(self._path(step))
            except CheckpointError as error:
                if strict:
                    raise
                notes.append(f"passed over a damaged checkpoint: {error}")
                self._damaged.add(step)
                continue
            self._good.append(step)
            return checkpoint, notes
        if notes:
            raise CheckpointError(f"{self.folder}: no checkpoint is whole:\n  " + "\n  ".join(notes))
        return None, []

    def unread(self, step: int) -> list[int]:
        """Return the steps, above ``step``, of checkpoints that :meth:`newest` has not passed over.

        Raises:
            CheckpointError: the folder cannot be read.
        """
        return sorted(found for found in self._steps() if found > step and found not in self._damaged)

    def _make_folder(self) -> None:
        """Make the folder, but none above it: a run whose folder was removed must not go on in a new one."""
        if not self.folder.parent.is_dir():
            raise CheckpointError("the run's folder is gone")
        if not self.folder.is_dir():
            self.folder.mkdir()
            atomic_file.flush(self.folder.parent)

    def _rotate(self) -> None:
        """Remove all but the newest whole ones. One that cannot be removed stays, and is tried again the next time.

        As long as fewer whole ones are known than are to be kept, those that were not read stay, too.
        """
        self._good = sorted(set(self._good))[-self.keep :]
        enough = len(self._good) == self.keep
        with suppress(OSError, CheckpointError):
            for step in self._steps():
                if step < self._good[-1] and step not in self._good and (enough or step in self._damaged):
                    self._remove(step)

    def _remove(self, step: int) -> None:
        """Remove a checkpoint: its name first, and at once, so that no half of it ever has the name."""
        leaving = self._temporary_path(step)
        self._path(step).rename(leaving)
        atomic_file.flush(self.folder)
        _discard(leaving)

    def _steps(self) -> list[int]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"{self.folder}: cannot be read ({error.strerror})") from None
        return [int(found[1]) for found in map(NAME.fullmatch, names) if found]

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _temporary_path(self, step: int) -> Path:
        return self.folder / f".step-{step:08d}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Raise the errors of the block as a CheckpointError that begins with ``what``."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{what} ({error.strerror or error})") from None
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {error}") from None


def _discard(path: Path) -> None:
    """Remove a folder or file as far as it can be removed; what stays has a temporary name, and is tried again."""
    if path.is_dir() and not path.is_symlink():  # rmtree would open a pipe, and wait for somebody to write into it
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
