"""One flat buffer for all parameters of an optimizer, and one of the same layout for their gradients.

    parameters  [ word_embeddings ...............| query.weight .....| query.bias | ... ]      (P,)
    gradients   [ the same places                                                       ]      (P,)

Each begins at a multiple of 8 elements, so that GPUs read it in packs of 16 bytes; what lies between is 0.

``parameter.array`` becomes a view of the first, ``parameter.grad`` of the second. An optimizer step then is one pass
over contiguous memory, whatever the number of parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from minitl.device import module_of
from minitl.kernels.launch import Array, bfloat16
from minitl.optim.gradient_slot import GradientSlot
from minitl.precision import Shadow
from minitl.tensor import Tensor

ALIGNMENT = 8  # elements: 16 bytes of bfloat16, and more of the others


class FlatBuffer:
    """Moves trainable parameters into one buffer; each parameter keeps its identity, its values and its gradient.

    Args:
        trainable: tensors that require gradients, all of one dtype and device, no two the same.

    Attributes:
        parameters: (P,) array.
        gradients: (P,) array, what the slots make of it: theirs are the factors, and the knowledge of what is 0. Who
            writes here calls ``mark_written`` of the slots.
        slots: one GradientSlot per parameter.
        segments: (offset, length) per parameter.

    Raises:
        ValueError: mixed devices or dtypes.
    """

    def __init__(self, trainable: Sequence[Tensor]) -> None:
        kinds = {(parameter.device, str(parameter.dtype)) for parameter in trainable}
        if len(kinds) > 1:
            raise ValueError(f"an optimizer's parameters share one device and dtype, found {sorted(kinds)}")
        self.trainable = list(trainable)
        self.device, dtype = kinds.pop() if kinds else ("cpu", "float32")
        total = sum(_aligned(parameter.size) for parameter in trainable)
        self.parameters = self.xp.zeros(total, dtype=dtype)
        self.gradients = self.xp.zeros(total, dtype=dtype)
        self.segments: list[tuple[int, int]] = []
        self.slots: list[GradientSlot] = []
        self.views: list[Array] = []
        offset = 0
        for parameter in trainable:
            self._adopt(parameter, offset)
            offset += _aligned(parameter.size)
        self._shadow: Array | None = None

    @property
    def xp(self) -> ModuleType:
        """The array module of the buffers."""
        return module_of(self.device)

    def _adopt(self, parameter: Tensor, offset: int) -> None:
        part = slice(offset, offset + parameter.size)
        view = self.parameters[part].reshape(parameter.shape)
        view[...] = parameter.array
        present = parameter.grad
        slot = GradientSlot(self.gradients[part].reshape(parameter.shape), self.device)
        parameter.array = view
        self.views.append(view)
        parameter._grad = None
        parameter._slot = slot
        parameter._shadow = Shadow(lambda: self.shadow[part].reshape(view.shape))
        if present is not None:
            parameter.grad = present
        self.segments.append((offset, parameter.size))
        self.slots.append(slot)

    @property
    def shadow(self) -> Array:
        """The parameters rounded to bfloat16, (P,), in memory that is there from its first use on; see ``Shadow``."""
        if self._shadow is None:
            self._shadow = self.xp.zeros(self.parameters.size, bfloat16())
        return self._shadow

    def owns(self, parameter: Tensor, number: int) -> bool:
        """Tell whether ``parameter`` still lives in place ``number``: ``to`` and a newer optimizer take it away."""
        return parameter._slot is self.slots[number] and parameter.array is self.views[number]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
