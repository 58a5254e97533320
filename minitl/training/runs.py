"""Where a run writes: ``runs/ner-1``, ``runs/ner-2``, ... A second run never writes over the first."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minitl import atomic_file
from minitl.errors import MinitlError
from minitl.training.folder_lock import LOCK_FILE, folder_lock


def new_run_folder(name: str, parent: str | Path = "runs") -> Path:
    """Make and return the first folder ``parent/name-1``, ``parent/name-2``, ... that does not exist yet.

    Two processes that ask at the same time get two folders.

    Raises:
        MinitlError: the folder cannot be made.
    """
    for number in itertools.count(1):
        folder = Path(parent) / f"{name}-{number}"
        try:
            atomic_file.make_flushed(folder, exist_ok=False)
        except FileExistsError:
            if not Path(parent).is_dir():
                raise MinitlError(f"{parent}: is a file, so no run folder can be made in it") from None
            continue
        except OSError as error:
            raise MinitlError(f"{folder}: cannot make the run folder: {error.strerror}") from None
        return folder
    raise AssertionError("itertools.count does not end")


@contextmanager
def run_folder(name: str, output: str | Path | None = None, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a run its folder: ``output`` if named (see :func:`claim_output_folder`), else :func:`new_run_folder`.

    The folder is made before the work begins, so that one that cannot be written is found at once. If the work ends
    with an exception and nothing was written, the empty folder is removed again.

    Args:
        name: of folders that are counted.
        output: the folder, if it is named.
        overwrite: whether what a run has left in ``output`` is removed.
    """
    folder = new_run_folder(name) if output is None else claim_output_folder(output, overwrite=overwrite)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # only an empty folder can be removed
        raise


def claim_output_folder(folder: str | Path, *, overwrite: bool = False) -> Path:
    """Make ``folder`` for a run's results; one that exists must be empty.

    Args:
        folder: its path.
        overwrite: whether the files of an earlier run, which has a ``run.json`` or ``seeds.json``, are removed.

    Raises:
        MinitlError: it holds something, is a file, or cannot be made or written.
    """
    path = Path(folder)
    check_output_folder(path, overwrite=overwrite)
    try:
        if path.exists() and any(path.iterdir()):
            with folder_lock(path):  # not under the feet of a run that is still going
                pass
            shutil.rmtree(path)
        atomic_file.make_flushed(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise MinitlError(f"{path}: is not a folder; name another one for the output") from None
    except OSError as error:
        raise MinitlError(f"{path}: cannot use it as output folder: {error.strerror}") from None
    return path


def check_output_folder(folder: str | Path, *, overwrite: bool = False) -> None:
    """Raise what :func:`claim_output_folder` would, as far as can be known without writing."""
    path = Path(folder)
    try:
        names = [item.name for item in path.iterdir()]
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise MinitlError(f"{path}: is not a folder; name another one for the output") from None
    except OSError as error:
        raise MinitlError(f"{path}: cannot use it as output folder: {error.strerror}") from None
    holds = {name for name in names if name != LOCK_FILE and not atomic_file.is_leftover(name)}
    if not holds:  # a run that was killed before its start, or none
        return
    if not overwrite:
        raise MinitlError(f"{path}: the output folder is not empty; name another one, nothing is overwritten")
    if not {"run.json", "seeds.json"} & holds or path.is_symlink():
        raise MinitlError(
            f"{path}: does not look like the folder of a run (it has no run.json), so it is not removed; "
            "name another folder"
        )
