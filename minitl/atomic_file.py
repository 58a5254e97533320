"""Writing a file so that a reader, a crash or a second writer never sees half of it."""

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minitl.errors import CheckpointError

TEMPORARY_FOLDER = ".writing-"  # how a temporary folder for several files begins
# The last is the safetensors library's, which also writes a file under another name first.
_LEFTOVER = re.compile(rf"\..+\.\d+\.[0-9a-f]{{8}}\.tmp|{re.escape(TEMPORARY_FOLDER)}\w+|\.tmp\w{{6}}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, move it over ``path`` in one step.

    The new file gets the permissions an ordinary new file would get (the umask is honoured, whatever the library that
    writes it does), is flushed to the disk, and only then takes the name. When the block raises, the temporary file is
    removed and ``path`` is untouched.

    Args:
        path: the file to write or overwrite; its folder must exist.

    Yields:
        The temporary path to write to; it exists already, empty, and may be replaced.

    Raises:
        CheckpointError: ``path`` exists and is not a regular file (a folder, a link, a device), or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise CheckpointError(f"{path}: exists and is not a regular file; it will not be replaced")
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        try:
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
        finally:
            os.close(handle)
        yield temporary
        os.chmod(temporary, mode)
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # there is none any more, or the disk is failing: that error is being raised already
            temporary.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` through :func:`replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove what writers that were killed have left in a folder, into which nobody else may be writing now.

    What cannot be removed stays, and is in nobody's way.

    Returns:
        The names of what was to be removed.
    """
    try:
        left = sorted(path for path in folder.iterdir() if is_leftover(path.name))
    except OSError:
        return []  # whoever writes into it next will say why
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
    return [path.name for path in left]


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is a temporary one, which only a writer that was killed leaves."""
    return _LEFTOVER.fullmatch(name) is not None


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents; CheckpointError when something else has that name or it cannot be made."""
    try:
        make_flushed(folder, exist_ok=True)
    except FileExistsError:
        raise CheckpointError(f"{folder}: exists and is not a folder; choose another name") from None
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be created ({error.strerror})") from None


def make_flushed(folder: Path, *, exist_ok: bool) -> None:
    """Create ``folder`` and its parents as ``Path.mkdir`` does, and flush the folders that hold the new names."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=exist_ok)
    for path in missing:
        flush(path.parent)


def flush(path: Path) -> None:
    """Ask the operating system to put a file, or the names in a folder, on the disk.

    Raises:
        OSError: it could not; whether the data is there is unknown then, and asking again would not tell.
    """
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
