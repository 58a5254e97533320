"""What all optimizers share: groups of parameters, the flat buffer, zero_grad, and the check before a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minitl.device import move
from minitl.kernels.launch import Array
from minitl.optim.flat_buffer import FlatBuffer
from minitl.tensor import Tensor


@dataclass
class ParameterGroup:
    """Parameters that are updated alike.

    Attributes:
        parameters: the tensors; those that do not require a gradient when the optimizer is built are left out of it.
        weight_decay: None for the optimizer's own.
        lr: learning rate, None for the optimizer's own; schedules change it.
        names: the parameters' names, for messages and tables; empty if unknown.
    """

    parameters: list[Tensor]
    weight_decay: float | None = None
    lr: float | None = None
    names: list[str] = field(default_factory=list)


class Optimizer(ABC):
    """Base class: subclasses keep their state in flat buffers and write :meth:`_update`.

    Args:
        parameters: tensors, or :class:`ParameterGroup` s (see ``decay_groups``).
        lr: learning rate of the groups that bring none of their own.
        weight_decay: likewise.

    Attributes:
        groups: with ``lr`` and ``weight_decay`` filled in; changing ``group.lr`` changes the next step.
        names: of the trained parameters, from their groups; their numbers, "0", "1" and so on, where those have none.

    Raises:
        ValueError: no parameters, one of them twice or computed, mixed dtypes or devices, or a negative rate.
        TypeError: something that is neither a Tensor nor a group.
    """

    def __init__(self, parameters: Iterable[Tensor | ParameterGroup], *, lr: float, weight_decay: float) -> None:
        self.groups = _as_groups(parameters)
        for group in self.groups:
            group.lr = lr if group.lr is None else group.lr
            group.weight_decay = weight_decay if group.weight_decay is None else group.weight_decay
            check_not_negative(lr=group.lr, weight_decay=group.weight_decay)
        listed = [(parameter, group) for group in self.groups for parameter in group.parameters]
        names = [name for group in self.groups for name in group.names or [""] * len(group.parameters)]
        if not listed:
            raise ValueError("an optimizer needs at least one parameter")
        if len({id(parameter) for parameter, _ in listed}) != len(listed):
            raise ValueError("a parameter is given twice; tied parameters are listed once")
        if not all(parameter.is_leaf for parameter, _ in listed):
            raise ValueError("an optimizer's parameters are leaves; gradients do not stay at a computed tensor")
        self._trained = [(parameter, group) for parameter, group in listed if parameter.requires_grad]
        self._frozen = [parameter for parameter, _ in listed if not parameter.requires_grad]
        trained_names = [name for name, (parameter, _) in zip(names, listed, strict=True) if parameter.requires_grad]
        self.names = [name or str(number) for number, name in enumerate(trained_names)]
        self.buffer = FlatBuffer([parameter for parameter, _ in self._trained])

    def step(self) -> None:
        """Update every parameter that has a gradient; one without (None) keeps its value, its moments and its step
        count.

        Raises:
            RuntimeError: a parameter has left this optimizer since it was built: its module was moved or converted, its
                ``requires_grad`` was changed, or a newer optimizer took it.
        """
        self._check_parameters()
        written = [number for number, slot in enumerate(self.buffer.slots) if slot.written]
        if not written:
            return
        self._update(written)
        for number in written:
            self._trained[number][0]._version.value += 1

    def _check_parameters(self) -> None:
        """Raise unless all parameters are still this optimizer's."""
        for number, (parameter, _) in enumerate(self._trained):
            if not self.buffer.owns(parameter, number):
                raise RuntimeError(f"a parameter of shape {parameter.shape} was moved, converted or given to a newer "
                                   "optimizer: build the optimizer again")  # fmt: skip
        if any(not p.requires_grad for p, _ in self._trained) or any(p.requires_grad for p in self._frozen):
            raise RuntimeError("requires_grad of a parameter was changed: build the optimizer again")

    def zero_grad(self) -> None:
        """Forget all gradients: ``grad`` is None again."""
        for slot in self.buffer.slots:
            slot.forget()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return what the optimizer remembers, as new arrays on the host, named ``first_moment.<parameter>``.

        With the parameters' values, the learning rates and this, training goes on as if it had never stopped.
        """
        return {
            f"{kind}.{name}": np.array(move(self._part(flat, number), "cpu"))
            for kind, flat in self._moments().items()
            for number, name in enumerate(self.names)
        }

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Remember what another optimizer over the same parameters did; see :meth:`state_dict`.

        Raises:
            ValueError: names are missing or unknown, or shapes differ; all are listed, and nothing has been changed.
        """
        shapes = self._state_shapes(state)
        problems = [f"missing: {key}" for key in shapes.keys() - state.keys()]
        problems += [f"unknown: {key}" for key in state.keys() - shapes.keys()]
        problems += [
            f"{key}: expected shape {shapes[key]}, got {np.shape(state[key])}"
            for key in shapes.keys() & state.keys()
            if np.shape(state[key]) != shapes[key]
        ]
        if problems:
            raise ValueError("the state does not fit the optimizer:\n  " + "\n  ".join(sorted(problems)))
        for kind, flat in self._moments().items():
            for number, name in enumerate(self.names):
                self._part(flat, number)[...] = move(np.asarray(state[f"{kind}.{name}"]), self.buffer.device)

    def _state_shapes(self, state: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """Return the arrays that ``state`` must have and their shapes."""
        views = dict(zip(self.names, self.buffer.views, strict=True))
        return {f"{kind}.{name}": view.shape for kind in self._moments() for name, view in views.items()}

    def _moments(self) -> dict[str, Array]:
        """Return the flat buffers, of the parameters' layout, of what is remembered, by kind."""
        return {}

    def _part(self, flat: Array, number: int) -> Array:
        """Return the part of a flat buffer that belongs to parameter ``number``, in its shape."""
        offset, length = self.buffer.segments[number]
        return flat[offset : offset + length].reshape(self.buffer.views[number].shape)

    def _rates(self, number: int) -> tuple[float, float]:
        """Return learning rate and weight decay of parameter ``number``; its group's are filled in, never None."""
        group = self._trained[number][1]
        return group.lr or 0.0, group.weight_decay or 0.0

    @abstractmethod
    def _update(self, written: Sequence[int]) -> None:
        """Update the parameters with these numbers in the buffer."""


def _as_groups(parameters: Iterable[Tensor | ParameterGroup]) -> list[ParameterGroup]:
    if isinstance(parameters, Tensor):
        raise TypeError("an optimizer takes a list of parameters, not a single tensor")
    groups: list[ParameterGroup] = []
    loose: list[Tensor] = []
    for item in parameters:
        if isinstance(item, ParameterGroup):
            groups.append(ParameterGroup(list(item.parameters), item.weight_decay, item.lr, list(item.names)))
        elif isinstance(item, Tensor):
            loose.append(item)
        else:
            raise TypeError(f"an optimizer takes Tensors or ParameterGroups, not {type(item).__name__}")
    return [*groups, ParameterGroup(loose)] if loose else groups


def check_not_negative(**values: Any) -> None:
    """Raise a ValueError naming the first value that is negative or NaN."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value}")
