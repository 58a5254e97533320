"""``run.json``: what a run was made of, so that it can be made again, and told from another.

Settings, the environment (versions, processor, threads), fingerprints of the data and of the weights it began and ended
with, and the results. Written when the run begins and again when it ends; a run that was interrupted says so in it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minitl import atomic_file, strict_json
from minitl._version import __version__
from minitl.errors import MinitlError
from minitl.kernels.processor import processor
from minitl.kernels.select import select
from minitl.text.conll import Sentence
from minitl.training.training_state import differences

MANIFEST = "run.json"
FORMAT = "minitl run 1"
LARGEST = 10_000_000  # bytes
PACKAGES = ("numpy", "numba", "tokenizers", "safetensors")


def environment(device: str) -> dict[str, Any]:
    """Return what results may depend on besides the settings: versions, processor, threads, the device."""
    found: dict[str, Any] = {"minitl": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        found[package] = importlib.metadata.version(package)
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["vector_bytes"] = processor().vector_bytes  # which kernels the processor gets
    found["threads"] = int(os.environ.get("NUMBA_NUM_THREADS", 0)) or available_cores()
    found["kernels"] = select("matmul", device).__name__.rpartition(".")[2]
    found["device"] = device
    return found


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def data_sha256(sentences: Iterable[Sentence]) -> str:
    """Return the SHA-256 of some sentences: their words and tags in order, whatever file they came from."""
    digest = hashlib.sha256()
    for sentence in sentences:
        rows = zip(sentence.words, sentence.tags or [""] * len(sentence.words), strict=True)
        text = json.dumps([list(row) for row in rows], ensure_ascii=True, separators=(",", ":"))
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def weights_sha256(state: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of named arrays: of their names, dtypes, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def write_manifest(folder: Path, values: Mapping[str, Any]) -> None:
    """Write ``run.json`` in one step; CheckpointError if it cannot be written."""
    document = {"format": FORMAT, **values}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_file.write_bytes(folder / MANIFEST, text.encode() + b"\n")


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the ``run.json`` of a run; ``path`` is the file or its folder.

    Raises:
        MinitlError: there is none, or it is not of this format.
    """
    path = path / MANIFEST if path.is_dir() else path
    values = strict_json.read_object(path, largest=LARGEST)
    if values.get("format") != FORMAT:
        raise MinitlError(f"{path}: has format {values.get('format')!r}, this version of minitl reads {FORMAT!r}")
    return values


def environment_notes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a warning for each part of the environment that has changed."""
    return [f"WARNING: the environment has changed, results may differ: {line}" for line in differences(now, then)]
