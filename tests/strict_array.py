"""An array library that refuses what CuPy refuses, so that code which would fail on a GPU fails on every machine.

The module is the namespace (``xp``) and :class:`ndarray` its array, a NumPy array in a box. NumPy's functions cannot
open the box: the protocols by which they would (``__array__``, ``__array_function__``, ``__array_ufunc__``) raise.
Functions of this module refuse raw NumPy arrays; only :func:`asarray` brings one in, and only ``get()`` takes one out.
Reductions return arrays without dimensions, as on a GPU, and never NumPy scalars. There are only functions
and arguments that CuPy has; where minitl needs one more of them, enter it below.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import float32, float64, inf, int32, int64, nan, newaxis, uint8, uint32, uint64  # noqa: F401

_CREATION = ("arange", "empty", "full", "ones", "zeros")
_LIKE = ("empty_like", "full_like", "ones_like", "zeros_like")
_ELEMENTWISE = (
    *(
        "abs",
        "clip",
        "equal",
        "exp",
        "expm1",
        "greater",
        "greater_equal",
        "less",
        "less_equal",
        "log",
        "maximum",
        "minimum",
    ),
    *("not_equal", "sign", "sqrt", "tanh", "where"),
)
_SHAPES = ("ascontiguousarray", "broadcast_to", "concatenate", "stack", "take_along_axis", "matmul", "split")


def _open(value: Any) -> Any:
    """Return what is in the boxes of an argument; refuse a NumPy array outside of one."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: a host array met a device array; move it first")
    if isinstance(value, list | tuple):
        return type(value)(_open(item) for item in value)
    return value


def _close(value: Any) -> Any:
    """Put a result, or a list of them, into a box; a scalar becomes an array without dimensions."""
    if isinstance(value, list):
        return [_close(item) for item in value]
    return ndarray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def _function(name: str) -> Callable[..., Any]:
    numpy_function = getattr(np, name)

    def call(*arguments: Any, **options: Any) -> Any:
        for refused in {"initial", "subok", "order", "like"} & options.keys():
            raise TypeError(f"{name}() got an unexpected keyword argument {refused!r}")
        out = options.get("out")
        result = numpy_function(*map(_open, arguments), **{key: _open(value) for key, value in options.items()})
        return _close(result) if out is None else out

    call.__name__ = name
    return call


class _Add:
    """``xp.add``, with its ``at``."""

    def __call__(self, *arguments: Any) -> Any:
        return _close(np.add(*map(_open, arguments)))

    def at(self, array: ndarray, index: Any, values: Any) -> None:
        np.add.at(_open(array), _open(index), _open(values))


def asarray(value: Any, dtype: Any = None) -> ndarray:
    """Bring a host array, or a number, to the device."""
    return ndarray(np.asarray(value._array if isinstance(value, ndarray) else value, dtype=dtype))


def may_share_memory(a: Any, b: Any) -> bool:
    return np.may_share_memory(_open(a), _open(b))


def _refuse(what: str) -> Callable[..., Any]:
    def refused(self: ndarray, *arguments: Any, **options: Any) -> Any:
        raise TypeError(f"{what}: implicit conversion of a device array to NumPy; use get()")

    return refused


class ndarray:
    """A NumPy array in a box."""

    __slots__ = ("_array",)
    __hash__ = None  # type: ignore[assignment]
    __array__ = _refuse("__array__")
    __array_function__ = _refuse("__array_function__")
    __iter__ = _refuse("__iter__")

    def __init__(self, array: np.ndarray) -> None:
        assert type(array) is np.ndarray
        self._array = array

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Refuse, but for a NumPy scalar beside an array, ``np.float32(2) * array``: CuPy takes that too."""
        scalars = [value for value in inputs if isinstance(value, np.generic)]
        if method != "__call__" or options or not scalars:
            raise TypeError(f"{ufunc.__name__}: NumPy's function was called with a device array")
        return _close(ufunc(*map(_open, inputs)))

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    strides = property(lambda self: self._array.strides)
    flags = property(lambda self: self._array.flags)
    base = property(lambda self: _close(self._array.base))
    T = property(lambda self: _close(self._array.T))

    def get(self) -> np.ndarray:
        return self._array.copy()

    def item(self) -> Any:
        return self._array.item()

    def __len__(self) -> int:
        return len(self._array)

    def __bool__(self) -> bool:
        return bool(self._array)

    def __float__(self) -> float:
        return float(self._array)

    def __int__(self) -> int:
        return int(self._array)

    def __getitem__(self, index: Any) -> ndarray:
        return _close(self._array[_open(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._array[_open(index)] = _open(value)

    def copy(self) -> ndarray:
        return ndarray(self._array.copy())

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return ndarray(self._array.astype(dtype, copy=copy))

    def reshape(self, *shape: Any) -> ndarray:
        return ndarray(self._array.reshape(*shape))

    def transpose(self, *axes: Any) -> ndarray:
        return ndarray(self._array.transpose(*axes))

    def swapaxes(self, first: int, second: int) -> ndarray:
        return ndarray(self._array.swapaxes(first, second))

    def sum(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> ndarray:
        return _close(self._array.sum(axis=axis, dtype=dtype, keepdims=keepdims))

    def mean(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> ndarray:
        return _close(self._array.mean(axis=axis, dtype=dtype, keepdims=keepdims))

    def max(self, axis: Any = None, out: None = None, keepdims: bool = False) -> ndarray:
        return _close(self._array.max(axis=axis, keepdims=keepdims))

    def min(self, axis: Any = None, out: None = None, keepdims: bool = False) -> ndarray:
        return _close(self._array.min(axis=axis, keepdims=keepdims))

    def argmax(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> ndarray:
        return _close(self._array.argmax(axis=axis, keepdims=keepdims))

    def any(self, axis: Any = None, out: None = None, keepdims: bool = False) -> ndarray:
        return _close(self._array.any(axis=axis, keepdims=keepdims))

    def all(self, axis: Any = None, out: None = None, keepdims: bool = False) -> ndarray:
        return _close(self._array.all(axis=axis, keepdims=keepdims))


def _binary(name: str) -> None:
    function = getattr(operator, name)

    def forward(self: ndarray, other: Any) -> ndarray:
        return _close(function(self._array, _open(other)))

    def reflected(self: ndarray, other: Any) -> ndarray:
        return _close(function(_open(other), self._array))

    def in_place(self: ndarray, other: Any) -> ndarray:
        self._array[...] = np.asarray(function(self._array, _open(other))).astype(self.dtype, casting="same_kind")
        return self

    plain = name.strip("_")
    setattr(ndarray, f"__{plain}__", forward)
    if plain not in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(ndarray, f"__r{plain}__", reflected)
        setattr(ndarray, f"__i{plain}__", in_place)


def _unary(name: str) -> None:
    function = getattr(operator, name)
    setattr(ndarray, f"__{name}__", lambda self: _close(function(self._array)))


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift"):
    _binary(_name)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _binary(_name)
for _name in ("neg", "abs", "invert"):
    _unary(_name)
for _name in (*_CREATION, *_LIKE, *_ELEMENTWISE, *_SHAPES):
    globals()[_name] = _function(_name)
add = _Add()
