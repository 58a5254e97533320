"""AdamW: Adam with decoupled weight decay (Loshchilov, Hutter 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from minitl.kernels.adamw import Segment
from minitl.kernels.adamw.table import options_of
from minitl.kernels.launch import Array
from minitl.kernels.select import select
from minitl.optim.optimizer import Optimizer, ParameterGroup, check_not_negative
from minitl.optim.recordable import Recordable
from minitl.tensor import Tensor


class AdamW(Optimizer):
    """AdamW with PyTorch's arguments and defaults.

        m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2          moments of the gradient g
        p = p - lr * ( m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p )

    A plain list of parameters decays them all, exactly as in PyTorch; ``optim.decay_groups(model, weight_decay)``
    exempts biases and layer norms. By default one rounding differs from PyTorch: the decay is subtracted together with
    the step, which in float32 keeps decays that are else rounded away; see ``kernels/adamw/reference.py``.

    Args:
        parameters: tensors or ParameterGroups.
        lr: learning rate.
        betas: decay of the two moments, each in [0, 1).
        eps: keeps the divisor away from 0.
        weight_decay: share of a parameter that one step at lr 1 takes away.
        torch_compat: round where ``torch.optim.AdamW(..., foreach=False, fused=False)`` does on a CPU. From equal
            float32 state, one step gives equal moments, and parameters within 2 units in the last place of the
            largest of parameter and change (equal, where torch's square root is correctly rounded).

    Raises:
        ValueError: a value out of its range, or parameters that do not fit; see Optimizer.
        TypeError: ``torch_compat`` is neither True nor False; see also Optimizer.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor | ParameterGroup],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        torch_compat: bool = False,
    ) -> None:
        if not isinstance(torch_compat, bool):
            raise TypeError(f"torch_compat must be True or False, got {torch_compat!r}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {betas}")
        check_not_negative(eps=eps)
        super().__init__(parameters, lr=lr, weight_decay=weight_decay)
        self.betas, self.eps, self.torch_compat = betas, eps, torch_compat
        size, dtype = self.buffer.parameters.size, self.buffer.parameters.dtype
        # zeros, not zeros_like, which would write them: the system finds memory for a page when it is first written
        self._first_moment = self.buffer.xp.zeros(size, dtype=dtype)
        self._second_moment = self.buffer.xp.zeros(size, dtype=dtype)
        self._steps = [0] * len(self._trained)
        self._touched: list[Array | None] = [None] * len(self._trained)
        self._recordable: Recordable | None = None

    # -- state ---------------------------------------------------------------------------------------------------------

    def _moments(self) -> dict[str, Array]:
        return {"first_moment": self._first_moment, "second_moment": self._second_moment}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return moments, ``steps.<name>``, and ``touched_rows.<name>`` where only some rows ever had a gradient."""
        state = super().state_dict()
        for number, name in enumerate(self.names):
            state[f"steps.{name}"] = np.array(self._steps[number], dtype=np.int64)
            touched = self._touched[number]
            if touched is not None:
                state[f"touched_rows.{name}"] = np.array(touched)
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on where another AdamW over the same parameters was; see :meth:`Optimizer.load_state_dict`."""
        super().load_state_dict(state)
        for number, name in enumerate(self.names):
            self._steps[number] = int(state[f"steps.{name}"])
            touched = state.get(f"touched_rows.{name}")
            self._touched[number] = None if touched is None else np.array(touched, dtype=bool)

    def _state_shapes(self, state: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        shapes = super()._state_shapes(state)
        for name, view in zip(self.names, self.buffer.views, strict=True):
            shapes[f"steps.{name}"] = ()
            if f"touched_rows.{name}" in state:
                shapes[f"touched_rows.{name}"] = view.shape[:1]
        return shapes

    def _update(self, written: Sequence[int]) -> None:
        segments = []
        for number in written:
            self._steps[number] += 1
            self._touch(number)
            place, rates = self.buffer.segments[number], self._rates(number)
            segments.append(Segment(*place, *rates, self._steps[number], self.buffer.slots[number].factor))
        select("adamw", self.buffer.device).update(
            self.buffer.parameters,
            self.buffer.gradients,
            self._first_moment,
            self._second_moment,
            segments=segments,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            torch_compat=self.torch_compat,
            touched=[self._touched[number] for number in written],
        )

    # -- a step that can be recorded -----------------------------------------------------------------------------------
    # clip_grad_norm and step in three parts. The middle one only launches CUDA kernels, and neither reads nor writes a
    # number on the host that changes from step to step: a CUDA graph may hold it.

    def prepare_step(self) -> None:
        """Put learning rates and bias corrections of the coming step where the kernels find them.

        Raises:
            RuntimeError: as ``step`` does.
        """
        self._check_parameters()
        segments = [
            Segment(*place, *self._rates(number), self._steps[number] + 1)
            for number, place in enumerate(self.buffer.segments)
        ]
        options = options_of(
            segments,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            torch_compat=self.torch_compat,
            dtype=self.buffer.parameters.dtype,
        )
        if self._recordable is None:
            self._recordable = Recordable(self.buffer, options.size)
        self._recordable.write_options(options)

    def launch_step(self, max_norm: float) -> tuple[Array, tuple[int, ...]]:
        """Clip the gradients by their global norm and update all parameters that have one.

        Where the norm is not finite nothing is updated.

        Args:
            max_norm: as of ``clip_grad_norm``.

        Returns:
            The norm before clipping, (1,) float64 on the device; and the numbers of the parameters, for ``count_step``.

        Raises:
            RuntimeError: ``prepare_step`` was not called; or others than the CUDA kernels are chosen.
        """
        if self._recordable is None:
            raise RuntimeError("launch_step comes after prepare_step")
        written = tuple(number for number, slot in enumerate(self.buffer.slots) if slot.written)
        for number in written:
            self.buffer.slots[number].multiply_factor_in()  # if somebody has clipped before
        kernel = select("adamw", self.buffer.device)
        if not kernel.__name__.endswith(".cuda"):
            raise RuntimeError(f"launch_step launches CUDA kernels, here {kernel.__name__} is chosen; call step()")
        table = self._recordable.table(written)
        if not len(table):
            return self.buffer.xp.zeros(1), written
        norm, clip = kernel.clip_lines(self.buffer.gradients, table, max_norm=max_norm)
        kernel.update_lines(
            (self.buffer.parameters, self.buffer.gradients, self._first_moment, self._second_moment),
            table,
            self._recordable.options,
            torch_compat=self.torch_compat,
            shadow=self._recordable.shadow(),
            clip=clip,
        )
        return norm, written

    def count_step(self, written: tuple[int, ...]) -> None:
        """Enter that these parameters have been updated. A step that was not taken, for its norm, counts too."""
        for number in written:
            parameter = self._trained[number][0]
            self._steps[number] += 1
            self._touched[number] = None
            parameter._version.value += 1
            if parameter._shadow is not None and parameter._shadow.exists:
                parameter._shadow.version = parameter._version.value

    def _touch(self, number: int) -> None:
        """Enter in ``_touched`` which rows have a gradient in this step; a row that ever had one has moments.

        It is a mask only for a parameter whose first gradient came from an embedding. For others it is None, all rows,
        and so it must be where moments come from elsewhere.
        """
        slot = self.buffer.slots[number]
        if self._steps[number] == 1:
            self._touched[number] = None if slot.touched is None else slot.touched.copy()
            return
        known = self._touched[number]
        if known is not None:
            known |= (slot.array != 0).any(axis=1) if slot.touched is None else slot.touched
