"""A parameter's place in the flat gradient buffer, and what is known about the numbers there.

A batch looks at few rows of a word table, the largest parameter there is. So the slot of a matrix knows which rows may
differ from 0: only those are made 0 again, summed for the norm and given to the optimizer. And clipping does not go
through the memory: it leaves a factor, which the optimizer's step multiplies by on its way.
"""

from __future__ import annotations

import numpy as np

from minitl.kernels.launch import Array, on_gpu
from minitl.tensor import Tensor


class GradientSlot:
    """A leaf's place in its optimizer's flat gradient buffer.

    Attributes:
        tensor: the memory as a Tensor; see :meth:`show`.
        written: whether the slot holds a gradient; until then, the buffer holds a leftover of an earlier step.
        factor: the gradient is this times what lies in the buffer.
    """

    __slots__ = ("_array", "_shown", "_touched", "_touched_version", "factor", "tensor", "written")

    def __init__(self, array: Array, device: str) -> None:
        """Take ``array``, a view of a buffer of zeros, of the leaf's shape."""
        self._array = array
        self.tensor = Tensor._wrap(array, device)
        self.written = False
        self.factor = 1.0
        self._shown = False
        # a GPU writes zeros faster than it finds out where they are needed
        known = array.ndim == 2 and not on_gpu(array)
        self._touched = np.zeros(array.shape[0], dtype=bool) if known else None
        self._touched_version = 0

    @property
    def array(self) -> Array:
        """The view of the buffer, once the factor has been multiplied in."""
        self.multiply_factor_in()
        return self._array

    def multiply_factor_in(self) -> None:
        """Let the buffer hold the gradient itself."""
        if self.factor != 1:
            self._array *= self.factor
            self.factor = 1.0

    @property
    def touched(self) -> Array | None:
        """Of a matrix (R,) bool, which rows of the buffer may differ from 0; None if any may.

        Whoever writes without naming rows moves the tensor's version on, by :meth:`mark_written` or ``copy_``, and what
        was known before holds no longer.
        """
        return self._touched if self._touched_version == self.tensor._version.value else None

    def mark_written(self, touched: Array | None = None) -> None:
        """Say that a gradient was written or added: a graph that was recorded over the old one is stale.

        Args:
            touched: which rows may differ from 0 now, or None for any.
        """
        self.written = True
        self.tensor._version.value += 1
        self._touched, self._touched_version = touched, self.tensor._version.value

    def assign(self, array: Array) -> None:
        """Overwrite the gradient with a copy of ``array``."""
        self._touched, self.factor = None, 1.0  # before the first write: Ctrl-C may come after it
        self._array[...] = array
        self.mark_written()

    def start_rows(self) -> Array | None:
        """Prepare for adding to some rows: make the leftover of an earlier step 0; return ``touched``.

        On a GPU it is None, always.
        """
        touched = self.touched
        if self.written:
            return touched
        if touched is None:
            self._array[...] = 0
            return None if on_gpu(self._array) else np.zeros(self._array.shape[0], dtype=bool)
        self._array[touched] = 0
        touched[...] = False
        return touched

    def scale(self, factor: float) -> None:
        """Multiply the gradient: at once if someone may be looking at it, else when it is used."""
        array = self.array
        if self._shown:
            array *= factor
        else:
            self.factor = factor
        self.mark_written(self.touched)

    def show(self) -> Tensor:
        """Return the gradient to somebody who may keep it, and may write into its array."""
        self.tensor.array = self.array  # the same memory, with the factor in it
        self._shown, self._touched = True, None
        return self.tensor

    def forget(self) -> None:
        """Hold no gradient; what :meth:`show` has returned is valid no longer."""
        self.written, self._shown, self.factor = False, False, 1.0
