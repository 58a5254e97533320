"""Tensor: an array, a flag, a gradient, and the Function that made it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from minitl.device import check_device, move
from minitl.kernels.launch import Array, is_array

if TYPE_CHECKING:
    from minitl.autograd import Function
    from minitl.optim.gradient_slot import GradientSlot
    from minitl.precision import Shadow

Operand: TypeAlias = "Tensor | float | int | bool | npt.NDArray[Any]"

DTYPES = {np.dtype(name) for name in ("float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8")}


class Version:
    """Counts the in-place writes to one piece of memory; views share their base's counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Tensor:
    """An array that remembers how it was computed.

    Args:
        array: a NumPy array, kept without a copy and with its dtype; or a number or nested list, which becomes float32
            (integers and booleans keep their kind).
        requires_grad: whether :meth:`backward` shall fill :attr:`grad`; only for float dtypes.
        device: where the array lives, ``"cpu"``.

    Attributes:
        array: the writable array itself. Writing into it, or into the array it was made from, is not seen by autograd.
        creator: the Function that computed this tensor, or None for a leaf.

    Raises:
        TypeError: a dtype other than float32, float64, integer or bool, or ``requires_grad`` on integers.

    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.numpy()
    array([2., 4., 6.], dtype=float32)
    """

    __slots__ = (
        "__weakref__",
        "_grad",
        "_half",
        "_requires_grad",
        "_shadow",
        "_slot",
        "_version",
        "array",
        "creator",
        "device",
        "output_index",
    )

    # NumPy must not take `ndarray * tensor` for itself: it would compute an ndarray, without a gradient.
    __array_ufunc__ = None

    def __init__(self, array: Any, requires_grad: bool = False, device: str = "cpu") -> None:
        if isinstance(array, Tensor):
            raise TypeError("Tensor(tensor): use tensor.detach() for the same values without history")
        if not is_array(array):
            array = np.asarray(array)
            if array.dtype == np.float64:
                array = array.astype(np.float32)
        if array.dtype not in DTYPES:
            raise TypeError(
                f"a Tensor holds float32, float64, integers or bool, not {array.dtype}; convert it with .astype"
            )
        self.array: Array = move(array, check_device(device))
        self.device = device
        self.creator: Function | None = None
        self.output_index = 0
        self._grad: Tensor | None = None
        self._slot: GradientSlot | None = None
        self._shadow: Shadow | None = None
        self._half: Shadow | None = None
        self._version = Version()
        self._requires_grad = False
        self.requires_grad = requires_grad

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def size(self) -> int:
        return self.array.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def is_leaf(self) -> bool:
        """True if no recorded operation made this tensor: gradients end here."""
        return self.creator is None

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a tensor without dimensions has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        notes = ", requires_grad=True" if self.is_leaf and self.requires_grad else ""
        notes += f", made by {type(self.creator).__name__}" if self.creator is not None else ""
        notes += f", device={self.device!r}" if self.device != "cpu" else ""
        return f"Tensor({np.array2string(self.numpy(), separator=', ')}, dtype={self.dtype}{notes})"

    # -- values out ----------------------------------------------------------------------------------------------------

    def numpy(self) -> npt.NDArray[Any]:
        """Return the values as a read-only NumPy array: a view on the CPU, a copy elsewhere."""
        view = self.array.view() if isinstance(self.array, np.ndarray) else self.array.get()
        view.flags.writeable = False
        return view

    def item(self) -> Any:
        """Return the only element as a Python number."""
        if self.size != 1:
            raise ValueError(f"item() needs one element, this tensor has shape {self.shape}")
        return self.array.item()

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Let NumPy read this tensor: a read-only view, or a copy that may be written; see minitl/interop.py."""
        from minitl.interop import as_numpy  # interop builds on this file

        return as_numpy(self, dtype, copy)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Share the internal, writable array with another library. What it writes is not seen by autograd.

        Args:
            stream, max_version, dl_device, copy: as the Python array API standard has them.

        Raises:
            BufferError: this tensor requires a gradient, use ``detach()``; or its dtype or device cannot be shared.
        """
        from minitl.interop import export

        return export(self, stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's kind of this tensor's memory, 1 for the host's and 2 for a GPU's, and its number."""
        place: tuple[int, int] = self.array.__dlpack_device__()
        return place

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth value of a tensor of shape {self.shape} is ambiguous; compare .numpy() with any/all"
            )
        return bool(self.item())

    __hash__ = object.__hash__  # __eq__ compares elementwise, yet a tensor must serve as a dictionary key

    # -- gradients -----------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.dtype.kind != "f":
            raise TypeError(f"only float tensors can require gradients, this one is {self.dtype}")
        if self.creator is not None and not value:
            raise ValueError("requires_grad of a computed tensor cannot be switched off; use detach()")
        self._requires_grad = bool(value)

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient, None until one was written. With an optimizer it is a view of the optimizer's
        gradient buffer and valid until ``zero_grad()``; assigning copies."""
        if self._slot is None:
            return self._grad
        return self._slot.show() if self._slot.written else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"a gradient is a Tensor, not {type(value).__name__}; wrap it: Tensor(array)")
        if value is not None:
            if value.shape != self.shape or value.dtype != self.dtype:
                raise ValueError(
                    f"a gradient has its tensor's shape and dtype: expected {self.shape} {self.dtype}, "
                    f"got {value.shape} {value.dtype}"
                )
            self._set_gradient(value.array)
        elif self._slot is not None:
            self._slot.forget()
        else:
            self._grad = None

    def _set_gradient(self, array: Array) -> None:
        """Store a copy of ``array`` as the gradient: it may be shared with another tensor's gradient."""
        if self._slot is None:
            self._grad = Tensor._wrap(array.copy(), self.device)
        else:
            self._slot.assign(array)

    def _accumulate_gradient(self, array: Array) -> None:
        """Add ``array`` to the gradient, which starts as a copy of the first one."""
        slot, gradient = self._slot, self._grad
        if slot is not None and slot.written:
            total = slot.array
            total += array
            slot.mark_written()
        elif gradient is not None:
            gradient.array += array
            gradient._version.value += 1
        else:
            self._set_gradient(array)

    def backward(self, gradient: Tensor | None = None) -> None:
        """Compute the gradient of this tensor with respect to every leaf that requires one, adding to ``leaf.grad``.

        Args:
            gradient: the gradient of the final result with respect to this tensor; may be left out for one element,
                where it is 1.

        Raises:
            RuntimeError: nothing that requires a gradient leads here; the graph was already walked, and freed; or a
                value it needs has been overwritten since.
            ValueError: ``gradient`` is missing for more than one element, or has another shape.
        """
        from minitl.autograd import backward  # autograd builds on this file

        backward(self, gradient)

    def detach(self) -> Tensor:
        """Return a tensor of the same memory, without history."""
        detached = Tensor._wrap(self.array, self.device)
        detached._version = self._version
        return detached

    def __reduce__(self) -> tuple[Any, ...]:
        """Let ``copy.deepcopy`` and ``pickle`` copy a leaf with its gradient; the copy belongs to no optimizer."""
        if self.creator is not None:
            raise RuntimeError("only leaf tensors can be copied deeply or pickled; detach() leaves the history behind")
        gradient = None if self.grad is None else self.grad.array
        return _restored, (type(self), self.array, self.requires_grad, self.device, gradient)

    # -- in place, and elsewhere ---------------------------------------------------------------------------------------

    def copy_(self, values: Operand) -> Tensor:
        """Overwrite the values in place, outside of autograd; a recorded operation that needs the old ones will raise.

        Raises:
            ValueError: ``values`` do not have this tensor's shape.
            TypeError: they are of a wider kind, floats for an integer tensor.
        """
        source = values.array if isinstance(values, Tensor) else np.asarray(values)
        if source.shape != self.shape:
            raise ValueError(f"copy_ needs values of shape {self.shape}, got {source.shape}")
        if not np.can_cast(source.dtype, self.dtype, casting="same_kind"):
            raise TypeError(f"copy_ would lose what {source.dtype} holds beyond {self.dtype}; convert the values first")
        self.array[...] = move(source, self.device)
        self._version.value += 1
        return self

    def to(self, device: str) -> Tensor:
        """Return this tensor on ``device``: itself where it is there already, else a copy without history."""
        if device == self.device:
            return self
        moved = move(self.array, device)
        copy = moved.copy() if moved is self.array else moved  # two devices may have the same memory
        return Tensor(copy, self.requires_grad and self.is_leaf, device)

    @staticmethod
    def _wrap(array: Array, device: str) -> Tensor:
        """Make a tensor of an array that is known to be right: no checks, no copy."""
        tensor = Tensor.__new__(Tensor)
        tensor.array = array
        tensor.device = device
        tensor.creator = None
        tensor.output_index = 0
        tensor._grad = None
        tensor._slot = None
        tensor._shadow = None
        tensor._half = None
        tensor._version = Version()
        tensor._requires_grad = False
        return tensor

    # -- differentiable operations -------------------------------------------------------------------------------------
    # minitl/ops/operators.py attaches these, so that this file knows nothing of the operations built on it.

    if TYPE_CHECKING:

        def __add__(self, other: Operand) -> Tensor: ...
        def __radd__(self, other: Operand) -> Tensor: ...
        def __sub__(self, other: Operand) -> Tensor: ...
        def __rsub__(self, other: Operand) -> Tensor: ...
        def __mul__(self, other: Operand) -> Tensor: ...
        def __rmul__(self, other: Operand) -> Tensor: ...
        def __truediv__(self, other: Operand) -> Tensor: ...
        def __rtruediv__(self, other: Operand) -> Tensor: ...
        def __pow__(self, exponent: float) -> Tensor: ...
        def __matmul__(self, other: Operand) -> Tensor: ...
        def __rmatmul__(self, other: Operand) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def sqrt(self) -> Tensor: ...
        def tanh(self) -> Tensor: ...
        def erf(self) -> Tensor: ...
        def abs(self) -> Tensor: ...
        def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor: ...
        def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor: ...
        def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor: ...
        def min(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor: ...
        def argmax(self, axis: int | None = None) -> Tensor: ...
        def reshape(self, *shape: SupportsIndex | tuple[int, ...]) -> Tensor: ...
        def transpose(self, *axes: SupportsIndex | tuple[int, ...]) -> Tensor: ...
        def astype(self, dtype: npt.DTypeLike) -> Tensor: ...
        @property
        def T(self) -> Tensor: ...


def _restored(kind: type[Tensor], array: Array, requires_grad: bool, device: str, gradient: Array | None) -> Tensor:
    """Make the tensor that :meth:`Tensor.__reduce__` describes."""
    tensor = kind(array, requires_grad, device)
    if gradient is not None:
        tensor.grad = Tensor(gradient, device=device)
    return tensor
