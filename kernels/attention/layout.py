"""Where sentences lie, for CUDA kernels: what they would otherwise work out from the offsets in every launch."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from minitl.kernels.launch import Array


@dataclass(frozen=True)
class Layout:
    """Sentences in T rows, on the device. Sentences may be empty here: a CUDA graph has room for more than there are.

    Attributes:
        offsets: (B + 1,) int64, where each sentence begins; the last is T.
        sentences: (T,) int64, which sentence a row is of.
        squares: (B,) uint64, for each sentence the sum of the squared lengths of those before: so many pairs of rows,
            times the number of heads, have a dropout element of a smaller number.
        tokens: T.
        longest: no sentence is longer.
    """

    offsets: Array
    sentences: Array
    squares: Array
    tokens: int
    longest: int

    @classmethod
    def of(cls, cu_seqlens: np.ndarray, xp: ModuleType) -> Layout:
        """Return the layout of checked offsets (B + 1,) on the host, its arrays made by ``xp``."""
        offsets = cu_seqlens.astype(np.int64)
        lengths = np.diff(offsets)
        sentences = np.repeat(np.arange(len(lengths)), lengths)
        squares = (np.cumsum(lengths**2) - lengths**2).astype(np.uint64)
        return cls(
            xp.asarray(offsets),
            xp.asarray(sentences),
            xp.asarray(squares),
            tokens=int(offsets[-1]),
            longest=int(lengths.max(initial=0)),
        )
