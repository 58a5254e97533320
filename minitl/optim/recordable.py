"""What the kernels of AdamW are told on a GPU, in memory that stays where it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.kernels.adamw import Segment
from minitl.kernels.adamw.table import SHADOW, WEIGHT2, chunks
from minitl.kernels.launch import Array, host_array
from minitl.optim.flat_buffer import FlatBuffer

COPIES = 3  # of the options on the host: one may still be on its way to the GPU, one is waiting, one is being written


class Recordable:
    """The tables of a flat buffer's update, for CUDA graphs: see ``AdamW.launch_step``.

    Attributes:
        options: (parameters, 12), as ``table.options_of`` makes them; written before every step.
    """

    def __init__(self, buffer: FlatBuffer, size: int) -> None:
        """Take the buffer, and how many numbers its options are."""
        self._buffer = buffer
        dtype = buffer.parameters.dtype
        self.options: Any = buffer.xp.zeros((size // (WEIGHT2 + 1), WEIGHT2 + 1), dtype)
        self._hosts = [host_array(buffer.xp, size, dtype) for _ in range(COPIES)]
        self._next = 0
        self._tables: dict[tuple[tuple[int, ...], tuple[bool, ...]], Array] = {}

    def write_options(self, options: Array) -> None:
        """Start to copy new options to the device, in the order of its work."""
        if self._buffer.xp is np:
            self.options[...] = options
            return
        host = self._hosts[self._next]
        self._next = (self._next + 1) % COPIES
        host[...] = options.reshape(-1)
        self.options.set(host.reshape(self.options.shape))

    def table(self, written: tuple[int, ...]) -> Array:
        """Return the chunks of these parameters, (L, 4) int64 on the device; made once for each selection."""
        shadowed = tuple(self._has_shadow(number) for number in written)
        key = written, shadowed
        if key not in self._tables:
            segments = [Segment(*self._buffer.segments[number], 0.0, 0.0, 1) for number in written]
            table = chunks(segments, [None] * len(segments))
            table[:, SHADOW] = np.array(shadowed, dtype=bool)[table[:, 2]]
            table[:, 2] = np.array(written, dtype=np.int64)[table[:, 2]]
            self._tables[key] = self._buffer.xp.asarray(table)
        return self._tables[key]

    def shadow(self) -> Array | None:
        """Return the flat copy in bfloat16, if any part of it is in use."""
        there = any(self._has_shadow(number) for number in range(len(self._buffer.trainable)))
        return self._buffer.shadow if there else None

    def _has_shadow(self, number: int) -> bool:
        shadow = self._buffer.trainable[number]._shadow
        return shadow is not None and shadow.exists
