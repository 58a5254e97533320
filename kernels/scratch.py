"""Memory that a kernel needs for the time of one call, kept for the next: fresh pages cost more than most kernels."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from minitl.kernels.launch import Array

CACHE_LINE = 64  # bytes; a vector register of AVX-512 that lies across two lines takes two loads


class Scratch(threading.local):
    """Each thread's arrays, by what they are for."""

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def take(self, purpose: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an array with arbitrary contents that begins at a cache line; it is the same memory for each call
        with that purpose, made larger when needed.
        """
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        buffer = self._buffers.get(purpose)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[purpose] = aligned_empty((size,), np.uint8)
        return buffer[:size].view(kind).reshape(shape)


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array with arbitrary contents that begins at a cache line."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    memory = np.empty(size + CACHE_LINE, np.uint8)
    begin = -memory.ctypes.data % CACHE_LINE
    return memory[begin : begin + size].view(kind).reshape(shape)


scratch = Scratch()
