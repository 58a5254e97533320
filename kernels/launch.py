"""What every kernel needs from its array library: the module behind an array, contiguous memory, and the checks of its
arguments.

A fast kernel reads memory as it was told to: where NumPy would broadcast a wrong shape, widen a dtype or follow
strides, it reads something else, or outside the array. So every implementation begins with the checks below, and the
mistake is found on every machine, with the same words.

This is the only file of the project that imports CuPy, and it does so when a GPU is first asked for.
"""

from __future__ import annotations

import functools
import operator
import sys
from types import ModuleType
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

#: A NumPy array, or any array whose library speaks NumPy's language (CuPy). CuPy is an optional dependency, so the type
#: checker sees NumPy's type.
Array: TypeAlias = npt.NDArray[Any]

#: The dtypes that every kernel takes.
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
#: Those that some CUDA kernels take for activations, too; NumPy knows the first when ml_dtypes has been imported.
SHORT_FLOATS = ("bfloat16", "float16")
OLDEST_CUPY = 14  # its is_available() never raises, and it knows bfloat16
HOW_TO_GET_CUPY = 'pip install "minitl[cuda]"'


def cupy_or_none() -> ModuleType | None:
    """Import CuPy and return it; None where it is not installed. It can be imported without a GPU."""
    try:
        import cupy
    except ImportError:
        return None
    module: ModuleType = cupy
    return module


def cuda_problem() -> str | None:
    """Return why GPUs cannot be used here, with what to do about it; None if they can."""
    cupy = cupy_or_none()
    if cupy is None:
        return f"CuPy, which holds arrays on a GPU, is not installed: {HOW_TO_GET_CUPY}"
    if int(cupy.__version__.split(".")[0]) < OLDEST_CUPY:
        return f"CuPy {cupy.__version__} is too old, {OLDEST_CUPY} is needed: {HOW_TO_GET_CUPY}"
    if not cupy.cuda.is_available():
        return "CuPy finds no GPU with a driver that fits it; nvidia-smi shows which there are"
    return None


@functools.cache
def bfloat16() -> np.dtype[Any]:
    """Return the dtype of arrays of bfloat16, which NumPy has from the package ml_dtypes.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(f"arrays of bfloat16 need the package ml_dtypes: {HOW_TO_GET_CUPY}") from None
    return np.dtype(ml_dtypes.bfloat16)


def is_short(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype is one of the two floats of 16 bits. (NumPy's ``kind`` of bfloat16 is "V".)"""
    return dtype.name in SHORT_FLOATS


