"""Where a run writes: ``runs/ner-1``, ``runs/ner-2``, ... A second run never writes over the first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minitl.errors import MinitlError


def new_run_folder(name: str, parent: str | Path = "runs") -> Path:
    """Make and return the first folder ``parent/name-1``, ``parent/name-2``, ... that does not exist yet.

    Two processes that ask at the same time get two folders.

    Raises:
        MinitlError: the folder cannot be made.
    """
    for number in itertools.count(1):
        folder = Path(parent) / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not Path(parent).is_dir():
                raise MinitlError(f"{parent}: is a file, so no run folder can be made in it") from None
            continue
        except OSError as error:
            raise MinitlError(f"{folder}: cannot make the run folder: {error.strerror}") from None
        return folder
    raise AssertionError("itertools.count does not end")


@contextmanager
def run_folder(name: str, output: str | Path | None = None) -> Iterator[Path]:
    """Give a run its folder: ``output`` if named (see :func:`claim_output_folder`), else :func:`new_run_folder`.

    The folder is made before the work begins, so that one that cannot be written is found at once. If the work ends
    with an exception and nothing was written, the empty folder is removed again.
    """
    folder = new_run_folder(name) if output is None else claim_output_folder(output)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # only an empty folder can be removed
        raise


def claim_output_folder(folder: str | Path) -> Path:
    """Make ``folder`` for a run's results; one that exists must be empty.

    Raises:
        MinitlError: it holds something, is a file, or cannot be made or written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise MinitlError(f"{path}: the output folder is not empty; name another one, nothing is overwritten")
    except (FileExistsError, NotADirectoryError):
        raise MinitlError(f"{path}: is not a folder; name another one for the output") from None
    except OSError as error:
        raise MinitlError(f"{path}: cannot use it as output folder: {error.strerror}") from None
    return path
