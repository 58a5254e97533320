"""The C++ compiler: which one, how it is called, and the folder that keeps what it has made.

A kernel takes half a second to compile, so results are kept, each under a hash of everything that went into it: the
text with all our headers, the flags, the compiler's version. Nothing in the folder is ever out of date, and two
processes that build the same at once both succeed: each writes a file of its own, and renaming is atomic.
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from minitl.kernels.cudasim.errors import BuildError, CompilerNotFound

INCLUDE = Path(__file__).parent / "include"

#: Kernels read the bits of floats as integers (-fno-strict-aliasing). A GPU's sqrtf does not set errno. Fused
#: multiplications stay off: with them results would depend on what the processor here can do.
FLAGS = ("-std=c++17", "-w", "-fPIC", "-fno-strict-aliasing", "-fno-math-errno", "-ffp-contract=off")
FAST = ("-O2",)
DEBUG = ("-O0", "-g")
SANITIZE = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

NO_COMPILER = (
    "the CUDA simulator needs a C++ compiler, and none of g++, clang++, c++ is here. Install one (Debian, Ubuntu: "
    "apt install g++; macOS: xcode-select --install), or one from the Python package index: pip install "
    '"minitl[cudasim]". A compiler elsewhere is named by the environment variable CXX.'
)


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        command: how it is called, for example ``("g++",)`` or ``("/usr/bin/python3", "-m", "ziglang", "c++")``.
        version: what it says of itself.
    """

    command: tuple[str, ...]
    version: str

    @property
    def is_zig(self) -> bool:
        return "ziglang" in self.command


def find_compiler() -> Compiler:
    """Return the compiler that ``CXX`` names, else the first of g++, clang++, c++, else the package ``ziglang``.

    Raises:
        CompilerNotFound: there is none, or the one that ``CXX`` names does not run.
    """
    named = os.environ.get("CXX")
    if named:
        command = tuple(shlex.split(named))
        if not command or shutil.which(command[0]) is None:
            raise CompilerNotFound(f"the environment variable CXX names {named!r}, which is not a program here")
        return _asked(command)
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return _asked((name,))
    if importlib.util.find_spec("ziglang"):
        return _asked((sys.executable, "-m", "ziglang", "c++"))
    raise CompilerNotFound(NO_COMPILER)


@functools.cache
def _asked(command: tuple[str, ...]) -> Compiler:
    done = subprocess.run([*command, "--version"], capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        raise CompilerNotFound(f"{shlex.join(command)} --version fails: {done.stderr.strip()}")
    return Compiler(command, done.stdout)


def cache_folder() -> Path:
    """Return the folder for compiled kernels: ``MINITL_CUDASIM_CACHE`` if that is set, else one in the user's cache
    folder (``XDG_CACHE_HOME`` or ``~/.cache``), else, where that cannot be written, one for temporary files.

    Raises:
        PermissionError: that last folder belongs to somebody else, whose code would be run.
    """
    named = os.environ.get("MINITL_CUDASIM_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(named or Path(home, "minitl", "cudasim"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        if named:
            raise
    folder = Path(tempfile.gettempdir(), f"minitl-cudasim-{getpass.getuser()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set MINITL_CUDASIM_CACHE to a folder of yours")
    return folder


@functools.cache
def _headers() -> bytes:
    """A hash of the simulator's own headers."""
    digest = hashlib.sha256()
    for path in sorted(INCLUDE.glob("*.h")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


def build(text: str, name: str, *, executable: bool = False, debug: bool = False) -> Path:
    """Compile C++ text, or find what was made of it before.

    Args:
        text: that includes ``cudasim.h``.
        name: begins the file's name, to be found by people.
        executable: a program under the address and undefined-behaviour sanitizers, instead of a shared library.
        debug: keep lines and variables for a debugger, without optimisation.

    Returns:
        The file.

    Raises:
        BuildError: the compiler refuses.
        CompilerNotFound: as for ``find_compiler``.
    """
    compiler = find_compiler()
    if executable and compiler.is_zig:
        raise BuildError("sanitize=True needs g++ or clang++: the package ziglang comes without the address sanitizer")
    flags = [*FLAGS, *(SANITIZE if executable else DEBUG if debug else FAST)]
    flags += ["-DCUDASIM_EXECUTABLE"] if executable else ["-shared"]
    if compiler.is_zig:
        flags.append("-fno-sanitize=all")  # zig would add some of its own where there is no optimisation
    ingredients = "\0".join([text, *compiler.command, compiler.version, *flags, platform.machine()])
    key = hashlib.sha256(ingredients.encode() + _headers()).hexdigest()[:24]
    target = cache_folder() / f"{name}-{key}{'' if executable else '.so'}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            source, made = Path(folder, "kernel.cpp"), Path(folder, "made")
            source.write_text(text, encoding="utf-8")
            command = [*compiler.command, *flags, f"-I{INCLUDE}", str(source), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
            if done.returncode:
                raise BuildError(f"{shlex.join(compiler.command)} cannot compile {name}:\n{done.stderr.strip()}")
            os.replace(made, target)
    return target
