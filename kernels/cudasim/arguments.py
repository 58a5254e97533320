"""Is this what the kernel takes? Checks before every launch; each message names the kernel, the argument and the fix.

A GPU kernel gets addresses. It does not see an array's dtype, strides or length: a float64 array where it reads floats
is garbage and no error. CuPy passes on what it is given: what these checks let through behaves there as it does here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitl.kernels.launch import Array

#: NumPy's names of C++'s types.
CPP_NAMES = {
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "float32": "float",
    "float64": "double",
    "void": "void",
}

# CUDA's limits (compute capability 8.0 to 12.0)
BLOCK_LIMITS, GRID_LIMITS = (1024, 1024, 64), (2**31 - 1, 65535, 65535)
MAX_THREADS = 1024
MAX_SHARED_MEMORY = 227 * 1024  # of an H100; above 48 KiB a GPU's launcher must ask for it


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel, as the compiler sees it.

    Attributes:
        pointer: it is one, to elements of ``dtype``.
        constant: what it points to may not be written.
        dtype: NumPy's name of the type; "bfloat16", which NumPy lacks; "void"; or "struct", anything else.
        size: of a value or element, in bytes.
    """

    pointer: bool
    constant: bool
    dtype: str
    size: int

    @classmethod
    def parse(cls, line: str) -> Parameter:
        """Read a line that ``describe`` in ``include/launch.h`` has written.

        >>> print(Parameter.parse("constant pointer float32 4"))
        const float*
        """
        kind, dtype, size = line.rsplit(" ", 2)
        return cls("pointer" in kind, "constant" in kind, dtype, int(size))

    def __str__(self) -> str:
        name = CPP_NAMES.get(self.dtype, f"struct of {self.size} bytes ")
        return f"{'const ' if self.constant else ''}{name}{'*' if self.pointer else ''}"

    @property
    def numpy(self) -> str:
        """How to write the dtype in NumPy."""
        return {"bfloat16": "np.uint16", "bool": "np.bool_"}.get(self.dtype, f"np.{self.dtype}")

    def takes(self, dtype: np.dtype[Any]) -> bool:
        """Tell whether elements of this dtype are what the kernel reads."""
        if not dtype.isnative:
            return False
        if self.dtype == "void":
            return True
        if self.dtype == "struct":
            return dtype.itemsize == self.size
        if self.dtype == "bfloat16":  # NumPy has none: its bits, or the dtype of the package ml_dtypes
            return dtype.name in ("uint16", "bfloat16")
        return dtype.name == self.dtype


def check_arguments(kernel: str, parameters: Sequence[Parameter], arguments: Sequence[Any]) -> None:
    """Raise unless there is one argument for each parameter, and each is what the kernel takes.

    A pointer takes a NumPy array, C-contiguous and aligned, of the very dtype, and writable unless it is a pointer to
    const; or None, the null pointer. A value takes a NumPy scalar of the very dtype. A bfloat16 is its 16 bits, uint16,
    or a number of the package ``ml_dtypes``.

    Raises:
        TypeError: the number of arguments, the kind of one, or a dtype.
        ValueError: memory that is not contiguous, not aligned or read-only.
    """
    if len(arguments) != len(parameters):
        wanted = ", ".join(map(str, parameters))
        raise TypeError(f"{kernel} takes {len(parameters)} arguments ({wanted}), not {len(arguments)}")
    for number, (parameter, argument) in enumerate(zip(parameters, arguments, strict=True), start=1):
        where = f"{kernel}: argument {number} of {len(parameters)} ({parameter})"
        if parameter.pointer:
            _check_array(parameter, argument, where)
        else:
            _check_value(parameter, argument, where)


def _check_array(parameter: Parameter, array: Array | None, where: str) -> None:
    if array is None:
        return
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{where} must be a NumPy array or None, not {type(array).__name__}")
    if not parameter.takes(array.dtype):
        if parameter.dtype == "struct":
            fix = f"its elements have {array.dtype.itemsize} bytes"
        elif parameter.dtype == "bfloat16":
            fix = "pass the 16 bits of each element, dtype uint16, or an array of ml_dtypes.bfloat16"
        else:
            fix = f"convert it: array.astype({parameter.numpy})"
        raise TypeError(f"{where} got an array of {array.dtype}; {fix}")
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{where} got strides {array.strides} for shape {array.shape}; a kernel sees no strides, so pass "
            "np.ascontiguousarray(array)"
        )
    if not array.flags.aligned:
        raise ValueError(
            f"{where}: the memory does not begin at a multiple of {parameter.size} bytes; pass array.copy()"
        )
    if not parameter.constant and not array.flags.writeable:
        raise ValueError(f"{where} may be written, and the array is read-only; pass array.copy(), or declare it const")


def _check_value(parameter: Parameter, value: object, where: str) -> None:
    if not isinstance(value, np.generic):
        fix = "" if parameter.dtype == "struct" else f"; pass {parameter.numpy}(...)"
        raise TypeError(
            f"{where} must be a NumPy scalar, not {type(value).__name__}{fix} (Python's numbers have no width)"
        )
    if not parameter.takes(value.dtype):
        fix = f"it has {value.dtype.itemsize} bytes" if parameter.dtype == "struct" else f"pass {parameter.numpy}(...)"
        raise TypeError(f"{where} got {value.dtype}; {fix}")


def check_extent(kernel: str, name: str, extent: Sequence[int], limits: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return a grid or block as three numbers; those that are left out are 1.

    Raises:
        TypeError: it is not a sequence of integers.
        ValueError: there are more than three, or one is below 1 or above CUDA's limit.
    """
    if not isinstance(extent, Sequence) or not all(isinstance(length, int | np.integer) for length in extent):
        raise TypeError(f"{kernel}: {name} must be a tuple of one to three integers, not {extent!r}")
    if not 1 <= len(extent) <= 3:
        raise ValueError(f"{kernel}: {name} must have one to three numbers, not {len(extent)}")
    x, y, z = (*(int(length) for length in extent), 1, 1)[:3]
    for axis, length, limit in zip("xyz", (x, y, z), limits, strict=True):
        if length < 1:
            raise ValueError(
                f"{kernel}: {name} {(x, y, z)} is empty; leave the launch out where there is nothing to do"
            )
        if length > limit:
            raise ValueError(f"{kernel}: {name}.{axis} is {length}, and CUDA's limit is {limit}")
    return x, y, z


def check_shape(
    kernel: str, grid: Sequence[int], block: Sequence[int], shared_memory: int
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return grid and block as three numbers each.

    Raises:
        TypeError, ValueError: as for ``check_extent``; too many threads in a block; too much shared memory.
    """
    blocks = check_extent(kernel, "grid", grid, GRID_LIMITS)
    threads = check_extent(kernel, "block", block, BLOCK_LIMITS)
    count = threads[0] * threads[1] * threads[2]
    if count > MAX_THREADS:
        raise ValueError(
            f"{kernel}: block {threads} has {count} threads, and CUDA's limit is {MAX_THREADS}; take more blocks"
        )
    if not 0 <= shared_memory <= MAX_SHARED_MEMORY:
        raise ValueError(
            f"{kernel}: shared_memory is {shared_memory} bytes; it must be 0 to {MAX_SHARED_MEMORY} (227 KiB)"
        )
    return blocks, threads
