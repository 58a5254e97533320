"""What every kernel needs from its array library: the module behind an array, and the check of its arguments.

This is the only file of the project that will import CuPy, and it will do so lazily.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

#: A NumPy array, or any array whose library speaks NumPy's language (CuPy). CuPy is an optional dependency, so the type
#: checker sees NumPy's type.
Array: TypeAlias = npt.NDArray[Any]


def array_module(array: Array) -> ModuleType:
    """Return the module whose functions work on ``array``: ``numpy`` for a NumPy array, ``cupy`` for a CuPy array.

    It is the package that defines the array's type, and whoever made the array has already imported it. Kernels call it
    ``xp`` and use no other array functions, so that one text serves every library.
    """
    if isinstance(array, np.ndarray):
        return np
    return sys.modules[type(array).__module__.partition(".")[0]]


def is_array(value: object) -> bool:
    """Tell whether ``value`` is an array of NumPy or of a library that speaks NumPy's language."""
    if isinstance(value, np.ndarray):
        return True
    if isinstance(value, np.generic):
        return False  # a NumPy scalar has the attributes of an array, and is none
    return hasattr(value, "strides") and hasattr(value, "dtype") and hasattr(value, "shape")


def check_floats(**arrays: Array | None) -> None:
    """Raise unless all arrays (None is skipped) are C-contiguous and share one dtype, float32 or float64.

    CUDA kernels ignore strides: a transposed view would be read as if it were not. The reference kernels refuse what
    the others could not read, so that the mistake is found on every machine.
    """
    dtypes = {name: array.dtype for name, array in arrays.items() if array is not None}
    if len(set(dtypes.values())) > 1:
        raise TypeError("a kernel takes one float dtype, got " + ", ".join(f"{n}: {d}" for n, d in dtypes.items()))
    for name, array in arrays.items():
        if array is None:
            continue
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name} must be float32 or float64, not {array.dtype}")
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be C-contiguous; strides are {array.strides} for shape {array.shape}")
