"""One writer for a folder: a second run in the same folder is refused, a crashed one leaves nothing that blocks.

The lock belongs to the open file, not to its existence: the operating system takes it back when the process ends,
however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minitl.errors import MinitlError

LOCK_FILE = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, which must exist, for writing.

    Raises:
        MinitlError: another process holds it, or the folder cannot be written or locked.
    """
    path = folder / LOCK_FILE
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise MinitlError(f"{folder}: cannot be written ({error.strerror}); name another output folder") from None
    try:
        _take(handle, folder)
        yield
    finally:
        with suppress(OSError):  # an error here loses nothing: the lock is given back all the same
            os.close(handle)  # the file stays: if it were removed, two processes could hold two files of this name


def _take(handle: int, folder: Path) -> None:
    """Lock the folder's open file, and write our number into it."""
    try:
        if not _lock(handle):
            raise MinitlError(
                f"{folder}: another run is writing into it (process {_owner(handle)}); wait for it to end, "
                "or name another folder"
            )
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise MinitlError(f"{folder}: cannot be locked ({error.strerror}); name another output folder") from None


def _lock(handle: int) -> bool:
    """Lock an open file without waiting; return whether nobody else has. OSError where it cannot be locked at all."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(handle: int) -> str:
    try:
        return os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
    except (OSError, AttributeError):  # no pread on Windows
        return "unknown"
