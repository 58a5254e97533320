"""A ``.cu`` file as a program: compiled on first use, launched with checked arguments.

CuPy arrays: NVRTC compiles the text and the GPU runs it. NumPy arrays: the simulator (``cudasim/``) does both. The text
and the names of its instantiations are the same.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from minitl.kernels.cudasim import Module, flatten
from minitl.kernels.launch import Array, address, array_module, on_gpu, wide
from minitl.kernels.philox.device_call import DeviceCall

#: What the dtypes of kernels are called in CUDA C++.
TYPES = {"float32": "float", "float64": "double"}
SHORT_TYPES = {"bfloat16": "__nv_bfloat16", "float16": "__half"}
C_TYPES = {**TYPES, **SHORT_TYPES, "uint32": "unsigned int"}

#: Whether the simulator runs each launch under the address and undefined-behaviour sanitizers, in a process of its own.
SANITIZE = os.environ.get("MINITL_CUDASIM_SANITIZE") == "1"
#: As nvrtc.py compiles them in CI.
OPTIONS = ("-std=c++17", "--device-as-default-execution-space")

THREADS = 256  # of a block, where nothing speaks for another number
MOST_BLOCKS = 2**16  # of a kernel whose threads go through the elements in strides as long as the grid
HOPPERS_SHARED_BYTES = 227 * 1024
EIGHT, PACK_BYTES = 8, 16  # as in common.cuh
SHARED_BYTES = 48 * 1024  # of dynamic shared memory that a block has; more has to be asked for


class _Library(Protocol):
    """What a compiler makes of a file: CuPy's RawModule and the simulator's Module."""

    def kernel(self, name: str) -> Any: ...


class _GpuModule:
    """A file for NVRTC, with the launch that the simulator's kernels have.

    Each instantiation is compiled when it is first used, by itself: most never are. CuPy keeps the results on disk.
    """

    def __init__(self, xp: Any, file: Path, instantiations: Sequence[str]) -> None:
        self._xp, self._file, self._text = xp, file, flatten(file)
        self._names = list(instantiations)
        self._kernels: dict[str, _GpuKernel] = {}

    def kernel(self, name: str) -> _GpuKernel:
        if name not in self._kernels:
            if name not in self._names:
                raise KeyError(f"{self._file.name} was compiled for {', '.join(self._names)}, not for {name}")
            module = self._xp.RawModule(code=self._text, options=OPTIONS, name_expressions=[name])
            self._kernels[name] = _GpuKernel(module.get_function(name))
        return self._kernels[name]


class _GpuKernel:
    def __init__(self, function: Any) -> None:
        self._function = function
        self._shared_memory = SHARED_BYTES

    def __call__(self, grid: Any, block: Any, arguments: Sequence[Any], *, shared_memory: int = 0) -> None:
        if shared_memory > self._shared_memory:
            self._function.max_dynamic_shared_size_bytes = self._shared_memory = shared_memory
        # a null pointer of CuPy's would be a Python integer, whose width it guesses
        given = tuple(np.uint64(0) if argument is None else argument for argument in arguments)
        self._function(grid, block, given, shared_mem=shared_memory)


def per_type(*names: str) -> list[str]:
    """Return ``name<float>`` and ``name<double>`` for each name; ``name<,2>`` becomes ``name<float,2>``."""
    return [_of_type(name, kind) for name in names for kind in TYPES.values()]


def per_short_type(*names: str, forward_only: Sequence[str] = ()) -> list[str]:
    """Return the instantiations for the types of 16 bits: bfloat16 of all names, and of those in ``forward_only`` half,
    in which nothing is trained.
    """
    both = [_of_type(name, kind) for name in forward_only for kind in SHORT_TYPES.values()]
    return [_of_type(name, SHORT_TYPES["bfloat16"]) for name in names] + both


def _of_type(name: str, kind: str) -> str:
    return name.replace("<", f"<{kind}", 1) if "<" in name else f"{name}<{kind}>"


def blocks_for(count: int, threads: int = THREADS) -> int:
    """Return how many blocks have a thread for each of ``count`` elements, at least 1 and not more than are useful."""
    return max(1, min(-(-count // threads), MOST_BLOCKS))


def packs_fit(*arrays: Array | None) -> bool:
    """Tell whether kernels may read eight neighbouring elements at once: rows are multiples of eight long, and every
    array (None is skipped) begins at a multiple of 16 bytes.
    """
    for array in arrays:
        if array is None:
            continue
        if array.shape[-1] % EIGHT or address(array) % PACK_BYTES:
            return False
    return True


def most_shared_memory(like: Array) -> int:
    """Return how many bytes of shared memory a block can have at most, where ``like`` is."""
    if on_gpu(like):
        return int(array_module(like).cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"])
    return HOPPERS_SHARED_BYTES


def dropout_options(probability: float, seed: int, call: int, x: Array) -> tuple[Any, ...]:
    """Return what kernels take for a dropout on ``x``, in the order of ``dropout_of`` in dropout.cuh.

    That is a threshold, the scale of what is kept, seed, call, and an array whose number is added to the call, or None.
    """
    threshold = np.uint32(math.floor(probability * 2**32))
    scale = wide(x.dtype).type(1 / (1 - probability))
    return threshold, scale, np.uint64(seed), np.uint64(call), call.base if isinstance(call, DeviceCall) else None


class Program:
    """A ``.cu`` file beside its launcher, and which instantiations of its templates there are."""

    def __init__(
        self,
        launcher: str,
        instantiations: Sequence[str],
        *,
        file: str | None = None,
        architecture: int = 75,
        dynamic_shared_bytes: Callable[[str], int] = lambda name: 0,
    ) -> None:
        """Take the launcher's ``__file__``: ``gelu/cuda.py`` launches ``gelu/gelu.cu``, unless ``file`` names another.

        Args:
            launcher: path of the module.
            instantiations: all there are, ``name<float>`` or ``name<float,...>``.
            file: beside the launcher.
            architecture: the oldest that runs them: 75 for compute capability 7.5.
            dynamic_shared_bytes: the most that a launch of an instantiation asks for, of its name.
        """
        folder = Path(launcher).parent
        self.file = folder / (file or f"{folder.name}.cu")
        self.instantiations = list(instantiations)
        self.architecture = architecture
        self.dynamic_shared_bytes = dynamic_shared_bytes
        self._libraries: dict[tuple[str, bool], _Library] = {}

    def launch(
        self,
        name: str,
        like: Array,
        grid: int | tuple[int, ...],
        threads: int | tuple[int, ...],
        *arguments: Any,
        shared_memory: int = 0,
    ) -> None:
        """Run ``name`` for the type of ``like``: ``name<,2>`` is ``name<float,2>`` for float32.

        Args:
            name: a kernel of the file.
            like: an array.
            grid, threads: how many blocks, of how many threads; a number is one dimension.
            arguments: arrays (None is a null pointer) and NumPy scalars, of exactly the kernel's types.
            shared_memory: bytes of dynamic shared memory.
        """
        kind = C_TYPES[like.dtype.name]
        kernel = self._library(kind, like).kernel(_of_type(name, kind))
        kernel(_three(grid), _three(threads), arguments, shared_memory=shared_memory)

    def _library(self, kind: str, like: Array) -> _Library:
        """Return the instantiations of one type, compiled: the others may never be needed."""
        key = kind, on_gpu(like)
        if key not in self._libraries:
            names = [
                name for name in self.instantiations if name.partition("<")[2].startswith((f"{kind}>", f"{kind},"))
            ]
            self._libraries[key] = (
                _GpuModule(array_module(like), self.file, names)
                if on_gpu(like)
                else Module(self.file, names, sanitize=SANITIZE)
            )
        return self._libraries[key]


def all_programs() -> list[Program]:
    """Return the programs of every kernel folder's ``cuda.py``, in the order of the folders."""
    found = []
    for folder in sorted(path.parent.name for path in Path(__file__).parent.glob("*/cuda.py")):
        modules = [importlib.import_module(f"minitl.kernels.{folder}.cuda")]
        modules += [value for value in vars(modules[0]).values() if isinstance(value, ModuleType)]
        found += [module.PROGRAM for module in modules if isinstance(getattr(module, "PROGRAM", None), Program)]
    return found


def _three(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else size
