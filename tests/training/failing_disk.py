"""A disk that fails: every call that changes it can be made to raise an error, or to be the last one before a kill.

Also a record of these calls, from which :class:`Tree` knows what a disk may hold after a power failure.
"""

from __future__ import annotations

import errno
import io
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.numpy

# What changes a disk. Reading and looking are left alone: a process that is killed does neither.
CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "chmod", "ftruncate", "write")
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}


class Killed(BaseException):
    """The process has ended: nothing that comes after this touches the disk."""


@dataclass
class FailingDisk:
    """Counts the calls that change files below a folder, and lets one of them fail.

    Args:
        root: the folder; what happens elsewhere is none of its business.
        at: number of the call that fails, from 0; None for none.
        how: "EIO" or "ENOSPC", an error of this call; the same with " for good", of all from then on (ENOSPC lets
            names be removed and files be cut, as a full disk does); or "kill", after which nothing reaches the disk.
        half: whether a call that writes has written a half before it fails.
    """

    root: Path
    at: int | None = None
    how: str = "kill"
    half: bool = False
    count: int = 0
    failed: str = ""  # the call that failed first
    record: list[tuple[Any, ...]] = field(default_factory=list)

    @contextmanager
    def on(self) -> Iterator[FailingDisk]:
        """Let the calls in the block go through this disk."""
        # "from os import replace" in a module would escape; minitl, pathlib and shutil call os.replace
        with mock.patch.multiple("os", **{name: self._wrapped(name, getattr(os, name)) for name in CALLS}):
            patches = [
                mock.patch("os.open", self._opened(os.open)),
                mock.patch("io.open", self._opened_for_writing(io.open)),
                mock.patch("safetensors.numpy.save_file", self._saved(safetensors.numpy.save_file)),
            ]
            for patch in patches:
                patch.start()
            try:
                yield self
            finally:
                for patch in patches:
                    patch.stop()

    def _holds(self, path: Any) -> bool:
        return isinstance(path, (str, Path)) and f"{os.path.abspath(path)}{os.sep}".startswith(f"{self.root}{os.sep}")

    def _fails(self, name: str) -> bool:
        if self.failed and self.how == "kill":
            raise Killed
        removes = name in ("unlink", "rmdir", "ftruncate")
        if self.failed and self.how.endswith("for good") and not (removes and self.how.startswith("ENOSPC")):
            return True
        number, self.count = self.count, self.count + 1
        if number == self.at:
            self.failed = name
            return True
        return False

    def _fail(self) -> None:
        if self.how == "kill":
            raise Killed
        number = ERRORS[self.how.split()[0]]
        raise OSError(number, os.strerror(number))

    def _wrapped(self, name: str, right: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name in ("fsync", "ftruncate", "write"):
                paths: tuple[str, ...] = (os.readlink(f"/proc/self/fd/{arguments[0]}"),)
            else:
                paths = tuple(_path(one, options.get("dir_fd")) for one in arguments if isinstance(one, (str, Path)))
            if not self._holds(paths[0]):
                return right(*arguments, **options)
            if self._fails(name):
                if name == "write" and self.half:
                    right(arguments[0], arguments[1][: len(arguments[1]) // 2])
                self._fail()
            result = right(*arguments, **options)
            self.record.append((name, *paths))
            return result

        return call

    def _opened(self, right: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, flags: int, *arguments: Any, **options: Any) -> Any:
            if flags & os.O_CREAT and self._holds(path):
                if self._fails("create"):
                    self._fail()
                self.record.append(("create", os.fspath(path)))
            return right(path, flags, *arguments, **options)

        return call

    def _opened_for_writing(self, right: Callable[..., Any]) -> Callable[..., Any]:
        """``Path.write_bytes``: opened, written and closed at once, which counts as one call."""

        def call(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if "w" not in mode or not self._holds(path):
                return right(path, mode, *arguments, **options)
            if self.failed and self.how == "kill":
                raise Killed
            return _Written(right(path, mode, *arguments, **options), self, os.fspath(path))

        return call

    def _saved(self, right: Callable[..., None]) -> Callable[..., None]:
        def call(arrays: Any, path: Any, *arguments: Any, **options: Any) -> None:
            fails = self._fails("save_file")
            if not fails or self.half:
                right(arrays, path, *arguments, **options)
            if fails:
                if self.half:
                    with open(path, "r+b") as stream:
                        stream.truncate(os.path.getsize(path) // 2)
                self._fail()
            self.record.append(("content", os.fspath(path), Path(path).read_bytes()))

        return call


class _Written:
    """A file opened for writing that fails where the disk says so."""

    def __init__(self, stream: Any, disk: FailingDisk, path: str) -> None:
        self._stream, self._disk, self._path = stream, disk, path

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *arguments: object) -> None:
        self._stream.close()

    def write(self, data: Any) -> int:
        if self._disk._fails("write_bytes"):
            if self._disk.half:
                self._stream.write(data[: len(data) // 2])
                self._stream.flush()
            self._disk._fail()
        self._disk.record.append(("content", self._path, data.encode() if isinstance(data, str) else bytes(data)))
        return int(self._stream.write(data))


def _path(given: str | Path, folder: int | None) -> str:
    text = os.fspath(given)
    return text if folder is None else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)


@dataclass
class File:
    """A file in a :class:`Tree`: what was written, and what of it is certainly on the disk (None: nothing)."""

    written: bytes = b""
    kept: bytes | None = None


@dataclass
class Folder:
    """A folder in a :class:`Tree`: its names on the disk, and changes that are not certain yet."""

    kept: dict[str, File | Folder] = field(default_factory=dict)
    now: dict[str, File | Folder] = field(default_factory=dict)
    waiting: list[tuple[str, ...]] = field(default_factory=list)
    made: dict[str, File | Folder] = field(default_factory=dict)  # what a waiting change links


class Tree:
    """What a disk may hold if the power fails, as far as POSIX promises anything.

    Data is certain after fsync of its file, a name after fsync of its folder; before that, each change of a name may
    have happened or not, in any combination, and a file may be empty, half there or whole.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = self._read(root)

    def _read(self, path: Path) -> Folder:
        names: dict[str, File | Folder] = {}
        for one in path.iterdir():
            names[one.name] = self._read(one) if one.is_dir() else File(one.read_bytes(), one.read_bytes())
        return Folder(dict(names), names)

    def _find(self, path: str) -> tuple[Folder, str]:
        """The folder that holds a name, and the name."""
        parts = Path(path).relative_to(self.root).parts
        folder = self.top
        for part in parts[:-1]:
            inner = folder.now[part]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, parts[-1] if parts else ""

    def apply(self, call: tuple[Any, ...]) -> None:
        """Take in one recorded call."""
        name, *arguments = call
        if name in ("chmod", "write", "ftruncate"):
            return
        folder, last = self._find(arguments[0])
        if name in ("mkdir", "create"):
            self._link(folder, last, Folder() if name == "mkdir" else File())
        elif name == "content":
            if last not in folder.now:
                self._link(folder, last, File())
            file = folder.now[last]
            assert isinstance(file, File)
            file.written = arguments[1]
        elif name in ("rename", "replace"):
            target, new = self._find(arguments[1])
            assert target is folder, "a rename from folder to folder is not in this model"
            folder.now[new] = folder.now.pop(last)
            folder.waiting.append(("rename", last, new))
        elif name in ("unlink", "rmdir"):
            del folder.now[last]
            folder.waiting.append(("unlink", last))
        elif name == "fsync":
            self._flush(folder.now[last] if last else folder)

    def _link(self, folder: Folder, name: str, node: File | Folder) -> None:
        folder.now[name] = node
        folder.made[f"{len(folder.waiting)} {name}"] = node
        folder.waiting.append(("link", name, f"{len(folder.waiting)} {name}"))

    def _flush(self, node: File | Folder) -> None:
        if isinstance(node, File):
            node.kept = node.written
        else:
            node.kept, node.waiting, node.made = dict(node.now), [], {}

    def write_crashed(self, folder: Path, chance: random.Random) -> None:
        """Write one of the states that the disk may be in into an empty folder."""
        self._write(self.top, folder, chance)

    def _write(self, node: Folder, place: Path, chance: random.Random) -> None:
        names = dict(node.kept)
        share = chance.choice([0.0, 0.5, 1.0])  # nothing, something or everything of what waits
        for change in node.waiting:
            if chance.random() >= share:
                continue
            if change[0] == "link":
                names[change[1]] = node.made[change[2]]
            elif change[0] == "rename" and change[1] in names:
                names[change[2]] = names.pop(change[1])
            elif change[0] == "unlink":
                names.pop(change[1], None)
        for name, inner in names.items():
            if isinstance(inner, Folder):
                (place / name).mkdir()
                self._write(inner, place / name, chance)
            elif inner.kept is not None and inner.kept == inner.written:
                (place / name).write_bytes(inner.kept)
            else:
                whole = inner.written
                (place / name).write_bytes(chance.choice([inner.kept or b"", b"", whole[: len(whole) // 2], whole]))
