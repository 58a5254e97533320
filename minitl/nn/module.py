"""Module: a tree of parameters. Assign Parameters and Modules, or lists and dictionaries of them, as attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from minitl.device import check_device, move
from minitl.tensor import Tensor


class Parameter(Tensor):
    """A Tensor that a Module owns and an optimizer may change; it requires a gradient until it is frozen."""

    __slots__ = ()

    def __init__(self, array: Any, requires_grad: bool = True, device: str = "cpu") -> None:
        super().__init__(array, requires_grad, device)


def _not_written(module: Module, *args: Any, **options: Any) -> Any:
    raise NotImplementedError(f"{type(module).__name__} needs a forward method")


def _unaliased(values: dict[str, npt.NDArray[Any]], parameters: dict[str, Parameter]) -> dict[str, npt.NDArray[Any]]:
    """Copy the values that lie in the memory of another parameter: writing that one first would change them."""
    hosts = {name: parameter.array for name, parameter in parameters.items() if isinstance(parameter.array, np.ndarray)}
    return {
        name: value.copy()
        if any(name != other and np.may_share_memory(value, host) for other, host in hosts.items())
        else value
        for name, value in values.items()
    }


def _items(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is in ``value``, however deep lists and dictionaries are nested, or the value itself."""
    if isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _items(f"{name}.{position}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _items(f"{name}.{key}", item)
    else:
        yield name, value


class Module:
    """Base class of layers and models.

    A parameter's name is its path of attribute names, with positions for lists and keys for dictionaries:
    ``encoder.layer.0.output.dense.weight``. A plain Tensor is no parameter, only a Parameter is. A subclass writes
    ``forward``; calling the module runs it.

    Attributes:
        training: whether dropout is active; :meth:`train` and :meth:`eval` set it for the whole tree.
    """

    training = True

    # Declared as an attribute, so that a subclass may name its arguments as it likes.
    forward: Callable[..., Any] = _not_written

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.forward(*args, **options)

    # -- the tree ------------------------------------------------------------------------------------------------------

    def _members(self) -> Iterator[tuple[str, Any]]:
        """Yield the attributes, and the items of those that are lists or dictionaries as ``name.0`` or ``name.key``."""
        for name, value in vars(self).items():
            if isinstance(value, list | tuple | dict):
                yield from _items(name, value)
            else:
                yield name, value

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules directly below this one, in the order they were assigned."""
        for name, value in self._members():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for this one, called "", and all below it, each once, by its first name."""
        seen: set[int] = set()
        to_visit: list[tuple[str, Module]] = [("", self)]
        while to_visit:
            name, module = to_visit.pop()
            if id(module) in seen:  # used in two places, or the tree leads back up
                continue
            seen.add(id(module))
            yield name, module
            below = [(f"{name}.{child}" if name else child, one) for child, one in module.named_children()]
            to_visit += reversed(below)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        yield from (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (name, parameter) for the whole tree; one that is used in two places comes once, by its first name."""
        seen: set[Parameter] = set()
        for module_name, module in self.named_modules():
            for name, value in module._members():
                if isinstance(value, Parameter) and value not in seen:
                    seen.add(value)
                    yield f"{module_name}.{name}" if module_name else name, value

    def parameters(self) -> list[Parameter]:
        """Return all parameters, each once."""
        return [parameter for _, parameter in self.named_parameters()]

    # -- modes ---------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on for the whole tree (off with ``mode=False``); return the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch dropout off for the whole tree; return the module."""
        return self.train(False)

    # -- values --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """Return the parameters' values by name, as read-only views (copies, where they are not on the host)."""
        return {name: parameter.numpy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike | Tensor]) -> None:
        """Overwrite all parameters in place with the values of ``state``, converted to each parameter's dtype.

        Raises:
            ValueError: names are missing or unknown, or shapes differ; all are listed, and nothing has been changed.
        """
        parameters = dict(self.named_parameters())
        values = {
            name: value.numpy() if isinstance(value, Tensor) else np.asarray(value) for name, value in state.items()
        }
        problems = [f"missing: {name}" for name in parameters.keys() - values.keys()]
        problems += [f"unknown: {name}" for name in values.keys() - parameters.keys()]
        problems += [
            f"{name}: expected shape {parameters[name].shape}, got {values[name].shape}"
            for name in parameters.keys() & values.keys()
            if parameters[name].shape != values[name].shape
        ]
        if problems:
            raise ValueError("the state does not fit the module:\n  " + "\n  ".join(sorted(problems)))
        for name, value in _unaliased(values, parameters).items():
            parameters[name].copy_(value)

    def to(self, device: str | None = None, dtype: npt.DTypeLike | None = None) -> Self:
        """Move or convert all parameters in place; return the module.

        Gradients are dropped, and an optimizer that was built over these parameters has lost them: its next ``step()``
        raises, build a new one.
        """
        if device is not None:
            check_device(device)
        if dtype is not None and np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"parameters are float32 or float64, not {np.dtype(dtype)}")
        for parameter in self.parameters():
            target = device or parameter.device
            if parameter.device == target and dtype in (None, parameter.dtype):
                continue
            parameter.array = move(parameter.array, target).astype(dtype or parameter.dtype)
            parameter.device = target
            parameter._slot = None
            parameter._grad = None
            parameter._version.value += 1  # a graph that was recorded before belongs to the old values
        return self
