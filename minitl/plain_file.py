"""Opening files of a model folder: nothing but regular files, which neither wait nor go on for ever.

A folder from a stranger may have a named pipe where a file should be, which would be waited for, or a link to a device
that never ends. Links to regular files are followed: the cache of huggingface_hub is made of them.

Files are read, not mapped: when another process cuts a file that is mapped, the reader is killed.
"""

import os
import stat
from io import FileIO
from pathlib import Path

from minitl.errors import CheckpointError


def open_plain(path: Path) -> FileIO:
    """Open a regular file for reading bytes, without a buffer.

    Raises:
        CheckpointError: there is none, it is something else, or it cannot be read; the message names ``path``.
    """
    try:
        # without O_NONBLOCK, opening a pipe would wait for a writer
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise CheckpointError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CheckpointError(f"{path}: is not a regular file")
    return FileIO(handle)


def read_plain(path: Path, *, largest: int) -> bytes:
    """Read a regular file of at most ``largest`` bytes; a larger one is refused before it is read.

    Raises:
        CheckpointError: as :func:`open_plain`, or the file is larger.
    """
    with open_plain(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > largest:
            raise CheckpointError(f"{path}: {size:,} bytes, more than the {largest:,} such a file can need")
        try:
            data = stream.read(size + 1) or b""
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > size:
        raise CheckpointError(f"{path}: grew while it was being read; load it again")
    return data
