"""NVIDIA's runtime compiler (NVRTC): it compiles what a GPU will run, for any architecture and without a GPU.

It comes as wheels (the extra ``nvrtc``), finds mistakes that the simulator's C++ compiler lets pass, and tells what a
kernel needs of a multiprocessor. A kernel that has too few registers, and puts some into memory ("spills"), is an error
here.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from minitl.kernels.cudasim import flatten

#: As CuPy compiles: denormal floats are 0.
OPTIONS = ("-std=c++17", "-ftz=true")
NO_SPILLS = ("--ptxas-options=-v", "--ptxas-options=--warn-on-spills", "--ptxas-options=-Werror")
SPILL = re.compile(r"Function properties for (\S+)\n[^\n]*?([1-9]\d*) bytes spill stores")
THREADS = re.compile(r"\.entry (\S+)\([^)]*\)\s*\.maxntid (\d+)(?:, (\d+))?(?:, (\d+))?")
USE = re.compile(r"entry function '(\S+)'.*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?", re.DOTALL)
MOST_THREADS = 1024  # of a block, where a kernel does not say
HOW_TO_GET_IT = 'NVRTC is not installed: pip install "minitl[nvrtc]"'


class NvrtcError(RuntimeError):
    """NVRTC is not here, or refuses a kernel; the message is then the compiler's."""


class Card(NamedTuple):
    """What one kernel needs.

    Attributes:
        name: of the instantiation.
        threads: of the largest block, as ``__launch_bounds__`` says.
        registers: of a thread, of 255.
        shared_bytes: of a block, static.
    """

    name: str
    threads: int
    registers: int
    shared_bytes: int


class Multiprocessor(NamedTuple):
    """What the blocks on one multiprocessor share (CUDA C++ Programming Guide, "Technical Specifications per Compute
    Capability").
    """

    warps: int
    blocks: int
    shared_bytes: int
    registers: int = 65536


MULTIPROCESSORS = {
    75: Multiprocessor(32, 16, 64 * 1024),
    80: Multiprocessor(64, 32, 164 * 1024),
    86: Multiprocessor(48, 16, 100 * 1024),
    89: Multiprocessor(48, 24, 100 * 1024),
    90: Multiprocessor(64, 32, 228 * 1024),
    100: Multiprocessor(64, 32, 228 * 1024),
    120: Multiprocessor(48, 24, 100 * 1024),
}
RESERVED_BYTES = 1024  # of shared memory, for each block, by the system (from 8.0 on)


def resident_warps(card: Card, architecture: int, dynamic_bytes: int = 0) -> int:
    """Return how many warps of a kernel a multiprocessor holds at once, in whole blocks: what hides its waiting.

    Args:
        card: of the kernel.
        architecture: of the multiprocessor.
        dynamic_bytes: of shared memory that a launch asks for.

    >>> resident_warps(Card("two blocks' worth of registers", 512, 64, 0), 90)
    32
    >>> resident_warps(Card("as many as there is room for", 256, 32, 0), 90)
    64
    """
    limits = MULTIPROCESSORS[architecture]
    warps = -(-card.threads // 32)
    registers = -(-card.registers * 32 // 256) * 256 * warps  # a warp gets them in portions of 256
    by_registers = limits.registers // registers
    by_memory = limits.shared_bytes // (card.shared_bytes + dynamic_bytes + RESERVED_BYTES)
    return warps * min(limits.blocks, limits.warps // warps, by_registers, by_memory)


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
        log = _text(program, "ProgramLog")
        if failed:
            spills = [f"{mangled} spills {size} bytes of registers" for mangled, size in SPILL.findall(log)]
            raise NvrtcError("\n".join([f"{path.name} for sm_{architecture}:", *(spills or [log.strip()])]))
        uses = {mangled: (int(registers), int(shared or 0)) for mangled, registers, shared in USE.findall(log)}
        blocks = {
            mangled: math.prod(int(size or 1) for size in sizes)
            for mangled, *sizes in THREADS.findall(_text(program, "PTX"))
        }
        mangled_names = [_lowered(program, name) for name in instantiations]
        pairs = zip(instantiations, mangled_names, strict=True)
        return [Card(name, blocks.get(mangled, MOST_THREADS), *uses[mangled]) for name, mangled in pairs]
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def check() -> None:
    """Raise an NvrtcError unless NVRTC and CUDA's headers are installed."""
    _library()


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


def _text(program: Any, what: str) -> str:
    """Return the ``ProgramLog`` or the ``PTX`` (NVIDIA's portable assembly) of a compiled program."""
    size = ctypes.c_size_t()
    _check(getattr(_library()[0], f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(_library()[0], f"nvrtcGet{what}")(program, text))
    return text.value.decode(errors="replace")


def _lowered(program: Any, name: str) -> str:
    """Return what an instantiation is called in machine code."""
    found = ctypes.c_char_p()
    _check(_library()[0].nvrtcGetLoweredName(program, name.encode(), ctypes.byref(found)))
    return (found.value or b"").decode()
