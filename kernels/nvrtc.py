"""NVIDIA's runtime compiler (NVRTC): it compiles what a GPU will run, for any architecture and without a GPU.

It comes as wheels (the extra ``nvrtc``), finds mistakes that the simulator's C++ compiler lets pass, and tells what a
kernel needs of a multiprocessor. A kernel that has too few registers, and puts some into memory ("spills"), is an error
here.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

from minitl.kernels.cudasim import flatten

#: As CuPy compiles: denormal floats are 0.
OPTIONS = ("-std=c++17", "-ftz=true")
NO_SPILLS = ("--ptxas-options=-v", "--ptxas-options=--warn-on-spills", "--ptxas-options=-Werror")
SPILL = re.compile(r"Function properties for (\S+)\n[^\n]*?([1-9]\d*) bytes spill stores")
USE = re.compile(r"entry function '(\S+)'.*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?", re.DOTALL)
HOW_TO_GET_IT = 'NVRTC is not installed: pip install "minitl[nvrtc]"'


class NvrtcError(RuntimeError):
    """NVRTC is not here, or refuses a kernel; the message is then the compiler's."""


class Card(NamedTuple):
    """What one kernel needs.

    Attributes:
        name: of the instantiation.
        registers: of a thread, of 255.
        shared_bytes: of a block, static.
    """

    name: str
    registers: int
    shared_bytes: int


def compile_file(path: Path, instantiations: list[str], architecture: int) -> list[Card]:
    """Compile kernels of a ``.cu`` file to machine code, for ``sm_<architecture>``; return what each of them needs.

    Args:
        path: the file.
        instantiations: names of kernels, templates with their arguments.
        architecture: 75 to 120: compute capability 7.5 to 12.0.

    Raises:
        NvrtcError: NVRTC is not installed, the text does not compile, or a kernel spills.
    """
    library, headers = _library()
    program = ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), flatten(path).encode(), path.name.encode(), 0, None, None))
    try:
        for name in instantiations:
            _check(library.nvrtcAddNameExpression(program, name.encode()))
        options = [*OPTIONS, f"-arch=sm_{architecture}", f"-I{headers}", *NO_SPILLS]
        pointers = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = library.nvrtcCompileProgram(program, len(options), pointers)
        log = _log(program)
        if failed:
            spills = [f"{mangled} spills {size} bytes of registers" for mangled, size in SPILL.findall(log)]
            raise NvrtcError("\n".join([f"{path.name} for sm_{architecture}:", *(spills or [log.strip()])]))
        uses = {mangled: (int(registers), int(shared or 0)) for mangled, registers, shared in USE.findall(log)}
        return [Card(name, *uses[_lowered(program, name)]) for name in instantiations]
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def _library() -> tuple[ctypes.CDLL, Path]:
    """Load the library from its wheel; return it and the folder of CUDA's headers, which another wheel has."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or [] if spec is not None else []:
        for file in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            headers = file.parent.parent / "include"
            if "builtins" not in file.name and (headers / "cuda_fp16.h").is_file():
                library = ctypes.CDLL(str(file))
                library.nvrtcGetErrorString.restype = ctypes.c_char_p
                return library, headers
    raise NvrtcError(HOW_TO_GET_IT)


def _check(code: int) -> None:
    if code:
        raise NvrtcError(_library()[0].nvrtcGetErrorString(code).decode())


def _log(program: Any) -> str:
    size = ctypes.c_size_t()
    _check(_library()[0].nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(_library()[0].nvrtcGetProgramLog(program, text))
    return text.value.decode(errors="replace")


def _lowered(program: Any, name: str) -> str:
    """Return what an instantiation is called in machine code."""
    found = ctypes.c_char_p()
    _check(_library()[0].nvrtcGetLoweredName(program, name.encode(), ctypes.byref(found)))
    return (found.value or b"").decode()