def is_float(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype holds floats, bfloat16 among them."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which kernels compute for ``dtype``: float32 for the floats of 16 bits, else itself."""
    return FLOATS[0] if is_short(dtype) else dtype


def array_module(array: Array) -> ModuleType:
    """Return the module whose functions work on ``array``: ``numpy`` for a NumPy array, ``cupy`` for a CuPy array.

    It is the package that defines the array's type, and whoever made the array has already imported it. Kernels call it
    ``xp`` and use no other array functions, so that one text serves every library.
    """
    if isinstance(array, np.ndarray):
        return np
    return sys.modules[type(array).__module__.partition(".")[0]]


def on_gpu(value: object) -> TypeGuard[Array]:
    """Tell whether ``value`` is an array in the memory of a GPU; the simulator's arrays are NumPy's."""
    return is_array(value) and not isinstance(value, np.ndarray)


def address(array: Any) -> int:
    """Return where an array's memory begins, on the host or on the GPU."""
    if isinstance(array, np.ndarray):
        return array.ctypes.data
    place: int = array.data.ptr
    return place


def is_array(value: object) -> bool:
    """Tell whether ``value`` is an array of NumPy or of a library that speaks NumPy's language."""
    if isinstance(value, np.ndarray):
        return True
    if isinstance(value, np.generic):
        return False  # a NumPy scalar has the attributes of an array, and is none
    return hasattr(value, "strides") and hasattr(value, "dtype") and hasattr(value, "shape")


def contiguous(array: Array) -> Array:
    """Return ``array`` itself if it is C-contiguous, aligned and may be written, as kernels need it, else a copy.

    NumPy's ``ascontiguousarray`` hands back an array whose address is no multiple of its element's size. No kernel
    writes its arguments; but to Numba an array that must not be written is a type of its own, for which every kernel
    would be compiled once more, and that takes longer than the copy.
    """
    flags = array.flags
    plain = flags.c_contiguous and getattr(flags, "aligned", True) and getattr(flags, "writeable", True)
    return array if plain else array.copy()


def host_array(xp: Any, size: int, dtype: Any) -> Array:
    """Return (size,) zeros on the host; for CuPy, in memory that a GPU reads and writes while the host goes on."""
    if xp is np:
        return np.zeros(size, dtype)
    memory = xp.cuda.alloc_pinned_memory(size * np.dtype(dtype).itemsize)
    array: Array = np.frombuffer(memory, dtype, size)
    array[...] = 0
    return array


def check_floats(**arrays: Array | None) -> None:
    """Raise unless all arrays (None is skipped) share one dtype, float32 or float64, and their memory is plain.

    Raises:
        TypeError: another dtype, or two.
        ValueError: an array is not C-contiguous, or not aligned.
    """
    first: Any = None
    for array in arrays.values():
        if array is None:
            continue
        first = array.dtype if first is None else first
        if array.dtype is not first and array.dtype != first:
            found = ", ".join(f"{name}: {array.dtype}" for name, array in arrays.items() if array is not None)
            raise TypeError(f"a kernel takes one float dtype, got {found}")
    for name, array in arrays.items():
        if array is None:
            continue
        if first not in FLOATS:
            raise TypeError(f"{name} must be float32 or float64, not {first}")
        _check_memory(name, array)


def check_activations(parameters: dict[str, Array | None] | None = None, /, **activations: Array | None) -> None:
    """Like :func:`check_floats`, for a kernel whose activations may also have 16 bits.

    Args:
        parameters: by name, what then is float32: weights, statistics and their gradients; in all other cases they have
            the dtype of the activations.
        activations: the others; the first is not None.

    Raises:
        TypeError, ValueError: as check_floats.
    """
    parameters = parameters or {}
    first = next(array for array in activations.values() if array is not None).dtype
    if not is_short(first):
        check_floats(**activations, **parameters)
        return
    present = [(name, array) for name, array in (*activations.items(), *parameters.items()) if array is not None]
    for name, array in present:
        wanted = first if name in activations else wide(first)
        if array.dtype != wanted:
            found = ", ".join(f"{name}: {array.dtype}" for name, array in present)
            raise TypeError(f"beside activations of {first}, {name} must be {wanted}; got {found}")
        _check_memory(name, array)


def check_integers(**arrays: Array) -> None:
    """Raise unless all arrays are integers, of any width, and their memory is plain.

    Raises:
        TypeError: another dtype, or the other byte order.
        ValueError: an array is not C-contiguous, or not aligned.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "iu" or not array.dtype.isnative:
            raise TypeError(f"{name} must be integers in the byte order of this machine, not {array.dtype}")
        _check_memory(name, array)


def check_masks(**arrays: Array | None) -> None:
    """Raise unless all arrays (None is skipped) are bool and their memory is plain.

    Raises:
        TypeError: another dtype.
        ValueError: an array is not C-contiguous.
    """
    for name, array in arrays.items():
        if array is None:
            continue
        if array.dtype != bool:
            raise TypeError(f"{name} must be bool, not {array.dtype}")
        _check_memory(name, array)


def _check_memory(name: str, array: Array) -> None:
    """Raise unless the array is C-contiguous (CUDA kernels do not see strides) and aligned (CuPy's always are)."""
    flags = array.flags
    if not flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous; strides are {array.strides} for shape {array.shape}")
    if not getattr(flags, "aligned", True):
        raise ValueError(f"{name} must be aligned: its memory does not begin at a multiple of its element's size")


def check_shapes(**arguments: tuple[Array | None, str] | int) -> None:
    """Raise unless every array has the shape written beside it; one letter is one length, everywhere in the call.

    Args:
        arguments: by the kernel's own names, pairs of an array (None is skipped) and its shape in letters, "" for no
            dimensions; or a number, which fixes the letter it is passed as.

    Raises:
        ValueError: a shape does not fit. The message names the argument, and what it disagrees with.

    >>> x, weight = np.zeros((4, 5)), np.zeros(1)
    >>> check_shapes(x=(x, "N D"), weight=(weight, "D"))
    Traceback (most recent call last):
        ...
    ValueError: weight must be (D), with D = 5 as in x (N, D) of shape (4, 5); its shape is (1,)
    """
    lengths: dict[str, int] = {}
    for name, argument in arguments.items():
        if isinstance(argument, int):
            lengths[name] = argument
            continue
        array, text = argument
        if array is None:
            continue
        letters = _letters(text)
        shape = array.shape
        if len(shape) != len(letters):
            raise ValueError(f"{name} must be ({', '.join(letters)}); its shape is {shape}")
        for letter, length in zip(letters, shape, strict=True):
            if lengths.setdefault(letter, length) != length:
                raise ValueError(_disagreement(arguments, name, letter, lengths[letter]))


@functools.cache
def _letters(text: str) -> list[str]:
    return text.split()


def _disagreement(arguments: dict[str, tuple[Array | None, str] | int], wrong: str, letter: str, expected: int) -> str:
    """Say which shape an argument must have, and which other argument, the first with that letter, asks for it."""
    place = ""
    for name, argument in arguments.items():
        if isinstance(argument, int) or argument[0] is None:
            continue
        array, letters = argument[0], argument[1].split()
        spelt = ", ".join(letters)
        if name == wrong:
            return f"{name} must be ({spelt}), with {letter} = {expected}{place}; its shape is {array.shape}"
        if letter in letters and not place and letter not in arguments:
            place = f" as in {name} ({spelt}) of shape {array.shape}"
    raise AssertionError(wrong)


def check_ranges(**options: tuple[float | None, float, float]) -> None:
    """Raise a ValueError unless ``low <= value < high`` for every option, given as (value, low, high); None is skipped.

    NaN is in no range.
    """
    for name, (value, low, high) in options.items():
        if value is not None and not low <= value < high:
            raise ValueError(f"{name} must be in [{low}, {high}), got {value}")


def check_dropout(probability: float, *, seed: int, call: int, first: int = 0) -> None:
    """Raise a ValueError unless ``probability`` is in [0, 1) and generator and element number fit 64 bits."""
    if not 0 <= probability < 1:
        raise ValueError(f"the dropout probability must be in [0, 1), got {probability}")
    check_ranges(seed=(seed, 0, 2**64), call=(call, 0, 2**64), first=(first, 0, 2**64))


def check_rows(rows: Array | None, *, first: int = 0, **matrix: Array) -> None:
    """Raise unless ``rows`` (N,) says which rows of a larger array the (N, D) of ``matrix`` are; None is skipped.

    The numbers are looked at, where ids and labels are trusted: nobody has checked them before, and a wrong one would
    only give other random bits.

    Args:
        rows: row numbers, integers.
        first: must be 0 beside rows, which number the elements themselves.
        matrix: the array, by its name in the kernel.

    Raises:
        TypeError: no integers.
        ValueError: ``first`` beside rows, another shape, or a row whose element numbers are not in 64 bits.
    """
    if rows is None:
        return
    check_integers(rows=rows)
    check_shapes(**{name: (array, "N D") for name, array in matrix.items()}, rows=(rows, "N"))
    if first:
        raise ValueError(f"first must be 0 beside rows, which number the elements themselves; got {first}")
    columns = max(array.shape[1] for array in matrix.values())
    if rows.size and not on_gpu(rows):  # to look would stop the GPU; ops look at them before they go there
        for row in (int(rows.min()), int(rows.max())):
            check_ranges(rows=(row, 0, 2**64 // max(columns, 1)))


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError unless ``value`` is one of the words ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_heads(heads: int, *, columns: int) -> None:
    """Raise a ValueError unless ``columns`` can be divided among ``heads`` heads."""
    if heads < 1 or columns % heads:
        raise ValueError(f"heads must be at least 1 and divide the {columns} columns, got {heads}")


def check_offsets(cu_seqlens: Array, *, rows: int) -> None:
    """Raise unless ``cu_seqlens`` cuts ``rows`` rows into sentences of at least one: from 0 to ``rows``, growing.

    Raises:
        TypeError: no integers, or not on the host, where kernels read them.
        ValueError: not (B + 1,), memory that is not plain, or other numbers.
    """
    if not isinstance(cu_seqlens, np.ndarray):
        raise TypeError(f"cu_seqlens must be a NumPy array: it is read on the host; got {type(cu_seqlens).__name__}")
    check_integers(cu_seqlens=cu_seqlens)
    check_shapes(cu_seqlens=(cu_seqlens, "B+1"))
    offsets = cu_seqlens.tolist()
    if offsets[:1] != [0] or offsets[-1] != rows or not all(map(operator.lt, offsets, offsets[1:])):
        raise ValueError(f"cu_seqlens must grow from 0 to {rows}, the number of rows; got {cu_seqlens}")
