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
is removed only when a newer one is on the disk: first renamed, so that no half of it can be taken for a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minitl.errors import CheckpointError
from minitl.models import atomic_file, strict_json
from minitl.models.safetensors_file import SafetensorsFile, write

SUMS, STATE = "SHA256SUMS", "state.json"
LARGEST_STATE = 1_000_000  # bytes
FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})")
_SUM_LINE = re.compile(r"([0-9a-f]{64})  ([a-z]+\.(?:safetensors|json))")

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: optimizer steps done.
        arrays: file name without ending -> name -> array; "model", "optimizer", and "best" if it has its own.
        state: what ``state.json`` holds.
    """

    step: int
    arrays: Mapping[str, Arrays]
    state: Mapping[str, Any]


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: where they lie; made when the first is saved.
        keep: how many of the newest stay.

    Raises:
        ValueError: ``keep`` below 1.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"at least 1 checkpoint must be kept, got {keep}")
        self.folder, self.keep = folder, keep
        self._good: list[int] = []  # steps of those that this process has written, or read and found whole

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, and then remove what is too old.

        Returns:
            Its folder.

        Raises:
            CheckpointError: it could not be written; those before are as they were, and nothing half written is left.
        """
        final = self._path(checkpoint.step)
        temporary = self.folder / f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        try:
            if not self.folder.parent.is_dir():
                raise CheckpointError("the run's folder is gone")
            self.folder.mkdir(exist_ok=True)
            temporary.mkdir()
            _write_files(temporary, checkpoint)
            if final.exists():  # one that was damaged: training has come here a second time
                final.rename(self.folder / f".{final.name}.{secrets.token_hex(4)}.tmp")
            temporary.rename(final)
            atomic_file.flush(self.folder)
        except OSError as error:
            raise CheckpointError(f"{final}: cannot be saved ({error.strerror or error})") from None
        except CheckpointError as error:
            raise CheckpointError(f"{final}: cannot be saved: {error}") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
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
            CheckpointError: there are checkpoints, and none of them is whole; or, if ``strict``, the newest is not.
        """
        notes: list[str] = []
        for step in sorted(self._steps(), reverse=True):
            try:
                checkpoint = read_checkpoint(self._path(step))
            except CheckpointError as error:
                if strict:
                    raise
                notes.append(f"passed over a damaged checkpoint: {error}")
                continue
            self._good.append(step)
            return checkpoint, notes
        if notes:
            raise CheckpointError(f"{self.folder}: no checkpoint is whole:\n  " + "\n  ".join(notes))
        return None, []

    def sweep(self) -> list[str]:
        """Remove what a crash has left half written or half removed; return the names."""
        if not self.folder.is_dir():
            return []
        left = [path for path in sorted(self.folder.iterdir()) if re.fullmatch(r"\.step-\d+\..*\.tmp", path.name)]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return [path.name for path in left]

    def _rotate(self) -> None:
        """Remove all but the newest whole ones. One that cannot be removed stays, and is tried again the next time."""
        kept = set(sorted(set(self._good))[-self.keep :])
        for step in self._steps():
            if step not in kept and step < max(kept):
                leaving = self.folder / f".step-{step:08d}.{secrets.token_hex(4)}.tmp"
                with suppress(OSError):
                    self._path(step).rename(leaving)
                    shutil.rmtree(leaving, ignore_errors=True)
        self._good = sorted(kept)

    def _steps(self) -> list[int]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError:
            return []
        return [int(found[1]) for found in map(_NAME.fullmatch, names) if found]

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    """Write and flush the files of a checkpoint, the checksums last."""
    for name, arrays in checkpoint.arrays.items():
        write(folder / f"{name}.safetensors", arrays)
    state = {"format": FORMAT, "step": checkpoint.step, **checkpoint.state}
    atomic_file.write_bytes(folder / STATE, json.dumps(state, indent=1, allow_nan=False).encode())
    names = [*(f"{name}.safetensors" for name in checkpoint.arrays), STATE]
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names]
    atomic_file.write_bytes(folder / SUMS, "".join(lines).encode())


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and check every byte of it.

    Raises:
        CheckpointError: a file is missing, damaged or from a newer format; the message names it.
    """
    sums = _read_sums(folder)
    for name, expected in sums.items():
        try:
            found = _sha256(folder / name)
        except OSError as error:
            raise CheckpointError(f"{folder / name}: cannot be read ({error.strerror})") from None
        if found != expected:
            raise CheckpointError(f"{folder / name}: is damaged: its SHA-256 is not the one in {SUMS}")
    state = strict_json.read_object(folder / STATE, largest=LARGEST_STATE)
    if state.get("format") != FORMAT or not isinstance(state.get("step"), int):
        raise CheckpointError(
            f"{folder / STATE}: has format {state.get('format')!r}, this version of minitl reads {FORMAT}"
        )
    arrays = {name.removesuffix(".safetensors"): _read_arrays(folder / name) for name in sums if name != STATE}
    if not {"model", "optimizer"} <= arrays.keys():
        raise CheckpointError(f"{folder / SUMS}: names no model or no optimizer")
    return Checkpoint(state["step"], arrays, state)


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    try:
        with path.open("rb") as stream:
            lines = stream.read(10_000).decode("ascii", "replace").split("\n")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    found = [_SUM_LINE.fullmatch(line) for line in lines[:-1]]
    sums = {match[2]: match[1] for match in found if match}
    if lines[-1] != "" or len(sums) != len(lines) - 1 or STATE not in sums:
        raise CheckpointError(f"{path}: is damaged: expected a SHA-256, two blanks and a name in each line")
    return sums


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with SafetensorsFile(path) as file:
        return {name: file.read_stored(name) for name in file.tensors}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
