"""How functions are compiled: five decorators around Numba, and the folder that keeps the machine code.

    @compiled       a function of scalars and arrays, for one thread
    @inner          the same, if only other compiled functions call it: compiles faster
    @rounded        an inner one where every operation is rounded by itself, as NumPy does it
    @summing        an inner one where floats may be added in any order: a sum then fills a whole vector register
    @parallel       a loop ``for chunk in prange(count)`` whose turns run on all threads

A parallel kernel is written in two halves: a ``@compiled`` function that does a range of rows, and a ``@parallel`` one
that cuts the rows into chunks of fixed size and calls the first for each. Small arrays skip the second half (starting
the threads costs more than they bring); that is decided by size, never by the number of threads. What chunks add up,
they add into a row of their own, and the rows are added in order afterwards: so no bit depends on who ran what when.

Assigning to a slice (``x[:n] = y``) compiles ten times as long as a loop, for Numba must expect that both overlap.
Compiling a kernel still takes a second or more, so the machine code is kept on disk. Numba looks at the file of a
function to see whether its code is still good, but not at the files of the functions that were compiled into it. Ours
lies in a folder that is named after a hash of all those.
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from minitl.kernels.threads import pool

#: Elements below which one thread is faster: what two threads save on them is less than the 5 to 50 microseconds that
#: starting them takes.
SMALL = 2**13

# "contract": a multiplication and an addition may be one fused instruction, which rounds once instead of twice.
# Nothing here lets the compiler assume that NaN and infinities do not occur.
EXACT = {"contract"}
IN_ANY_ORDER = {"contract", "reassoc"}

#: Options for what Numba's ``overload`` makes: it becomes part of the function that uses it, whatever its size
#: ("forceinline"), for a loop that calls a function is not vectorised.
INSIDE = {"fastmath": EXACT, "error_model": "numpy", "forceinline": True}


HERE = Path(__file__).parent
IMPORT = re.compile(r"^(?:from|import) minitl\.kernels\.?([\w.]*)(?: import (.+))?$", re.MULTILINE)


@functools.cache
def source_stamp(file: Path) -> str:
    """Return a hash of a kernel's file and of all files of this package that it imports, directly or not."""
    found: set[Path] = set()
    unread = [file]
    while unread:
        path = unread.pop()
        if path in found:
            continue
        found.add(path)
        for package, names in IMPORT.findall(path.read_text(encoding="utf-8")):
            folder = HERE.joinpath(*package.split("."))
            candidates = [folder.with_suffix(".py"), *(folder / f"{name.strip()}.py" for name in names.split(","))]
            unread += [candidate for candidate in candidates if candidate.is_file()]
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def cache_folder() -> Path:
    """Return the folder for machine code: ``NUMBA_CACHE_DIR`` if that is set, else one in the user's cache folder
    (``XDG_CACHE_HOME`` or ``~/.cache``), else, where that cannot be written, one for temporary files.
    """
    named = os.environ.get("NUMBA_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(named or Path(home, "minitl", "kernels"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.gettempdir(), f"minitl-kernels-{getpass.getuser()}")


def _jit(function: Callable[..., Any], fastmath: set[str], **options: bool) -> Any:
    """Compile with Numba, which reads the place of its cache when a function is decorated."""
    stamp = source_stamp(Path(function.__code__.co_filename))
    users, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(cache_folder() / stamp)
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=fastmath, **options)(function)
    finally:
        numba.config.CACHE_DIR = users


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function for one thread, to be called from Python and from compiled functions."""
    return _jit(function, EXACT, no_cfunc_wrapper=True)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function for one thread, to be called from compiled functions."""
    return _jit(function, EXACT, no_cfunc_wrapper=True, no_cpython_wrapper=True)


def rounded(function: Callable[..., Any]) -> Any:
    """Compile an inner function without fused multiplications: its bits are those of NumPy, operation by operation."""
    return _jit(function, set(), no_cfunc_wrapper=True, no_cpython_wrapper=True)


def summing(function: Callable[..., Any]) -> Any:
    """Compile an inner function in which sums may be taken in any order, the same one always.

    It must not write into an array: the compiler would ask whether what is written and what is read lie close together
    in memory, and add in another order if they do.
    """
    return _jit(function, IN_ANY_ORDER, no_cfunc_wrapper=True, no_cpython_wrapper=True)


def parallel(function: Callable[..., Any]) -> Any:
    """Compile a function whose ``prange`` loops run on all threads."""
    kernel = _jit(function, EXACT, parallel=True, no_cfunc_wrapper=True)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        with pool.turn():
            return kernel(*arguments)

    return call
