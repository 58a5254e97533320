"""What happened in a run, step by step: ``log.jsonl`` for programs, an event file for TensorBoard.

Both only grow. A checkpoint notes how long they were, so that a run that is resumed cuts off what had come after it and
writes it again: the log reads as if there had been no interruption. Fields that tell times are in ``TIME_FIELDS``; all
others are the same, byte for byte, in a run that was never interrupted.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from minitl import atomic_file
from minitl.errors import MinitlError
from minitl.training import tensorboard

LOG_FILE = "log.jsonl"
TIME_FIELDS = ("seconds",)


class Journal:
    """The log of one run.

    Args:
        folder: where to write; an existing log is continued.

    Raises:
        MinitlError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._start = time.perf_counter()
        with ExitStack() as opened:
            self._log = _GrowingFile(folder / LOG_FILE)
            opened.callback(self._log.close)
            events = sorted(path.name for path in folder.glob("events.out.tfevents.*"))
            name = events[-1] if events else f"events.out.tfevents.{int(time.time()):010d}.minitl"
            self._events = _GrowingFile(folder / name)
            opened.callback(self._events.close)
            with _errors(folder):
                atomic_file.flush(folder)  # the names of the two files
            self._begin_events()
            self._opened = opened.pop_all()

    def write(self, record: Mapping[str, Any], scalars: Mapping[str, float] | None = None) -> None:
        """Append a record, with the seconds since the start; and its numbers, by tag, for TensorBoard.

        Args:
            record: of what JSON has; it has a "step". A number that is not finite becomes a string, "nan" for example.
            scalars: tag -> number; those that are not finite are left out.

        Raises:
            MinitlError: it cannot be written (a full disk, a folder that is gone).
        """
        timed = {**record, "seconds": round(time.perf_counter() - self._start, 3)}
        line = json.dumps({key: _plain(value) for key, value in timed.items()}, allow_nan=False, ensure_ascii=False)
        self._log.append(line.encode() + b"\n")
        finite = {tag: value for tag, value in (scalars or {}).items() if math.isfinite(value)}
        if finite:
            self._events.append(tensorboard.scalars(time.time(), record["step"], finite))

    def flush(self) -> dict[str, int]:
        """Bring everything to the disk; return the length of each file, which a checkpoint keeps."""
        self._log.flush()
        self._events.flush()
        return {"log": self._log.length, "events": self._events.length}

    def cut(self, lengths: Mapping[str, int]) -> list[str]:
        """Go back to what :meth:`flush` has returned, or 0 for all; return notes if a file is not as long as it was."""
        notes = []
        for file, name in ((self._log, "log"), (self._events, "events")):
            missing = int(lengths[name]) - file.length
            if missing > 0:
                notes.append(f"{file.path} has lost {missing:,} bytes since the checkpoint; what follows is appended")
            else:
                file.cut(int(lengths[name]))
        self._begin_events()
        return notes

    def _begin_events(self) -> None:
        if self._events.length == 0:
            self._events.append(tensorboard.file_header(time.time()))

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


class _GrowingFile:
    """A file that is appended to and cut; what cannot be done raises a MinitlError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _errors(self.path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            self.length = os.lseek(self._handle, 0, os.SEEK_END)

    def append(self, data: bytes) -> None:
        written = 0
        try:
            with _errors(self.path):
                while written < len(data):  # a disk that has just become full takes a part
                    written += os.write(self._handle, data[written:])
        except MinitlError:
            with suppress(MinitlError):  # the disk fails: the first error says so
                self.cut(self.length)  # no half of a record
            raise
        self.length += written

    def flush(self) -> None:
        with _errors(self.path):
            os.fsync(self._handle)

    def cut(self, length: int) -> None:
        with _errors(self.path):
            os.ftruncate(self._handle, length)
            os.lseek(self._handle, 0, os.SEEK_END)
        self.length = length

    def close(self) -> None:
        with _errors(self.path):
            os.close(self._handle)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Raise an OSError of the block as a MinitlError that names ``path``."""
    try:
        yield
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror}); free some space, or resume elsewhere"
        raise MinitlError(message) from None
