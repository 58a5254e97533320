"""A ``.cu`` file as a program: compiled on first use, launched with checked arguments.

The simulator (``cudasim/``) compiles and runs it, on NumPy arrays. The text and the list of its instantiations are what
a GPU's compiler takes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.kernels.cudasim import Module
from minitl.kernels.launch import Array

#: What the dtypes of kernels are called in CUDA C++.
TYPES = {"float32": "float", "float64": "double"}
C_TYPES = {**TYPES, "uint32": "unsigned int"}

#: Whether each launch runs under the address and undefined-behaviour sanitizers, in a process of its own.
SANITIZE = os.environ.get("MINITL_CUDASIM_SANITIZE") == "1"

THREADS = 256  # of a block, where nothing speaks for another number
MOST_BLOCKS = 2**16  # of a kernel whose threads go through the elements in strides as long as the grid


def per_type(*names: str) -> list[str]:
    """Return ``name<float>`` and ``name<double>`` for each name; ``name<,2>`` becomes ``name<float,2>``."""
    return [_of_type(name, kind) for name in names for kind in TYPES.values()]


def _of_type(name: str, kind: str) -> str:
    return name.replace("<", f"<{kind}", 1) if "<" in name else f"{name}<{kind}>"


def blocks_for(count: int, threads: int = THREADS) -> int:
    """Return how many blocks have a thread for each of ``count`` elements, at least 1 and not more than are useful."""
    return max(1, min(-(-count // threads), MOST_BLOCKS))


def dropout_options(probability: float, seed: int, call: int, x: Array) -> tuple[np.generic, ...]:
    """Return what kernels take for a dropout on ``x``: threshold, scale of what is kept, seed and call."""
    threshold = np.uint32(math.floor(probability * 2**32))
    return threshold, x.dtype.type(1 / (1 - probability)), np.uint64(seed), np.uint64(call)


class Program:
    """A ``.cu`` file beside its launcher, and which instantiations of its templates there are."""

    def __init__(self, launcher: str, instantiations: Sequence[str]) -> None:
        """Take the launcher's ``__file__``: ``gelu/cuda.py`` launches ``gelu/gelu.cu``."""
        folder = Path(launcher).parent
        self.file = folder / f"{folder.name}.cu"
        self.instantiations = list(instantiations)
        self._module: Module | None = None

    def launch(
        self, name: str, like: Array, grid: int | tuple[int, ...], threads: int | tuple[int, ...], *arguments: Any
    ) -> None:
        """Run ``name`` for the type of ``like``: ``name<,2>`` is ``name<float,2>`` for float32.

        Args:
            name: a kernel of the file.
            like: an array.
            grid, threads: how many blocks, of how many threads; a number is one dimension.
            arguments: arrays (None is a null pointer) and NumPy scalars, of exactly the kernel's types.
        """
        if self._module is None:
            self._module = Module(self.file, self.instantiations, sanitize=SANITIZE)
        kernel = self._module.kernel(_of_type(name, C_TYPES[like.dtype.name]))
        kernel(_three(grid), _three(threads), arguments)


def _three(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else size
