"""The files of one checkpoint: written and flushed, read and checked byte for byte; see checkpoint.py for the whole."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from minitl import atomic_file, strict_json
from minitl.errors import CheckpointError
from minitl.models.safetensors_file import SafetensorsFile, write

SUMS, STATE = "SHA256SUMS", "state.json"
LARGEST_STATE = 1_000_000  # bytes
FORMAT = 1
NAME = re.compile(r"step-(\d{8,})")  # of a checkpoint's folder
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


def write_files(folder: Path, checkpoint: Checkpoint) -> None:
    """Write and flush the files of a checkpoint, the checksums last."""
    for name, arrays in checkpoint.arrays.items():
        write(folder / f"{name}.safetensors", arrays)
    state = {"format": FORMAT, "step": checkpoint.step, "arrays": sorted(checkpoint.arrays), **checkpoint.state}
    atomic_file.write_bytes(folder / STATE, json.dumps(state, indent=1, allow_nan=False).encode())
    names = [*(f"{name}.safetensors" for name in checkpoint.arrays), STATE]
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names]
    atomic_file.write_bytes(folder / SUMS, "".join(lines).encode())


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and check every byte of it.

    Raises:
        CheckpointError: a file is missing, damaged, of another checkpoint or from a newer format; the message names it.
    """
    sums = _read_sums(folder)
    for name, expected in sums.items():
        try:
            found = _sha256(folder / name)
        except CheckpointError as error:  # perhaps it is the name that is damaged
            raise CheckpointError(f"{error}; {SUMS} names it") from None
        if found != expected:
            raise CheckpointError(f"{folder / name}: is damaged: its SHA-256 is not the one in {SUMS}")
    state = strict_json.read_object(folder / STATE, largest=LARGEST_STATE)
    if state.get("format") != FORMAT or not isinstance(state.get("step"), int):
        raise CheckpointError(
            f"{folder / STATE}: has format {state.get('format')!r}, this version of minitl reads {FORMAT}"
        )
    named = NAME.fullmatch(folder.name)
    if named and int(named[1]) != state["step"]:
        raise CheckpointError(f"{folder}: is misnamed: it holds the checkpoint of step {state['step']}")
    arrays = {name.removesuffix(".safetensors"): _read_arrays(folder / name) for name in sums if name != STATE}
    if not {"model", "optimizer"} <= arrays.keys() or sorted(arrays) != state.get("arrays"):
        raise CheckpointError(f"{folder / SUMS}: names other files than the checkpoint was saved with")
    return Checkpoint(state["step"], arrays, state)


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    with _reading(path) as stream:
        lines = stream.read(10_000).decode("ascii", "replace").split("\n")
    found = [_SUM_LINE.fullmatch(line) for line in lines[:-1]]
    sums = {match[2]: match[1] for match in found if match}
    if lines[-1] != "" or len(sums) != len(lines) - 1 or STATE not in sums:
        raise CheckpointError(f"{path}: is damaged: expected a SHA-256, two blanks and a name in each line")
    return sums


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with SafetensorsFile(path) as file:
        return {name: file.read_stored(name) for name in file.tensors}


def _sha256(path: Path) -> str:
    with _reading(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _reading(path: Path) -> Iterator[BufferedReader]:
    """Open a file of a checkpoint: nothing but a regular file, since a link leads out, and a pipe is waited for."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise CheckpointError(f"{path}: is not a regular file")
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
