"""What can be wrong with a kernel's arguments, derived from a right call: dtypes, memory, shapes and options."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from kernel_uses import Use, arrays_of, changed

from minitl.kernels.launch import array_module


class Mistake(NamedTuple):
    """Arguments that must be refused, with an error of this type whose message has all these words."""

    what: str
    arguments: dict[str, Any]
    error: type[Exception]
    words: tuple[str, ...]


OPTIONS: dict[str, tuple[Any, ...]] = {
    "dropout": (-0.1, 1.0, math.nan),
    "probability": (-0.1, 1.0, math.nan),
    "seed": (-1, 2**64),
    "call": (-1, 2**64),
    "first": (-1, 2**64),
    "eps": (-1e-9, math.nan),
    "beta1": (-0.1, 1.0, math.nan),
    "beta2": (-0.1, 1.0, math.nan),
    "label_smoothing": (-0.1, 1.0, math.nan),
    "approximate": ("sigmoid", "TANH"),
    "heads": (0, -1, 2),  # the uses have 3 columns for each of 1 or 3 heads
    "padding_index": (-1, 5),
}
#: Lengths that an option fixes.
FIXED = {"H"}


def mistakes(use: Use, arguments: dict[str, Any]) -> Iterator[Mistake]:
    """Every call with one thing wrong, made of the right ``arguments`` of ``use``."""
    floats = [place for place, array in arrays_of(arguments) if array.dtype.kind == "f"]
    for dtype in ("complex64", "int64"):
        others = arguments
        for place in floats:
            others = changed(others, place, lambda array, dtype=dtype: array.astype(dtype))
        if floats:
            words = (f"{use.spoken.get(floats[0], floats[0])} must be float32 or float64, not {dtype}",)
            yield Mistake(f"all {dtype}", others, TypeError, words)
    for place, array in arrays_of(arguments):
        name = use.spoken.get(place, place)
        for what, change, error, words in (
            *_wrong_dtype(name, array, alone=len(floats) == 1),
            *_wrong_memory(name, array),
            *_wrong_shape(use, place, array),
        ):
            yield Mistake(f"{place} {what}", changed(arguments, place, change), error, words)
    for option in arguments.keys() & OPTIONS.keys() if use.checks_options else ():
        for value in OPTIONS[option]:
            words = ("must be", option, str(value))
            yield Mistake(f"{option} = {value}", {**arguments, option: value}, ValueError, words)
    for changes, error, words in use.wrong:
        yield Mistake(f"{changes}", {**arguments, **changes}, error, (words,))


#: What is wrong, the change that makes it so, the error, and words of its message.
Change = tuple[str, Callable[[Any], Any], type[Exception], tuple[str, ...]]


def _wrong_dtype(place: str, array: Any, *, alone: bool) -> Iterator[Change]:
    kind = array.dtype.kind
    others = {"f": () if alone else ("float32",), "i": ("float64", "bool"), "b": ("uint8", "float64")}[kind]
    words = {"f": ("one float dtype", place), "i": (f"{place} must be integers",), "b": (f"{place} must be bool",)}[
        kind
    ]
    for dtype in others:
        yield dtype, lambda a, dtype=dtype: a.astype(dtype), TypeError, words
    if isinstance(array, np.ndarray) and array.dtype.itemsize > 1:  # a GPU has but one order of bytes
        yield "with bytes swapped", lambda a: a.astype(a.dtype.newbyteorder()), TypeError, (place,)


def _wrong_memory(place: str, array: Any) -> Iterator[Change]:
    if isinstance(array, np.ndarray) and array.dtype.itemsize > 1:  # CuPy's arrays are always aligned
        yield "unaligned", unaligned, ValueError, (f"{place} must be aligned",)
    if array.ndim:
        yield "strided", strided, ValueError, (f"{place} must be C-contiguous",)
    if array.ndim == 2 and min(array.shape) > 1:
        yield "transposed", lambda a: a.T.copy().T, ValueError, (f"{place} must be C-contiguous",)


def _wrong_shape(use: Use, place: str, array: Any) -> Iterator[Change]:
    """A dimension too many; and where another argument has the same letter, another length, 1 included."""
    if place not in use.shapes:
        return
    letters = use.shapes[place].split()
    assert len(letters) == array.ndim, f"{use}: {place} is not {letters}"
    name = use.spoken.get(place, place)
    yield "of one dimension more", lambda a: a[None], ValueError, (f"{name} must be ",)
    given = {name for name, _ in arrays_of(use.arguments)} - {place}
    agreeing = FIXED.union(*(text.split() for name, text in use.shapes.items() if name in given))
    for axis, letter in enumerate(letters):
        words = (place, f"with {letter} = ", "its shape is")
        if letter in agreeing:
            yield f"with more {letter}", lambda a, axis=axis: longer(a, axis), ValueError, words
        if letter in agreeing and array.shape[axis] > 1:
            yield f"with one {letter}", lambda a, axis=axis: first(a, axis), ValueError, words


def unaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers, one byte off every address that a processor reads them from."""
    view = np.ndarray(array.shape, array.dtype, np.empty(array.nbytes + 1, np.uint8)[1:])
    view[...] = array
    return view


def strided(array: Any) -> Any:
    """Every second column of a wider array."""
    wide = array_module(array).zeros((*array.shape[:-1], 2 * array.shape[-1]), dtype=array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def first(array: Any, axis: int) -> Any:
    """The first entry along an axis alone."""
    return array[(slice(None),) * axis + (slice(1),)].copy()


def longer(array: Any, axis: int) -> Any:
    """One more entry along an axis, the first again: a number that is in range."""
    return array_module(array).concatenate([array, first(array, axis)], axis=axis)
