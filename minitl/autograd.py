"""The tape: Function, the record of one operation, and the walk that turns records into gradients.

Calling ``SomeFunction.apply(x, y)`` computes the result and, where a gradient may be wanted, keeps the Function object:
it knows its inputs' places in the graph (its *edges*) and what ``forward`` saved on it. :func:`backward` starts at one
tensor and visits the Functions behind it in reverse topological order: each is visited once, when the gradients of all
its uses have arrived and been added up.

              x ----> Mul ----> a ----> Add ----> y        y.backward() visits Add, then Exp and Mul; x is used twice,
              |                          ^                 so its gradient is the sum of what Mul and Exp send back.
              +-----> Exp ----> b -------+
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minitl.device import module_of
from minitl.kernels.launch import Array, array_module, is_array, is_float
from minitl.tensor import Tensor

if TYPE_CHECKING:
    from minitl.optim.gradient_slot import GradientSlot

_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside the ``with`` block (or the decorated function): results have no history.

    A context variable holds the mode, so other threads are not affected.
    """
    token = _grad_enabled.set(False)
    try:
        yield
    finally:
        _grad_enabled.reset(token)


def is_grad_enabled() -> bool:
    """Tell whether operations are being recorded."""
    return _grad_enabled.get()


class Written:
    """Type of :data:`WRITTEN`."""


#: What a backward returns in place of a gradient that it has written into the leaf's slot itself.
WRITTEN = Written()


class Edge(NamedTuple):
    """Where the gradient of one input goes: to one output of a Function, or to a leaf tensor."""

    target: Function | Tensor
    output: int


def _not_written(function: Function, *args: Any, **options: Any) -> Any:
    raise NotImplementedError(f"{type(function).__name__} needs a forward and a backward method")


class Function:
    """One differentiable operation: subclass it, write ``forward`` and ``backward``, call ``apply``.

    ``forward(self, *arrays, **options)`` returns one array or a tuple of arrays. What ``backward`` needs it keeps under
    names (``self.x = x``). ``backward(self, *grads)`` gets one array per output and returns one gradient, or None, per
    array input. Both may use ``self.xp``, the array module of the device, ``self.device``, and ``self.needs_gradient``,
    one bool per input.

    >>> class Square(Function):
    ...     def forward(self, x):
    ...         self.x = x
    ...         return x * x
    ...
    ...     def backward(self, grad_y):
    ...         return 2 * self.x * grad_y
    >>> x = Tensor([3.0], requires_grad=True)
    >>> Square.apply(x).backward()
    >>> x.grad.item()
    6.0
    """

    xp: ModuleType
    device: str
    needs_gradient: tuple[bool, ...]
    edges: tuple[Edge | None, ...]
    _arrived: dict[Function, list[Array | None]]
    freed = False
    #: Whether forward takes activations of 16 bits beside float32 parameters; else all floats have one dtype.
    mixes_precision = False

    # Declared as attributes, so that a subclass may name its arrays and options as it likes.
    forward: Callable[..., Any] = _not_written
    backward: Callable[..., Any] = _not_written

    @classmethod
    def apply(cls, *tensors: Tensor, **options: Any) -> Any:
        """Run the operation on tensors and record it if a gradient may be wanted.

        Returns:
            One Tensor, or a tuple of them if ``forward`` returned a tuple.

        Raises:
            TypeError: an argument is no Tensor, ``forward`` returned no array, or float dtypes are mixed.
            ValueError: the tensors are on different devices.
        """
        _check_inputs(cls, tensors)
        function = cls()
        function.device = tensors[0].device
        function.xp = module_of(function.device)
        recording = is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        function.needs_gradient = tuple(recording and tensor.requires_grad for tensor in tensors)
        result = function.forward(*(tensor.array for tensor in tensors), **options)
        arrays = result if isinstance(result, tuple) else (result,)
        outputs = tuple(function._wrap_output(array, index) for index, array in enumerate(arrays))
        function._share_versions(tensors, outputs)
        if recording:
            function._record(tensors, outputs)
        return outputs if isinstance(result, tuple) else outputs[0]

    def slot(self, index: int) -> GradientSlot | None:
        """Return the gradient slot of input ``index``, if it is a leaf that has one.

        A backward that is given a slot adds its gradient there (or overwrites, while ``slot.written`` is False), calls
        ``slot.mark_written`` and returns :data:`WRITTEN`: large weight gradients then need no array of their own.
        """
        edge = self.edges[index]
        return edge.target._slot if edge is not None and isinstance(edge.target, Tensor) else None

    def into_slots(self, indices: Sequence[int], write: Callable[[list[Array], bool], Any]) -> bool:
        """Let ``write(arrays, accumulate)`` put gradients into the slots of these inputs, or add them to what is there.

        Returns:
            Whether it has: only if all of them have slots, each its own, and these hold gradients, all or none. Then
            backward returns :data:`WRITTEN` for each.
        """
        slots = [self.slot(index) for index in indices]
        there = [slot for slot in slots if slot is not None]
        distinct = {id(slot) for slot in there}  # one leaf may be two inputs, whose gradients are added
        if len(distinct) < len(slots) or len({slot.written for slot in there}) != 1:
            return False
        arrays, written = [slot.array for slot in there], there[0].written
        if written:
            for slot in there:
                slot.mark_written()  # before the first write: Ctrl-C may come after it, and then all rows must count
        write(arrays, written)
        for slot in there:
            slot.mark_written()
        return True

    def take(self, index: int) -> Array | None:
        """Return what other operations have sent back to input ``index`` so far, for backward to add to, in place.

        It is None where nothing has come, or where somebody else holds that array. What backward then returns for the
        input is the sum: a matrix product adds to it at no cost, and the tape would read and write it all once more.
        """
        edge = self.edges[index]
        if edge is None or isinstance(edge.target, Tensor):
            return None
        grads = self._arrived.get(edge.target)
        array = None if grads is None else grads[edge.output]
        if grads is None or array is None:
            return None
        if sys.getrefcount(array) > _OWN_REFERENCES or array.base is not None or not array.flags.c_contiguous:
            return None
        grads[edge.output] = None
        return array

    # -- recording -----------------------------------------------------------------------------------------------------

    def _wrap_output(self, array: Any, index: int) -> Tensor:
        output = Tensor._wrap(self._as_array(array, f"output {index} of forward"), self.device)
        output.output_index = index
        return output

    def _as_array(self, value: Any, what: str) -> Array:
        """Check what forward or backward returned; the scalar of a full reduction becomes an array."""
        if is_array(value):
            array: Array = value
            return array
        if not isinstance(value, int | float | np.generic):
            raise TypeError(f"{type(self).__name__}: {what} is {type(value).__name__}, not an array of its device")
        return self.xp.asarray(value)

    def _share_versions(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """Give an output that is a view of an input that input's version counter."""
        for output in outputs:
            if output.array.base is None and all(output.array is not tensor.array for tensor in inputs):
                continue
            for tensor in inputs:
                if self.xp.may_share_memory(output.array, tensor.array):
                    output._version = tensor._version

    def _record(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        saved = [array for array in _saved_arrays(vars(self).values()) if array_module(array) is self.xp]
        self.edges = tuple(
            Edge(tensor.creator or tensor, tensor.output_index) if needed else None
            for tensor, needed in zip(inputs, self.needs_gradient, strict=True)
        )
        self._input_arrays = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        self._output_arrays = tuple((tensor.shape, tensor.dtype) for tensor in outputs)
        # Which in-place writes would spoil what was saved: those to inputs and outputs that share its memory.
        self._versions = [
            (tensor._version, tensor._version.value)
            for tensor in (*inputs, *outputs)
            if any(self.xp.may_share_memory(tensor.array, value) for value in saved)
        ]
        for output in outputs:
            if is_float(output.dtype):
                output.creator = self
                output._requires_grad = True

    # -- walking back --------------------------------------------------------------------------------------------------

    def _run_backward(self, grads: list[Array | None]) -> tuple[Array | Written | None, ...]:
        """Call ``backward``, with zeros for outputs nobody used, and check what it returns."""
        name = type(self).__name__
        if any(version.value != seen for version, seen in self._versions):
            raise RuntimeError(
                f"{name}.backward needs a value that was overwritten in place after {name}.forward saved it; "
                "call backward() before the in-place write (optimizer step, load_state_dict, copy_)"
            )
        filled = [
            self.xp.zeros(shape, dtype) if grad is None else self.xp.asarray(grad)
            for grad, (shape, dtype) in zip(grads, self._output_arrays, strict=True)
        ]
        returned = self.backward(*filled)
        results = returned if isinstance(returned, tuple) else (returned,)
        if len(results) != len(self.edges):
            raise RuntimeError(f"{name}.backward returned {len(results)} gradients for {len(self.edges)} inputs")
        return tuple(self._checked_gradient(grad, index) for index, grad in enumerate(results))

    def _checked_gradient(self, grad: Any, index: int) -> Array | Written | None:
        if grad is None or isinstance(grad, Written):
            return grad
        array = self._as_array(grad, f"gradient {index} of backward")
        shape, dtype = self._input_arrays[index]
        if array.shape != shape or array.dtype != dtype:
            raise RuntimeError(
                f"{type(self).__name__}.backward: the gradient of input {index} has shape {array.shape} and dtype "
                f"{array.dtype}, the input has {shape} and {dtype}"
            )
        return array

    def _free(self) -> None:
        """Drop everything that was kept for backward, and with it the graph behind."""
        vars(self).clear()
        self.freed = True


def _saved_arrays(values: Iterable[Any]) -> Iterator[Array]:
    """Yield the arrays among ``values``, also those inside lists, tuples and dictionaries."""
    for value in values:
        if is_array(value):
            yield value
        elif isinstance(value, list | tuple):
            yield from _saved_arrays(value)
        elif isinstance(value, dict):
            yield from _saved_arrays(value.values())


def backward(root: Tensor, gradient: Tensor | None = None) -> None:
    """Walk the graph behind ``root``; see :meth:`Tensor.backward`."""
    start = _first_gradient(root, gradient)
    if root.creator is None:
        root._accumulate_gradient(start)
        return
    uses = _count_uses(root.creator)
    arrived: dict[Function, list[Array | None]] = {}
    _deliver(arrived, Edge(root.creator, root.output_index), start)
    ready = [root.creator]
    while ready:
        function = ready.pop()
        edges = function.edges
        grads = arrived.pop(function, None)
        function._arrived = arrived
        results = (None,) * len(edges) if grads is None else function._run_backward(grads)
        for edge, grad in zip(edges, results, strict=True):
            if edge is None:
                continue
            if grad is not None and not isinstance(grad, Written):
                _deliver(arrived, edge, grad)
            if isinstance(edge.target, Function):
                uses[edge.target] -= 1
                if uses[edge.target] == 0:
                    ready.append(edge.target)
        function._free()


def _first_gradient(root: Tensor, gradient: Tensor | None) -> Array:
    if not root.requires_grad:
        raise RuntimeError(
            "backward() from a tensor without history: nothing that requires_grad led to it, "
            "or it was computed under no_grad()"
        )
    if gradient is None:
        if root.size != 1:
            raise ValueError(f"backward() from shape {root.shape} needs a gradient of that shape; or take .sum() first")
        return module_of(root.device).ones_like(root.array)
    if not isinstance(gradient, Tensor):
        raise TypeError(f"backward() takes a Tensor as gradient, not {type(gradient).__name__}; wrap it: Tensor(array)")
    if gradient.shape != root.shape or gradient.dtype != root.dtype:
        raise ValueError(
            f"backward() from {root.shape} {root.dtype} got a gradient that is {gradient.shape} {gradient.dtype}"
        )
    return gradient.array


def _count_uses(root: Function) -> dict[Function, int]:
    """Count, for every Function behind ``root``, how many edges lead to it: so many visits must come before its own."""
    uses = {root: 0}
    to_visit = [root]
    while to_visit:
        function = to_visit.pop()
        if function.freed:
            raise RuntimeError(
                "backward() a second time through the same graph: its saved values were freed by the first; "
                "run the forward pass again, or add the losses and call backward() once"
            )
        for edge in function.edges:
            if edge is None or isinstance(edge.target, Tensor):
                continue
            if edge.target not in uses:
                uses[edge.target] = 0
                to_visit.append(edge.target)
            uses[edge.target] += 1
    return uses


def _deliver(arrived: dict[Function, list[Array | None]], edge: Edge, grad: Array) -> None:
    """Add ``grad`` to what has arrived at the edge's end; never in place, the array may have gone elsewhere too."""
    if isinstance(edge.target, Tensor):
        edge.target._accumulate_gradient(grad)
        return
    grads = arrived.setdefault(edge.target, [None] * len(edge.target._output_arrays))
    present = grads[edge.output]
    grads[edge.output] = grad if present is None else present + grad


def _check_inputs(kind: type[Function], tensors: tuple[Tensor, ...]) -> None:
    name = kind.__name__
    if not tensors:
        raise TypeError(f"{name}.apply needs at least one Tensor")
    for index, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name}.apply: argument {index} is {type(tensor).__name__}, not a Tensor; wrap it: Tensor(array)"
            )
        if tensor.device != tensors[0].device:
            raise ValueError(f"{name}: tensors on different devices, {tensors[0].device!r} and {tensor.device!r}")
    floats = {tensor.dtype.name for tensor in tensors if is_float(tensor.dtype)}
    allowed = kind.mixes_precision and floats in ({"bfloat16", "float32"}, {"float16", "float32"})
    if len(floats) > 1 and not allowed:
        names = " and ".join(sorted(floats))
        raise TypeError(f"{name}: {names} mixed; convert one with .astype(), nothing is promoted silently")


def _own_references() -> int:
    """Return how many references Function.take counts to an array that only the tape holds."""
    grads: list[Array | None] = [np.empty(1)]
    array = grads[0]
    return sys.getrefcount(array)


_OWN_REFERENCES = _own_references()
